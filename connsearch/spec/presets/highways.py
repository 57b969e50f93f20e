"""Highway networks (Srivastava et al., arXiv 1505.00387 and 1507.06228) for 32 x 32 pixels.

h_l = T_l * F_l(h_{l-1}) + (1 - T_l) * h_{l-1}, T_l = sigmoid(W_l h_{l-1} + b_l), b_l negative at first: each
join reads the previous join and the unit, and is gated. The layer is the paper's; depths, widths, units with
batch normalisation, gates by 1x1 convolutions and transitions are not: the paper's networks could not be
looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def _graph(depths: Sequence[int]) -> ConnectivityGraph:
    """Stem, units that are each joined with the state, transitions between blocks, head."""
    builder = GraphBuilder()
    state = builder.add("stem", "stem")
    for block, depth in enumerate(depths, start=1):
        scale = block - 1
        if block > 1:
            name = f"transition{scale}"
            state = builder.add(name, "transition", reads=[state], block=block, scale=scale)
        for i in range(1, depth + 1):
            unit = builder.add(f"block{block}.unit{i}", reads=[state], block=block, scale=scale)
            state = builder.add(f"{unit}_join", "join", reads=[state, unit], block=block, scale=scale)
    builder.add("head", "head", reads=[state], block=len(depths), scale=len(depths) - 1)
    return builder.graph()


def _highway(depths: Sequence[int]) -> NetworkSpec:
    """Layers: stem, units, two transitions, linear head."""
    aggregation = AGGREGATIONS.ref("gated", bias=-2.0)
    unit = UNITS.ref("conv", order="post")
    blocks = tuple(BlockConfig(aggregation=aggregation, unit=unit, width=width) for width in (32, 64, 128))
    return NetworkSpec(own_graph=_graph(depths), blocks=blocks)


for _depth, _depths in ((19, (5, 5, 5)), (32, (9, 9, 10))):
    PRESETS[f"highway-{_depth}"] = partial(_highway, _depths)
