from __future__ import annotations

import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, strategies as st

from connsearch.config import Config
from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref
from connsearch.search.choices import (
    FLOAT_CHOICE,
    INT_CHOICE,
    LADDER_CHOICE,
    TEXT_CHOICE,
    AnyOf,
    Choice,
    Fixed,
    FloatRange,
    IntRange,
    draw,
    ref_choice,
    values,
)


class Knobs(Config):
    whole: INT_CHOICE = Fixed(1)
    real: FLOAT_CHOICE = Fixed(1.0)
    text: TEXT_CHOICE = Fixed("a")
    ladder: LADDER_CHOICE = Fixed(1)
    rule: ref_choice(TOPOLOGIES) = Fixed(Ref("dense"))


FORMS = [
    ("whole", 3, Fixed(3)),
    ("whole", {"any_of": [1, 4]}, AnyOf((1, 4))),
    ("whole", {"low": 1, "high": 9}, IntRange(1, 9)),
    ("whole", {"low": 1, "high": 9, "step": 2}, IntRange(1, 9, 2)),
    ("whole", {"low": 1, "high": 9, "log": True}, IntRange(1, 9, log=True)),
    ("real", 2.5, Fixed(2.5)),
    ("real", {"any_of": [1.0, 1.5]}, AnyOf((1.0, 1.5))),
    ("real", {"low": 1.0, "high": 2.5}, FloatRange(1.0, 2.5)),
    ("real", {"low": 1.0, "high": 2.5, "log": True}, FloatRange(1.0, 2.5, log=True)),
    ("text", "b", Fixed("b")),
    ("text", {"any_of": ["b", "c"]}, AnyOf(("b", "c"))),
    ("ladder", 7, Fixed(7)),
    ("ladder", [7, 9], AnyOf((7, 9))),
    ("ladder", {"low": 1, "high": 9}, IntRange(1, 9, log=True)),
    ("ladder", {"log": False, "low": 1, "high": 9}, IntRange(1, 9)),
    ("ladder", {"low": 1, "high": 9, "step": 2}, IntRange(1, 9, 2)),
    ("rule", "chain", Fixed(Ref("chain"))),
    ("rule", {"name": "sparse", "base": 3}, Fixed(Ref("sparse", (("base", 3),)))),
    ("rule", {"any_of": ["chain", {"name": "sparse", "base": 3}]},
     AnyOf((Ref("chain"), Ref("sparse", (("base", 3),))))),
]  # fmt: skip


@pytest.mark.parametrize(("field", "written", "choice"), FORMS)
def test_every_form_is_read_and_written(field: str, written: object, choice: Choice) -> None:
    knobs = Knobs.from_dict({field: written})
    assert getattr(knobs, field) == choice
    assert knobs.to_dict() == {field: written}
    assert Knobs(**{field: choice}) == knobs  # a choice that is made already is taken as it is
    jsonschema.validate({field: written}, Knobs.json_schema())


@pytest.mark.parametrize(
    ("field", "short", "choice"),
    [
        ("whole", {"low": 2, "high": 2, "step": 1, "log": False}, IntRange(2, 2)),
        ("real", {"low": 1, "high": 2}, FloatRange(1.0, 2.0)),
        ("ladder", [7], Fixed(7)),
        ("ladder", {"any_of": [7, 9]}, AnyOf((7, 9))),
        ("ladder", {"log": False, "low": 1, "high": 9, "step": 2}, IntRange(1, 9, 2)),
        ("rule", {"any_of": ["chain", "sparse(base=3)", "sparse(base=2)"]},
         AnyOf((Ref("chain"), Ref("sparse", (("base", 3),)), Ref("sparse")))),
    ],
)  # fmt: skip
def test_other_spellings(field: str, short: object, choice: Choice) -> None:
    assert getattr(Knobs.from_dict({field: short}), field) == choice
    jsonschema.validate({field: short}, Knobs.json_schema())


