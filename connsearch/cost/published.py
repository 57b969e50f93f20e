"""Published figures beside counted ones: a second opinion on every preset, as data.

The files in `figures/` hold what papers and authors print, to the digit and with the source. Nothing here
counts: a figure names a preset, a number of classes and a quantity, and the cost is what it always is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from connsearch.config import Config
from connsearch.cost.cost import CONVENTIONS
from connsearch.cost.counters import COUNTERS
from connsearch.cost.model import network_cost
from connsearch.errors import SpecError, did_you_mean
from connsearch.spec.presets import preset
from connsearch.text import table

_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_NOT_MET = ("misprint", "otherwise", "unresolved")
_PRINTED = r"^\d+(\.\d+)?[kMG]?$"


class Figure(Config):
    """One printed number.

    Attributes:
        preset: The preset that it is about.
        n_classes: Classes it was printed for; 0 for the preset's own.
        quantity: `params`, `macs`, FLOPs in a named convention, or what one of the `COUNTERS` counts.
        printed: The number as printed, such as `6.69M`.
        source: Where it is printed.
        status: `met`: the counted number rounds to it. `misprint`: it is wrong where it is printed.
            `otherwise`: it is met if counted in the other way that the note names. `unresolved`: it is
            not met, and why is not known. `inferred`: the layout was found by trying what gives this
            figure, which is then no second opinion. `unverified`: met or not, the source could not be opened.
        note: Why, for all that is not met.
    """

    preset: str
    n_classes: int = Field(0, ge=0)
    quantity: str = "params"
    printed: Annotated[str, Field(pattern=_PRINTED)]
    source: str
    status: Literal["met", "misprint", "otherwise", "unresolved", "inferred", "unverified"] = "met"
    note: str = ""

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = ("params", "macs", *CONVENTIONS, *COUNTERS)
        if self.quantity not in known:
            raise SpecError(f"unknown quantity {self.quantity!r}. {did_you_mean(self.quantity, known)}")
        if self.status in _NOT_MET and not self.note:
            raise SpecError(f"{self.preset}: a figure that is {self.status} needs a note")
        return self

    @property
    def unit(self) -> str:
        """The prefix that the number is printed with."""
        return self.printed[-1] if self.printed[-1] in "kMG" else ""

    def value(self) -> Decimal:
        """Return the printed number."""
        return Decimal(self.printed.removesuffix(self.unit)) * _FACTORS[self.unit]

    def counted(self) -> int:
        """Return what the preset's cost says."""
        spec = preset(self.preset, n_classes=self.n_classes or None)
        if self.quantity in COUNTERS:
            return COUNTERS[self.quantity](spec)
        cost = network_cost(spec)
        if self.quantity in CONVENTIONS:
            return cost.flops(self.quantity)
        return int(getattr(cost, self.quantity))

    def rounded(self, counted: int) -> Decimal:
        """Return a counted number to the digits that are printed, in the printed unit."""
        printed = Decimal(self.printed.removesuffix(self.unit))
        return (Decimal(counted) / _FACTORS[self.unit]).quantize(printed, ROUND_HALF_UP)

    def met(self) -> bool:
        """Return whether the counted number rounds to the printed one."""
        return self.rounded(self.counted()) * _FACTORS[self.unit] == self.value()


class _File(Config):
    figures: tuple[Figure, ...]


@cache
def published_figures() -> tuple[Figure, ...]:
    """Return all figures, family by family."""
    files = sorted((Path(__file__).parent / "figures").glob("*.toml"))
    return tuple(figure for file in files for figure in _File.from_toml(file).figures)


def figures_of(presets: Iterable[str] | None = None) -> list[Figure]:
    """Return the figures of some presets, or of all that have any.

    Raises:
        SpecError: if one of them is no preset.
    """
    figures = published_figures()
    if presets is None:
        return list(figures)
    wanted = list(presets)
    for name in wanted:
        preset(name)  # a typo is told
    return [figure for name in wanted for figure in figures if figure.preset == name]


def figure_record(figure: Figure) -> dict[str, Any]:
    """Return a figure with what is counted, as plain data."""
    counted = figure.counted()
    return {
        "preset": figure.preset,
        "n_classes": figure.n_classes or preset(figure.preset).n_classes,
        "quantity": figure.quantity,
        "printed": figure.printed,
        "counted": counted,
        "relative_difference": counted / float(figure.value()) - 1,
        "met": figure.met(),
        "status": figure.status,
        "source": figure.source,
        "note": figure.note,
    }


def published_table(figures: Sequence[Figure], presets: Iterable[str] = ()) -> str:
    """Return a row for each figure: published, counted, by how much they differ, and where it is printed.

    Of `presets`, those without a figure have a row too: their parameters.
    """
    rows = []
    known = {figure.preset for figure in figures}
    for record in map(figure_record, figures):
        quantity = record["quantity"]
        verdict = "otherwise counted" if record["status"] == "otherwise" else record["status"]
        if record["met"]:
            verdict = f"{record['status']}, yet met" if record["status"] in _NOT_MET else "met"
        elif record["status"] == "met":
            verdict = "NOT MET"
        if record["status"] in ("unverified", "inferred"):
            verdict += f", {record['status']}"
        rows.append(
            [
                record["preset"],
                str(record["n_classes"]),
                f"FLOPs ({quantity})" if quantity in CONVENTIONS else quantity,
                record["printed"],
                f"{record['counted']:,}",
                f"{100 * record['relative_difference']:+.2f} %",
                verdict,
                record["source"] + (f"; {record['note']}" if record["note"] else ""),
            ]
        )
    for name in presets:
        if name not in known:
            spec = preset(name)
            counted = f"{network_cost(spec).params:,}"
            rows.append([name, str(spec.n_classes), "params", "-", counted, "-", "no figure known", "-"])
    header = ["preset", "classes", "quantity", "published", "counted", "difference", "verdict", "source"]
    text = table(header, rows, left=["preset", "quantity", "verdict", "source"])
    n_met = sum(row[6] == "met" for row in rows)
    return f"{text}\n{n_met} of {len(figures)} published figures are met to the printed digit."
