"""Graphs of networks that go down in resolution and up again, block by block."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from connsearch.errors import SpecError
from connsearch.graph.build import GraphBuilder
from connsearch.graph.graph import ConnectivityGraph
from connsearch.graph.patterns import check_depths


def way_down_and_up(depths: Sequence[int]) -> list[int]:
    """Return the scale of each block: 0, 1, .. up to the middle block and down again.

    Raises:
        SpecError: if the number of blocks is even or one has no layer.
    """
    check_depths(depths)
    if len(depths) % 2 == 0:
        raise SpecError(f"depths: a way down and up again has an odd number of blocks, got {len(depths)}")
    return [min(block, len(depths) - 1 - block) for block in range(len(depths))]


def dense_blocks_graph(
    rules: Sequence[Sequence[Sequence[int]]],
    scales: Sequence[int],
    *,
    short_head: bool = False,
    part: Callable[[int], str] = lambda i: "",
    even: Collection[int] = (),
) -> ConnectivityGraph:
    """Return blocks on a way down and up again, joined by transitions and long skips.

    Args:
        rules: Of each block, what each layer and, last, what follows the block reads; 0 is its input.
        scales: Of each block.
        short_head: Whether the head reads the last block without its input.
        part: The part that layer i of a block, from 1, is.
        even: Blocks, from 1, whose maps all have as many channels: a long skip is carried into them by part
            `skip`, and what leaves them includes their input, as nothing grows by it.
    """
    graph = GraphBuilder()
    entry = [graph.add("stem", "stem")]  # what a block's node 0 consists of
    skips: list[str] = []
    for block, (rule, scale) in enumerate(zip(rules, scales, strict=True), start=1):
        names = [entry, *([f"block{block}.layer{i}"] for i in range(1, len(rule)))]
        for i, reads in enumerate(rule[:-1], start=1):
            graph.add(names[i][0], reads=_flat(names, reads), part=part(i), block=block, scale=scale)
        out, layers = _flat(names, rule[-1]), _flat(names, [i for i in rule[-1] if i > 0])
        if block == len(rules):
            short = short_head and block not in even
            graph.add("head", "head", reads=layers if short else out, block=block, scale=scale)
            break
        place: dict[str, Any] = {"block": block + 1, "scale": scales[block]}
        if scales[block] > scale:
            if len(out) > 1:
                out = [graph.add(f"block{block}.out", "join", reads=out, block=block, scale=scale)]
            skips += out
            entry = [graph.add(f"down{block}", "transition", reads=out, **place)]
        else:
            skip, leaving = skips.pop(), out if block in even else layers
            if block + 1 in even:
                skip = graph.add(f"skip{block}", "carry", reads=[skip], part="skip", **place)
            entry = [skip, graph.add(f"up{block}", "transition", reads=leaving, part="up", **place)]
    return graph.graph()


def _flat(names: Sequence[Sequence[str]], positions: Iterable[int]) -> list[str]:
    return [name for position in positions for name in names[position]]
