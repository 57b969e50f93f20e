"""Presets as data: each is a valid network that files hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connsearch.cost import Budget, fit_width, network_cost
from connsearch.errors import BudgetError, SpecError
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.presets import FAMILIES, PRESETS, preset
from connsearch.spec.presets.dense_prediction import fc_densenet, fc_log_densenet
from connsearch.spec.presets.hardnets import hardnet
from connsearch.spec.presets.logdensenets import log_densenet
from connsearch.spec.presets.mixed import dual_path, mixed_link
from connsearch.spec.presets.multipath import multipath
from connsearch.spec.presets.residual import post_activation, pre_activation


def test_names_of_families_differ() -> None:
    assert sum(map(len, FAMILIES.values())) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_toml_and_json(name: str, tmp_path: Path) -> None:
    spec = preset(name)
    path = tmp_path / "net.toml"
    path.write_text(spec.to_toml(), encoding="utf-8")
    again = NetworkSpec.from_toml(path)
    assert again == spec
    assert hash(again) == hash(spec)
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert resolve(again) == resolve(spec)
    assert network_cost(spec).n_layers > 0


def fitted_or_why_not(spec: NetworkSpec, budget: Budget) -> NetworkSpec | str:
    try:
        return fit_width(spec, budget)
    except (BudgetError, SpecError) as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fits_a_budget_or_says_why_not(name: str) -> None:
    spec = preset(name)
    macs = network_cost(spec).macs
    budgets = [Budget(macs=macs // 2), Budget(macs=macs // 4), Budget(params=200_000), Budget(params=20_000)]
    found = [fitted_or_why_not(spec, budget) for budget in budgets]
    assert isinstance(found[0], NetworkSpec), found[0]
    for budget, fitted in zip(budgets, found, strict=True):
        if isinstance(fitted, str):
            assert re.fullmatch(
                r"(macs|params): the least possible is .*: raise \1 or use fewer layers", fitted
            )
            continue
        cost = network_cost(fitted)  # resolves it
        assert budget.use(macs=cost.macs, params=cost.params) <= 1
        assert fitted.with_widths(spec.widths) == spec


MAKERS: dict[str, Callable[[tuple[int, ...]], NetworkSpec]] = {
    "dual_path": lambda depths: dual_path(depths, (8,) * len(depths), inner=1, groups=1, stem_ratio=1),
    "fc_densenet": lambda depths: fc_densenet(depths, 2, stem=2),
    "fc_log_densenet": lambda depths: fc_log_densenet(depths, 2),
    "hardnet": lambda depths: hardnet((2, 4), depths, *([(4,) * len(depths)] * 2), (False,) * len(depths)),
    "log_densenet v1": lambda depths: log_densenet(depths, 2),
    "log_densenet v2": lambda depths: log_densenet(depths, 2, version="v2"),
    "mixed_link": lambda depths: mixed_link(depths, 2, 2),
    "multipath": lambda depths: multipath(2, depths=depths, widths=(4,) * len(depths)),
    "post_activation": lambda depths: post_activation(depths, (4,) * len(depths), Ref("post_basic")),
    "pre_activation": lambda depths: pre_activation(depths, (4,) * len(depths), Ref("basic")),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_block_has_a_layer(name: str) -> None:
    assert network_cost(MAKERS[name]((1,))).n_layers >= 1
    for depths in ((1, 0, 1), (0,), (-1, 2, 1), (2.0,), ()):
        wrong: Any = depths
        got = re.escape(str(list(depths)))
        with pytest.raises(
            SpecError, match=f"^depths: each block needs an integer of at least 1, got {got}$"
        ):
            MAKERS[name](wrong)
