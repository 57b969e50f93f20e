"""Presets as members of a space: which knobs come nearest to a named architecture, and what is lost?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.search.choices import Fixed, values
from connsearch.search.layouts import NUMBERS, PER_NETWORK, base_name
from connsearch.search.space import SearchSpace
from connsearch.search.transfer.places import nearest
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.spec.network import BlockConfig, NetworkSpec
from connsearch.spec.presets import list_presets, preset

_ADD_UP = "its shortcuts add up all earlier layers"
_SHORTCUTS = ("dense", "block", _ADD_UP)
_WHOLE_DEPTH = "its rule over the whole depth"
_GRAPHS = {
    "resnet": _SHORTCUTS,
    "wrn": _SHORTCUTS,
    "resnext": _SHORTCUTS,
    "elu-resnet": _SHORTCUTS,
    "stochastic-depth-resnet": ("dense", "block", f"{_ADD_UP}, none is dropped"),
    "swapout-resnet": ("dense", "block", f"{_ADD_UP}, none is dropped"),
    "log-densenet-v2": ("log_dense", "block", "without its context"),
    "log-densenet": ("log_dense", "global", _WHOLE_DEPTH),
    "loglog-densenet": ("loglog_dense", "global", _WHOLE_DEPTH),
    "nearest-densenet": ("nearest", "global", _WHOLE_DEPTH),
    "evenly-spaced-densenet": ("evenly_spaced", "global", _WHOLE_DEPTH),
}
"""Presets that are graphs of their own, by how names begin: topology and scope that read alike, and how."""
_BASELINE = "-base-1x1"  # of DelugeNet: a ResNet too
_SHOWN = 6
_PLACE = "warm_start.presets"


class _Wanted(NamedTuple):
    """What a preset is in a space's terms: its categories and numbers, its blocks, notes."""

    parts: dict[str, Any]
    numbers: dict[str, Any]
    blocks: tuple[BlockConfig, ...]
    notes: tuple[str, ...]


