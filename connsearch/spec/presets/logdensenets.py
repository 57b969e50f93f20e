"""Log-DenseNets (Hu et al., arXiv 1711.00002), as the authors' code has them, and what they compare with.

One rule over the whole depth says which earlier layers are concatenated: layer i reads i - 1, i - 2, i - 4,
i - 8, ... (LOG-DENSE), the same number of the latest layers (NEAREST) or of evenly spaced ones, or key
layers on every level of a recursion (LogLog). The head reads what the last layer read, and that layer.

Version 1: the rule ignores blocks; a layer that is read at a later scale is carried there, once for each
change of scale, by a norm - act - 1x1 - 2x2 average of its own. Version 2: the rule holds inside blocks;
every layer also reads a context, which each change of scale extends by the block that ends, compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder, graph_of_rule
from connsearch.graph.patterns import Rule, pattern_rule
from connsearch.registry import Ref
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets.inputs import LARGE

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def log_densenet(
    depths: Sequence[int],
    growth: int,
    *,
    version: str = "v1",
    pattern: object = "log_dense",
    hubs: Iterable[int] = (),
    unit: object = "dense_bottleneck",
    **settings: Any,
) -> NetworkSpec:
    """Return any member of the family.

    Args:
        depths: Layers of each block.
        growth: Channels of each layer; the stem has twice as many.
        version: `v1`: carries across scales. `v2`: block compression with a context.
        pattern: A topology, read over all layers counted together: `log_dense`, `nearest`,
            `evenly_spaced`, `loglog_dense`, `half`, `every_other`, `dense`.
        hubs: Layers that all later ones read too; for version 1.
        unit: `dense_bottleneck`, or `conv` for the basic layer.
        **settings: Other fields of the network.

    Raises:
        SpecError: if the version or the pattern is unknown or a value is wrong.

    >>> log_densenet([12, 12, 12], 24).graph().n_edges
    200
    """
    hubs = tuple(hubs)
    rule = pattern_rule(pattern, depths, hubs=hubs)
    if version not in ("v1", "v2"):
        raise SpecError(f"unknown version {version!r}. {did_you_mean(version, ('v1', 'v2'))}")
    if version == "v2" and hubs:
        raise SpecError(f"hubs: version v2 reads earlier blocks as a context only: use v1, got {list(hubs)}")
    parts: list[dict[str, Any]] = []
    if version == "v1":
        graph = graph_of_rule(rule, depths)
    else:
        graph = _context_graph(rule, depths)
        most = (sum(depths) + 1).bit_length()  # floor(log2(L + 1)) + 1
        parts = [
            {"name": f"new{b}", "line": "transition", "ratio": min(most, depth)}
            for b, depth in enumerate(depths[:-1], start=1)
        ]
    values = {"stem_ratio": 2, "compression": 1.0, **({"parts": parts} if parts else {})}
    return NetworkSpec.from_graph(
        graph, aggregation="concat", unit=unit, width=growth, **{**values, **settings}
    )


def _context_graph(rule: Rule, depths: Sequence[int]) -> ConnectivityGraph:
    """Return the graph of version 2: the rule inside blocks, beside a context that all layers read."""
    graph = GraphBuilder()
    context = [graph.add("stem", "stem")]
    before = 0  # layers of earlier blocks
    for scale, depth in enumerate(depths):
        block = scale + 1
        names = [f"block{block}.layer{i}" for i in range(1, depth + 1)]
        reads = [
            [*context, *(names[i - before - 1] for i in rule[before + inside] if i > before)]
            for inside in range(depth)
        ]
        for name, sources in zip(names, reads, strict=True):
            graph.add(name, reads=sources, block=block, scale=scale)
        if block == len(depths):
            graph.add("head", "head", reads=[*reads[-1], names[-1]], block=block, scale=scale)
            continue
        place: dict[str, Any] = {"block": block + 1, "scale": scale + 1}
        context = [
            graph.add(f"block{block + 1}.old", "carry", reads=context, **place),
            graph.add(f"block{block + 1}.new", "transition", reads=names, part=f"new{block}", **place),
        ]
        before += depth
    return graph.graph()


_FAMILIES: dict[str, dict[str, Any]] = {
    "log-densenet-v1": {},
    "log-densenet-v2": {"version": "v2"},
    "loglog-densenet": {"pattern": "loglog_dense"},
    "nearest-densenet": {"pattern": "nearest"},
    "evenly-spaced-densenet": {"pattern": "evenly_spaced"},
}
for _family, _settings in _FAMILIES.items():
    for _depth in (12, 32, 52):
        PRESETS[f"{_family}-{_depth}-24"] = partial(log_densenet, (_depth,) * 3, 24, **_settings)

for _depth, _depths in ((169, (6, 12, 32, 32)), (265, (6, 12, 64, 48)), (369, (8, 16, 80, 80))):
    PRESETS[f"log-densenet-{_depth}"] = partial(
        log_densenet, _depths, 32, stem=Ref("imagenet"), input=LARGE, n_classes=1000
    )
