"""DenseNets (Huang et al., arXiv 1608.06993) and SparseNets (Zhu et al., arXiv 1801.05895).

The stem has twice the growth rate, as in DenseNet's current code and as SparseNet's published counts need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from connsearch.registry import Ref
from connsearch.spec.network import BlockConfig, NetworkSpec

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def _concatenating(topology: str, depth: int, growth: int, *, bottleneck: bool) -> NetworkSpec:
    """DenseNet or SparseNet: three blocks of concatenated growth; with bottlenecks, transitions halve."""
    block = BlockConfig(
        topology=Ref(topology),
        aggregation=Ref("concat"),
        unit=Ref("dense_bottleneck" if bottleneck else "conv"),
        n_layers=(depth - 4) // (6 if bottleneck else 3),
        width=growth,
    )
    return NetworkSpec(
        stem_ratio=2, transition=Ref("pool"), compression=0.5 if bottleneck else 1.0, blocks=(block,) * 3
    )


for _family, _topology in (("densenet", "dense"), ("sparsenet", "sparse")):
    for _depth, _growth in ((40, 12), (40, 24), (100, 12), (100, 24), (100, 36)):
        PRESETS[f"{_family}-{_depth}-{_growth}"] = partial(
            _concatenating, _topology, _depth, _growth, bottleneck=False
        )
    for _depth, _growth in ((100, 12), (190, 40), (250, 24)):
        PRESETS[f"{_family}-bc-{_depth}-{_growth}"] = partial(
            _concatenating, _topology, _depth, _growth, bottleneck=True
        )