RANGE = "a range needs low <= high, step >= 1 and, if log, low >= 1 without step; got "


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("whole", 1.0, "whole: must be an integer, got 1.0"),
        ("whole", True, "whole: must be an integer, got True"),
        ("whole", "3", "whole: must be an integer, got '3'"),
        ("whole", [1, 2], "whole: must be an integer, got [1, 2]"),
        ("whole", {}, "whole: a range needs low and high, low is missing"),
        ("whole", {"low": 1}, "whole: a range needs low and high, high is missing"),
        ("whole", {"low": 1, "hihg": 2},
         "whole: unknown key 'hihg'. Did you mean 'high'? Known: any_of, high, log, low, step."),
        ("whole", {"low": 1, "high": 2.5}, "whole: must be an integer, got 2.5"),
        ("whole", {"low": 3, "high": 2}, f"whole: {RANGE}IntRange(low=3, high=2, step=1, log=False)"),
        ("whole", {"low": 1, "high": 2, "step": 0},
         f"whole: {RANGE}IntRange(low=1, high=2, step=0, log=False)"),
        ("whole", {"low": 0, "high": 2, "log": True},
         f"whole: {RANGE}IntRange(low=0, high=2, step=1, log=True)"),
        ("whole", {"low": 1, "high": 9, "step": 2, "log": True},
         f"whole: {RANGE}IntRange(low=1, high=9, step=2, log=True)"),
        ("whole", {"low": 1, "high": 9, "log": 1}, "whole: log must be true or false, got 1"),
        ("whole", {"any_of": [1]}, "whole: any_of needs at least two different values, got 1"),
        ("whole", {"any_of": []}, "whole: any_of needs at least two different values, got none"),
        ("whole", {"any_of": [1, 1]}, "whole: any_of needs at least two different values, got 1, 1"),
        ("whole", {"any_of": 3}, "whole: any_of must be a list, got 3"),
        ("whole", {"any_of": [1, 2], "low": 1}, "whole: unknown key 'low'. Known: any_of."),
        ("real", "x", "real: must be a number, got 'x'"),
        ("real", True, "real: must be a number, got True"),
        ("real", float("nan"), "real: must be a number, got nan"),
        ("real", {"low": 1, "high": float("inf")}, "real: must be a number, got inf"),
        ("real", 10**400, f"real: must be a number, got {10**400}"),
        ("real", {"low": 0, "high": 1, "log": True},
         "real: a range needs low <= high and, if log, low > 0; got FloatRange(low=0.0, high=1.0, log=True)"),
        ("real", {"low": 0, "high": 1, "step": 2},
         "real: unknown key 'step'. Known: any_of, high, log, low."),
        ("text", 3, "text: must be text, got 3"),
        ("text", {"low": 1, "high": 2}, "text: must be text, got {'low': 1, 'high': 2}"),
        ("ladder", [], "ladder: any_of needs at least two different values, got none"),
        ("ladder", [7, 7], "ladder: any_of needs at least two different values, got 7, 7"),
        ("ladder", "7", "ladder: must be an integer, got '7'"),
        ("ladder", {"low": 7}, "ladder: a range needs low and high, high is missing"),
        ("rule", "densee", "rule: unknown topology 'densee'. Did you mean 'dense'? Known: "
         + ", ".join(sorted(TOPOLOGIES)) + "."),
        ("rule", {"any_of": ["dense", "dense"]},
         "rule: any_of needs at least two different values, got dense, dense"),
        ("rule", 3, "rule: a topology is a name or a table with a name, got 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(field: str, data: object, message: str) -> None:
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        Knobs.from_dict({field: data})


@pytest.mark.parametrize(
    "data",
    [[], [7, 7], {"any_of": [7]}, {"any_of": [7, 7]}, {"low": 7}, {"low": 1, "high": 2, "stp": 1}, "7"],
    ids=str,
)  # fmt: skip
def test_the_schema_refuses_a_ladder_that_is_refused(data: object) -> None:
    with pytest.raises(jsonschema.ValidationError, match=r"."):
        jsonschema.validate({"ladder": data}, Knobs.json_schema())
    with pytest.raises(SpecError, match=r"^ladder: "):
        Knobs.from_dict({"ladder": data})


whole_numbers = st.integers(-5, 50)
choices: st.SearchStrategy[Choice] = st.one_of(
    st.builds(Fixed, whole_numbers),
    st.lists(whole_numbers, min_size=2, max_size=5, unique=True).map(lambda v: AnyOf(tuple(v))),
    st.tuples(st.integers(1, 50), st.integers(0, 50), st.integers(1, 7), st.booleans()).map(
        lambda r: IntRange(r[0], r[0] + r[1], 1 if r[3] else r[2], r[3])
    ),
)


@given(choice=choices)
def test_what_is_written_is_read_again(choice: Choice) -> None:
    knobs = Knobs(whole=choice, ladder=choice)
    assert Knobs.from_json(knobs.to_json()) == knobs
    jsonschema.validate(knobs.to_dict(), Knobs.json_schema())
    assert Knobs.from_dict(Knobs(real=FloatRange(0.5, 1.5)).to_dict()).real == FloatRange(0.5, 1.5)


@given(choice=choices, seed=st.integers(0, 99))
def test_a_draw_is_one_of_the_values_and_the_ends_bound_it(choice: Choice, seed: int) -> None:
    value = draw(choice, random.Random(seed))
    if isinstance(choice, IntRange):
        assert value in range(choice.low, choice.high + 1, choice.step)
    else:
        assert value in values(choice)
    assert min(values(choice)) <= value <= max(values(choice))


def test_both_ends_of_every_range_are_drawn() -> None:
    def drawn(choice: Choice) -> set[Any]:
        return {draw(choice, random.Random(seed)) for seed in range(300)}

    assert drawn(IntRange(2, 5)) == {2, 3, 4, 5}
    assert drawn(IntRange(2, 7, step=2)) == {2, 4, 6}
    assert drawn(IntRange(1, 3, log=True)) == {1, 2, 3}
    assert drawn(AnyOf(("a", "b"))) == {"a", "b"}
    for log in (False, True):
        reals = drawn(FloatRange(1.0, 100.0, log))
        assert 1.0 <= min(reals) < 3
        assert 95 < max(reals) <= 100.0
        assert sum(x < 10 for x in reals) == pytest.approx(150 if log else 27, abs=35)
