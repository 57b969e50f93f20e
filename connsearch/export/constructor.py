"""The constructor of an exported network: its layers made one by one, those alike in loops."""

from __future__ import annotations

from typing import NamedTuple

from connsearch.export.classes import Classes, Construction, is_inline
from connsearch.export.description import Description
from connsearch.export.layout import wrapped
from connsearch.export.paths import Paths
from connsearch.export.series import Repeat, in_series, longest_repeat

LEAST = 2  # repetitions that are worth a loop
INDENT = " " * 8


class _Item(NamedTuple):
    name: str
    made: Construction


def constructor(description: Description, classes: Classes, paths: Paths) -> list[str]:
    """Return the body of the constructor, line by line."""
    items = _items(description, classes, paths)
    names = [item.name for item in items]
    lines = [f"{INDENT}super().__init__()"]
    at = 0
    while at < len(items):
        repeat = longest_repeat(names, at, lambda *where: _alike(items, *where), least=LEAST)
        if repeat is None or not _is_worth_it(items[at:], repeat):
            lines += wrapped(INDENT + paths.assign(names[at], str(items[at].made)))
            at += 1
            continue
        lines += _loop(items[at : at + repeat.length], repeat, paths)
        at += repeat.length
    return lines


def _items(description: Description, classes: Classes, paths: Paths) -> list[_Item]:
    """Return layers in order, containers before what they contain."""
    waiting, items = list(paths.containers), []
    for layer in description.layers:
        if is_inline(layer):
            continue
        while waiting and layer.name.startswith(f"{waiting[0]}."):
            name = waiting.pop(0)
            items.append(_Item(name, Construction(f"{paths.container_class(name)}()", ())))
        items.append(_Item(layer.name, classes.construction(layer)))
    return items


def _alike(items: list[_Item], at: int, period: int, times: int) -> bool:
    """Return whether repetitions can be made in a loop, whatever its index starts with."""
    return all(_series(items, at + m, period, times, start=0) is not None for m in range(period))


def _series(items: list[_Item], at: int, period: int, times: int, *, start: int) -> str | None:
    return in_series([items[at + r * period].made for r in range(times)], start)


def _is_worth_it(items: list[_Item], repeat: Repeat) -> bool:
    """Return whether there are three layers at least; two of anything lie on a straight line."""
    equal = all(items[m].made == items[repeat.period + m].made for m in range(repeat.period))
    return repeat.length > 2 and (repeat.times > 2 or equal)


def _loop(items: list[_Item], repeat: Repeat, paths: Paths) -> list[str]:
    lines = [f"{INDENT}{repeat.loop()}"]
    for m, name in enumerate(repeat.names):
        made = _series(items, m, repeat.period, repeat.times, start=repeat.start)
        assert made is not None
        lines += wrapped(f"{INDENT}    {paths.assign(name, made)}")
    return lines
