"""What costs print: the command line's table, and the formula of a shape."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from hypothesis import given, strategies as st

from connsearch.cost import CostModel, network_cost
from connsearch.cost.table import cost_table
from connsearch.spec import NetworkSpec
from connsearch.spec.presets import preset
from strategies import specs


def test_a_network_cost_prints_the_row_of_the_command_line() -> None:
    spec = preset("densenet-40-12").replaced(name="")
    lines = cost_table([spec]).splitlines()
    header, row = (line.removeprefix("name").lstrip() for line in lines[:2])
    printed = str(network_cost(spec)).splitlines()
    assert [line.split() for line in printed] == [line.split() for line in (header, row, lines[2])]
    assert printed[1].startswith("1.06 M  283 M  283 M  4.56 k ")


def evaluated(formula: str, widths: list[int]) -> Any:
    """Return the value of a formula, in which neighbours are multiplied."""
    code = re.sub(r"(?<=[\d)]) (?=[mw(])", "*", formula).replace("^", "**")
    code = re.sub(r"\b(\d+)", r"Fraction(\1)", code)
    return eval(
        code,
        {f"w{i}": w for i, w in enumerate(widths, start=1)} | {"Fraction": Fraction, "floor": math.floor},
    )


@given(specs(), st.data())
def test_a_cost_model_prints_the_function_that_it_is(spec: NetworkSpec, data: st.DataObject) -> None:
    model = CostModel(spec)
    widths = [6 * data.draw(st.integers(1, 5)) for _ in spec.blocks]
    params, macs = (line.partition("  ")[2].strip() for line in str(model).splitlines())
    assert evaluated(params, widths) == model.params(widths)
    assert evaluated(macs, widths) == model.macs(widths)
    assert [line.split()[0] for line in str(model).splitlines()] == ["params", "MACs"]