def preset_knobs(name: str, space: SearchSpace) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return all knobs of a space but the budget, as near to a preset as they come, and what is lost.

    Numbers are clipped to their ranges, blocks that are missing are like the last one.

    Raises:
        SpecError: if the preset is unknown or no topology reads as it does, if the space lacks its topology
            or aggregation, or if the space's networks go up again.
    """
    if space.layout == ENCODER_DECODER:
        raise SpecError(
            f"presets are known as members of spaces of layout 'encoder', this is {space.layout!r}: leave "
            f"out {name!r}, and begin with an earlier study instead (warm_start.study)",
            place=_PLACE,
        )
    wanted = _wanted(name)
    chooser = _Chooser(name, space, list(wanted.notes))
    for part in PER_NETWORK:
        chooser.category(part, [wanted.parts[part]])
    for number in NUMBERS:
        chooser.number(number, wanted.numbers[number])
    blocks = chooser.blocks(wanted.blocks)
    for kind in ("topology", "aggregation", "unit"):
        chooser.category(kind, [getattr(block, kind) for block in blocks], required=kind != "unit")
    chooser.numbers("n_layers", [block.n_layers for block in blocks], 1)
    ratios = [new.width / old.width for old, new in pairwise(blocks)]
    chooser.numbers("width_ratio", ratios, 2)
    return chooser.knobs, tuple(chooser.notes)


def _wanted(name: str) -> _Wanted:
    try:
        spec = preset(name)
    except SpecError as error:
        raise SpecError(str(error), place=_PLACE) from None
    lost = ["nothing is dropped"] if spec.drop else []
    if any(block.entry_unit for block in spec.blocks):
        lost.append("its entry unit is a layer")
    parts = {part: getattr(spec, part) for part in PER_NETWORK}
    numbers = {number: getattr(spec, number) for number in NUMBERS}
    if spec.own_graph is None:
        return _Wanted(parts, numbers, spec.blocks, tuple(lost))
    topology, scope, how = _reading(name)
    blocks = [
        block.replaced(topology=Ref(topology), n_layers=depth)
        for block, depth in zip(spec.blocks, _depths(spec), strict=True)
    ]
    notes = (f"{topology} x {spec.blocks[0].aggregation}: {how}", *lost)
    return _Wanted({**parts, "scope": scope}, numbers, tuple(blocks), notes)


def _reading(name: str) -> tuple[str, str, str]:
    """Return topology and scope that read as a preset's own graph does, and how.

    Raises:
        SpecError: if there is none.
    """
    for beginning in sorted(_GRAPHS, key=len, reverse=True):
        if name.startswith(f"{beginning}-"):
            return _GRAPHS[beginning]
    if name.endswith(_BASELINE):
        return _GRAPHS["resnet"]
    raise SpecError(
        f"preset {name!r} is a graph of its own, which is no topology x aggregation: leave it out",
        place=_PLACE,
    )


def _depths(spec: NetworkSpec) -> list[int]:
    """Return the number of units in each block of a given graph."""
    nodes = spec.own_graph.nodes if spec.own_graph is not None else ()
    return [
        sum(node.kind == "unit" and node.block == number for node in nodes)
        for number in range(1, len(spec.blocks) + 1)
    ]


class _Chooser:
    """Collects values of knobs, and says where they are not what was wanted."""

    def __init__(self, name: str, space: SearchSpace, notes: list[str]) -> None:
        self.name, self.space, self.notes = name, space, notes
        self.choices = space.all_knobs()
        self.knobs: dict[str, Any] = {}

    def category(self, kind: str, wanted: Sequence[Any], *, required: bool = False) -> None:
        """Choose a category, for each block on its own where the space does so."""
        names = [knob for knob in self.choices if base_name(knob) == kind]
        if names == [kind] and len(set(wanted)) > 1:
            if required:
                words = ", ".join(map(str, dict.fromkeys(wanted)))
                raise self._refusal(f"has several of {kind} ({words}): put {kind!r} into blocks.per_block")
            self.notes.append(f"{kind} {wanted[0]} everywhere")
        padded = [*wanted, *[wanted[-1]] * len(names)]
        for knob, value in zip(names, padded, strict=False):
            self.knobs[knob] = self._category(knob, value, required=required)

    def _category(self, knob: str, value: Any, *, required: bool) -> Any:
        there = values(self.choices[knob])
        if value in there:
            return value
        if required:
            kind = base_name(knob)
            raise self._refusal(
                f"has {kind} {value}, the space {', '.join(map(str, there))}: put it into the space, or "
                f"leave the preset out{_others(self.space, self.name)}"
            )
        if knob != "carry" or self.knobs["scope"] == "global":  # there are no carries in a block
            self._say(f"{knob} {there[0]} for {value}")
        return there[0]

    def number(self, knob: str, wanted: float) -> None:
        """Choose a number of the network, and say where one that is searched is not what was wanted."""
        choice = self.choices[knob]
        got = self.knobs[knob] = nearest(choice, wanted)
        if knob == "compression" and wanted and not got:
            self._say("no compression")
        elif got != wanted and not isinstance(choice, Fixed):
            self._say(f"{knob} {got:g} for {wanted:g}")

    def blocks(self, wanted: Sequence[BlockConfig]) -> list[BlockConfig]:
        """Choose the number of blocks; return what each block of the largest number is to be."""
        count = nearest(self.choices["count"], len(wanted))
        self.knobs["count"] = count
        if count < len(wanted):
            self._say(f"its first {count} of {len(wanted)} blocks")
        elif count > len(wanted):
            self._say(f"{count} blocks for {len(wanted)}")
        most = max(values(self.choices["count"]))
        kept = wanted[:count]
        return [*kept, *[kept[-1]] * (most - len(kept))]

    def numbers(self, kind: str, wanted: Sequence[float], first: int) -> None:
        """Choose numbers, one for each block from the first on that has one."""
        used = self.knobs["count"] - first + 1
        got = []
        for number, value in enumerate(wanted, start=first):
            knob = f"{kind}_{number}"
            self.knobs[knob] = nearest(self.choices[knob], value)
            got.append(self.knobs[knob])
        if got[:used] != list(wanted[:used]):
            self._say(f"{kind} {_list(got[:used])} for {_list(wanted[:used])}")

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _refusal(self, what: str) -> SpecError:
        return SpecError(f"preset {self.name!r} {what}", place=_PLACE)


def _list(numbers: Sequence[float]) -> str:
    return "-".join(f"{number:.3g}" for number in numbers)


def _others(space: SearchSpace, name: str) -> str:
    """Return presets that the space can express, in words."""
    found = []
    for other in list_presets():
        if other != name and _expressible(other, space):
            found.append(other)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f". The space has {', '.join(found[:_SHOWN])}{more}" if found else ". The space has none of them"


def _expressible(name: str, space: SearchSpace) -> bool:
    """Return whether a space has the topologies and aggregations of a preset."""
    try:
        blocks = _wanted(name).blocks
    except SpecError:
        return False
    return all(
        getattr(block, kind) in values(getattr(space.blocks, kind))
        for block in blocks
        for kind in ("topology", "aggregation")
    )
