"""Graphs and trials to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from connsearch.graph import ConnectivityGraph, Node, predecessors
from connsearch.search.reading.pareto import ParetoFront

TOPOLOGIES = ("chain", "dense", "log_dense", "sparse(base=3)", "evenly_spaced", "harmonic", "mixed")
AGGREGATIONS = ("sum", "mean", "concat", "depthwise", "routed")


def make_blocks(topology: str, depths: Sequence[int]) -> ConnectivityGraph:
    """Return stem, blocks joined by transitions, head."""
    nodes, sources = [Node("stem", "stem")], [()]
    for block, depth in enumerate(depths, start=1):
        first, last = len(nodes) - 1, block == len(depths)
        nodes += [Node(f"block{block}.layer{i}", "unit", block, block - 1) for i in range(1, depth + 1)]
        after = (
            Node("head", "head", block, block - 1)
            if last
            else Node(f"transition{block}", "transition", block + 1, block)
        )
        nodes.append(after)
        sources += [tuple(first + i for i in reads) for reads in predecessors(topology, depth)]
    return ConnectivityGraph(tuple(nodes), tuple(sources))


def make_front(n_trials: int, seed: int = 0, **columns: object) -> ParetoFront:
    """Return trials as a search on small images finds them: 0.5 to 8 MMACs, 2 to 15 % error."""
    draw = np.random.default_rng(seed)
    macs = np.exp(draw.uniform(np.log(5e5), np.log(8e6), n_trials)).astype(int)
    topology, aggregation = draw.choice(TOPOLOGIES, n_trials), draw.choice(AGGREGATIONS, n_trials)
    skill = 0.006 * np.array([len(str(t)) % 4 for t in topology]) + 0.004 * np.array(
        [len(str(a)) % 3 for a in aggregation]
    )
    error = 0.018 + 0.05 * (macs / 5e5) ** -0.55 + skill + draw.gamma(1.2, 0.012, n_trials)
    frame = pd.DataFrame(
        {"trial": range(n_trials), "val_error": error.round(4), "macs": macs, "params": macs // 60,
         "topology": topology, "aggregation": aggregation, "n_layers": draw.integers(2, 20, n_trials),
         "widths": [f"{w}-{2 * w}" for w in draw.integers(8, 40, n_trials)]}
    ).assign(**columns)  # fmt: skip
    return ParetoFront.from_frame(frame, ("val_error", "macs"), reference={"val_error": 0.2, "macs": 1e7})


@pytest.fixture
def front() -> Callable[..., ParetoFront]:
    return make_front


@pytest.fixture
def blocks() -> Callable[..., ConnectivityGraph]:
    return make_blocks
