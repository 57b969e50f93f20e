"""A long graph on a screen: of nodes that repeat, the first and the last."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from connsearch.graph.graph import ConnectivityGraph

SCREEN = 40  # lines
WIDTH = 110  # columns
_NUMBER = re.compile(r"\d+")
_PERIODS = range(1, 13)  # nodes after which a network may repeat


def outline(graph: ConnectivityGraph) -> str:
    """Return a line per node, what it reads by name; of a long graph without the middle of what repeats.

    Nodes repeat when, some nodes later, their like reads what lies as far before it, or when all read
    everything since the same node. Long lists of sources end in their number.

    >>> print(outline(ConnectivityGraph.from_topology("chain", 100, head=True)))
    ConnectivityGraph(102 nodes, 101 edges)
    stem      stem        image
    layer1    unit        stem
    ...       98 more like it
    layer100  unit        layer99
    head      head        layer100
    """
    title, *lines = str(graph).splitlines()
    if len(lines) <= SCREEN:
        return str(graph)
    keys = _keys(graph)
    lines = [_cut(line, len(sources)) for line, sources in zip(lines, graph.sources, strict=True)]
    column = max(len(node.name) for node in graph.nodes)
    shown, at = [title], 0
    while at < len(lines):
        times, period = _repeats(keys, at)
        if (times - 2) * period < 3 or _starts_better(graph, keys, at):
            shown.append(lines[at])
            at += 1
            continue
        end = at + times * period
        like = "it" if period == 1 else f"the {period} above"
        shown += [*lines[at : at + period], f"{'...':<{column}}  {times - 2} more like {like}"]
        shown += lines[end - period : end]
        at = end
    return "\n".join(shown)


def _keys(graph: ConnectivityGraph) -> list[list[Hashable]]:
    """Return in two ways what nodes that repeat have in common."""
    kinds = [(_numberless(node.name), node.kind, node.block, node.part) for node in graph.nodes]
    return [[(kind, read(graph, i)) for i, kind in enumerate(kinds)] for read in (_offsets, _all_since)]


def _starts_better(graph: ConnectivityGraph, keys: Sequence[Sequence[Hashable]], at: int) -> bool:
    """Return whether what repeats from `at` on mixes numbers, and repeats as often from the next node on."""
    times, period = _repeats(keys, at)
    first, last = [_NUMBER.findall(graph.nodes[i].name) for i in (at, at + period - 1)]
    return first != last and _repeats(keys, at + 1) == (times, period)


def _repeats(keys: Sequence[Sequence[Hashable]], start: int) -> tuple[int, int]:
    """Return how often nodes from `start` on repeat in a row, and how many they are: as covers most."""
    found = []
    for some in keys:
        for period in _PERIODS:
            end = start + period
            while end < len(some) and some[end] == some[end - period]:
                end += 1
            times = (end - start) // period
            found.append((times * period if times > 2 else 0, -period))
    covered, period = max(found)
    return covered // -period, -period


def _numberless(name: str) -> str:
    return _NUMBER.sub("#", name)


def _offsets(graph: ConnectivityGraph, index: int) -> Hashable:
    return tuple([index - source for source in graph.sources[index]])


def _all_since(graph: ConnectivityGraph, index: int) -> Hashable:
    """Return the first node of all those before a node, if it reads them all; else nothing it shares."""
    sources = graph.sources[index]
    everything = bool(sources) and sources == tuple(range(sources[0], index))
    return sources[0] if everything else (index, "")


def _cut(line: str, n_sources: int) -> str:
    """Return a line of at most `WIDTH` columns where its sources can be left out."""
    if len(line) <= WIDTH or n_sources < 2:
        return line
    ending = f", ... ({n_sources} in all)"
    return line[: WIDTH - len(ending)].rpartition(", ")[0] + ending
