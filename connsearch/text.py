"""Numbers and tables as people read them in a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import cast

COUNTS = ("trial", "macs", "params", "n_layers")
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def human(column: str, value: object) -> str:
    """Return a value of a column as people write it: a count with its prefix, an error in percent.

    >>> human("macs", 3_210_000), human("params", 45_600), human("val_error", 0.039), human("widths", "8-16")
    ('3.21 M', '45.6 k', '3.9 %', '8-16')
    """
    if isinstance(value, str):
        return value
    number = float(cast(float, value)) if value is not None else math.nan
    if math.isnan(number):
        return "-"
    if column in ("macs", "params"):
        return si(number)
    if column.endswith(("_error", "_accuracy")):
        return f"{100 * number:.{1 if abs(number) >= 0.01 else 2}f} %"
    return f"{number:.0f}" if column in COUNTS else f"{number:.4g}"


def si(value: float, digits: int = 3) -> str:
    """Return a number with an SI prefix, to so many significant digits.

    >>> si(999), si(999_999), si(2_000_000)
    ('999', '1 M', '2 M')
    """
    rounded = float(f"{value:.{digits - 1}e}")
    for factor, prefix in _SI:
        if abs(rounded) >= factor:
            return f"{rounded / factor:.{digits}g} {prefix}"
    return f"{rounded:.{digits}g}"


def counted(number: int, what: str) -> str:
    """Return how many there are of something.

    >>> counted(1, "epoch"), counted(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(75), duration(7300)
    ('1 min 15 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def first_line(words: object) -> str:
    """Return the first line of a text, or of what an error says; of an error that says nothing its name.

    >>> first_line(ValueError("it is wrong\\nand long")), first_line(KeyError()), first_line("")
    ('it is wrong', 'KeyError', '')
    """
    line = next(iter(str(words).strip().splitlines()), "")
    return line or (type(words).__name__ if isinstance(words, BaseException) else "")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[str] = ()) -> str:
    """Return lines of aligned columns, numbers to the right, the columns named in `left` to the left.

    >>> print(table(["name", "macs"], [["a", "10"], ["bb", "9"]], left=["name"]))
    name  macs
    a       10
    bb       9
    """
    aligned = []
    for column in zip(header, *rows, strict=True):
        width = max(map(len, column))
        to_left = column[0] in left
        aligned.append([cell.ljust(width) if to_left else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))
