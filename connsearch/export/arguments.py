"""Which numbers of a class are arguments of its constructor, and how the others follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from connsearch.export.operations import Value

CHANNELS = ("channels", "in_channels", "out_channels", "in_features", "out_features")
LARGEST_MULTIPLE = 16
DEFAULTS = {"stride": 1, "groups": 1}


class Argument(NamedTuple):
    """An argument.

    Attributes:
        name: Its name.
        place: Which of the class's numbers it is.
        default: Its value where it is left out; None if it never is.
    """

    name: str
    place: int
    default: int | None


class Arguments(NamedTuple):
    """The arguments of a class, and each of its numbers as an expression of them."""

    arguments: tuple[Argument, ...]
    expressions: tuple[str, ...]

    def given(self, numbers: Sequence[int]) -> list[tuple[str, int]]:
        """Return what the constructor of a layer is given, as a format and a number each."""
        return [
            ("{}" if default is None else f"{name}={{}}", numbers[place])
            for name, place, default in self.arguments
            if numbers[place] != default
        ]

    def declared(self) -> list[str]:
        """Return the constructor's parameters."""
        return [
            f"{name}: int" if default is None else f"{name}: int = {default}"
            for name, _, default in self.arguments
        ]


def solve(layers: Sequence[Sequence[Value]], inputs: Sequence[int]) -> Arguments:
    """Return the arguments of a class.

    Args:
        layers: For each layer of the class, its numbers; roles are the same in all.
        inputs: For each layer, the channels that it reads.
    """
    roles = [value.role for value in layers[0]]
    columns = [tuple(layer[place].number for layer in layers) for place in range(len(roles))]
    outs = [place for place, role in enumerate(roles) if role in ("out_channels", "out_features")]
    found: list[Argument] = []
    expressions = []
    for place, (role, column) in enumerate(zip(roles, columns, strict=True)):
        expression = _constant(column) or _follows(role, column, found, roles, columns)
        if expression is None:
            last = bool(outs) and place == outs[-1]
            name = _name(role, column == tuple(inputs), last, {a.name for a in found})
            found.append(Argument(name, place, DEFAULTS.get(role)))
            expression = name
        expressions.append(expression)
    found.sort(key=lambda argument: argument.default is not None)
    return Arguments(tuple(found), tuple(expressions))


def _constant(column: Sequence[int]) -> str | None:
    return str(column[0]) if len(set(column)) == 1 else None


def _follows(
    role: str,
    column: tuple[int, ...],
    found: Sequence[Argument],
    roles: Sequence[str],
    columns: Sequence[tuple[int, ...]],
) -> str | None:
    """Return a number as another one or a multiple of it."""
    for name, place, _ in found:
        other = columns[place]
        if column == other and (role in CHANNELS or role == "groups") is (roles[place] in CHANNELS):
            return name
        factor = column[0] // other[0]
        if (
            {role, roles[place]} <= {*CHANNELS}
            and 1 < factor <= LARGEST_MULTIPLE
            and all(a == factor * b for a, b in zip(column, other, strict=True))
        ):
            return f"{factor} * {name}"
    return None


def _name(role: str, is_input: bool, last: bool, taken: set[str]) -> str:
    if role in CHANNELS:
        name = "in_channels" if is_input else "out_channels" if last else "width"
        if role.endswith("features"):
            name = role
    else:
        name = role
    numbered = (name if n == 1 else f"{name}{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in numbered if candidate not in taken)
