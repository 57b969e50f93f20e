"""A node of a graph, and what must hold of nodes together: their names, and what each reads."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from connsearch.errors import SpecError, did_you_mean

NodeKind = Literal["stem", "unit", "join", "transition", "carry", "head"]
NODE_KINDS: tuple[str, ...] = get_args(NodeKind)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a network.

    Attributes:
        name: Unique; words joined by dots. Prefix of the node's state-dict keys.
        kind: `stem` reads the input; `unit` computes a layer; `join` merges features or takes a part of
            one, and is no layer; `transition` opens a block at the next resolution; `carry` takes one
            feature to another resolution or width unchanged in role; `head` predicts.
        block: The block it belongs to, from 1. A transition and a carry belong to the block they lead to.
        scale: Number of halvings of resolution since the stem's output.
        path: Which of several parallel paths it lies on, from 0.
        part: Which of a specification's `parts` says what it computes; "" for what its kind and block say.
    """

    name: str
    kind: NodeKind = "unit"
    block: int = 1
    scale: int = 0
    path: int = 0
    part: str = ""

    def __post_init__(self) -> None:
        if self.kind not in NODE_KINDS:
            raise SpecError(
                f"node {self.name!r}: unknown kind {self.kind!r}. {did_you_mean(self.kind, NODE_KINDS)}"
            )
        if self.block < 1 or self.scale < 0 or self.path < 0:
            raise SpecError(f"node {self.name!r}: need block >= 1, scale >= 0 and path >= 0, got {self}")


def check_names(names: list[str]) -> None:
    """Refuse names of which two are equal, or one lies inside another.

    Raises:
        SpecError: naming them.
    """
    known = set(names)
    if len(known) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"two nodes are named {twice!r}: names must differ")
    for name in names:
        for outer in _outer_names(name):
            if outer in known:
                raise SpecError(f"node {name!r} would lie inside node {outer!r}: rename one")


@lru_cache(maxsize=16384)
def _outer_names(name: str) -> tuple[str, ...]:
    """Return `a`, `a.b` for `a.b.c`."""
    parts = name.split(".")
    if not all(parts):
        raise SpecError(f"node name {name!r}: must be words joined by single dots")
    return tuple(".".join(parts[:end]) for end in range(1, len(parts)))


def ascend(sources: tuple[int, ...], bound: int) -> bool:
    """Return whether indices ascend within 0..bound - 1."""
    return not sources or (
        sources[0] >= 0 and sources[-1] < bound and all(map(operator.lt, sources, sources[1:]))
    )


def wrong_sources(index: int, node: Node, sources: tuple[int, ...], nodes: tuple[Node, ...]) -> str:
    """Return what is wrong with what a node reads."""
    if not sources:
        return f"node {node.name!r} is unreachable: it reads nothing and is no stem"
    if node.kind == "stem":
        return f"node {node.name!r} is a stem, but reads {nodes[sources[0]].name!r}"
    for before, source in zip((-1, *sources), sources, strict=False):
        if source == before:
            return f"node {node.name!r} reads {nodes[source].name!r} twice"
    return f"node {node.name!r} reads {sources}: sources must ascend within 0..{index - 1}"
