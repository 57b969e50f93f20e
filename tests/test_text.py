from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from connsearch.text import duration, human, si, table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1, "1"), (999, "999"), (999.4, "999"), (999.6, "1 k"), (1000, "1 k"), (1004, "1 k"),
        (1005, "1 k"), (1006, "1.01 k"), (12_345, "12.3 k"), (999_499, "999 k"), (999_500, "1 M"),
        (2_500_000, "2.5 M"), (10**9, "1 G"), (7.2e12, "7.2 T"), (10**15, "1e+03 T"), (-1500, "-1.5 k"),
        (0.25, "0.25"), (0.001234, "0.00123"),
    ],
)  # fmt: skip
def test_si(value: float, text: str) -> None:
    assert si(value) == text


@given(value=st.integers(0, 10**14))
def test_si_is_right_to_three_digits(value: int) -> None:
    number, _, prefix = si(value).partition(" ")
    factor = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(number) * factor == pytest.approx(value, rel=0.005)
    assert len(re.sub(r"\D", "", number)) <= 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (60, "1 min 0 s"), (75, "1 min 15 s"),
        (3599, "59 min 59 s"), (3600, "1 h 0 min"), (7300, "2 h 2 min"), (86_399, "24 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("macs", 3_210_000, "3.21 M"), ("params", 999, "999"), ("trial", 12, "12"), ("n_layers", 7.0, "7"),
        ("val_error", 0.25, "25.0 %"), ("val_error", 0.01, "1.0 %"), ("val_error", 0.0039, "0.39 %"),
        ("test_accuracy", 1.0, "100.0 %"), ("seconds", 12.3456, "12.35"), ("widths", "8-16", "8-16"),
        ("macs", None, "-"), ("val_error", float("nan"), "-"), ("diverged", True, "1"),
    ],
)  # fmt: skip
def test_human(column: str, value: object, text: str) -> None:
    assert human(column, value) == text


def test_a_table_of_no_rows_is_its_header() -> None:
    assert table(["a", "bb"], []) == "a  bb"


def test_columns_are_aligned_and_lines_end_with_their_text() -> None:
    assert table(["name", "n", "what"], [["x", "10", ""], ["long one", "9", "y"]], left=["name", "what"]) == (
        "name       n  what\n"
        "x         10\n"
        "long one   9  y"
    )  # fmt: skip


def test_rows_must_be_of_one_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table(["a", "b"], [["1"]])
