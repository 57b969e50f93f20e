"""DenseNets (Huang et al., arXiv 1608.06993) and SparseNets (Zhu et al., arXiv 1801.05895).

Blocks of concatenated growth, joined by norm - act - 1x1 - 2x2 average. The stem has twice the growth
rate, as in DenseNet's current code and as SparseNet's published counts need; in DenseNet's paper the plain
networks have a stem of 16 channels. SparseNets for large images differ in both ends, as their published
counts need: the stem has the growth rate, the head reads 3x3 pixels.

The concatenating forms follow the authors' code. Of the summing form, SparseNet[+], only the rule is
published: that its unit is the pre-activation basic unit, at a width that doubles from block to block, is
recalled, not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref
from connsearch.spec.chains import STEMS
from connsearch.spec.network import BlockConfig, NetworkSpec
from connsearch.spec.presets.inputs import LARGE

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

DENSE = Ref("dense")
SPARSE = Ref("sparse")
_PLAIN, _BOTTLENECK = Ref("conv"), Ref("dense_bottleneck")
_STEM, _STEM_OF_16 = Ref("conv"), STEMS.ref("conv", channels=16)
_LARGE_DEPTHS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


def _blocks(
    topology: Ref, unit: Ref, depths: Sequence[int], growths: Sequence[int]
) -> tuple[BlockConfig, ...]:
    return tuple(
        BlockConfig(topology=topology, aggregation=Ref("concat"), unit=unit, n_layers=depth, width=growth)
        for depth, growth in zip(depths, growths, strict=True)
    )


def plain(topology: Ref, depth: int, growths: Sequence[int], *, stem: Ref = _STEM) -> NetworkSpec:
    """Three blocks of (depth - 4) / 3 layers of one 3x3 convolution; transitions keep all channels."""
    return NetworkSpec(
        stem=stem,
        stem_ratio=2,
        transition=Ref("pool"),
        compression=1.0,
        blocks=_blocks(topology, _PLAIN, [(depth - 4) // 3] * 3, growths),
    )


def bottlenecks(topology: Ref, depth: int, growths: Sequence[int]) -> NetworkSpec:
    """BC: three blocks of (depth - 4) / 6 bottlenecks with a growth rate each; transitions halve."""
    return NetworkSpec(
        stem_ratio=2,
        transition=Ref("pool"),
        compression=0.5,
        blocks=_blocks(topology, _BOTTLENECK, [(depth - 4) // 6] * 3, growths),
    )


def summed(depth: int, width: int) -> NetworkSpec:
    """SparseNet[+]: y_l = F_l(y_{l-1} + y_{l-2} + y_{l-4} + ...), F_l the basic unit of two convolutions."""
    blocks = [
        BlockConfig(topology=SPARSE, aggregation=Ref("sum"), n_layers=(depth - 4) // 6, width=width << stage)
        for stage in range(3)
    ]
    return NetworkSpec(transition=Ref("pool"), blocks=tuple(blocks))


def large(topology: Ref, depth: int, growth: int) -> NetworkSpec:
    """BC for images of 224x224 pixels, in four blocks."""
    sparse = topology.name == SPARSE.name
    return NetworkSpec(
        input=LARGE,
        n_classes=1000,
        stem=Ref("imagenet"),
        stem_ratio=1 if sparse else 2,
        transition=Ref("pool"),
        compression=0.5,
        head=Ref("flat") if sparse else Ref("pool"),
        blocks=_blocks(topology, _BOTTLENECK, _LARGE_DEPTHS[depth], [growth] * 4),
    )


for _family, _topology in (("densenet", DENSE), ("sparsenet", SPARSE)):
    for _depth, _growth in ((40, 12), (40, 24), (40, 36), (100, 12), (100, 24), (100, 36)):
        PRESETS[f"{_family}-{_depth}-{_growth}"] = partial(plain, _topology, _depth, [_growth] * 3)
    for _depth, _growth in ((100, 12), (190, 40), (250, 24)):
        PRESETS[f"{_family}-bc-{_depth}-{_growth}"] = partial(bottlenecks, _topology, _depth, [_growth] * 3)

for _depth, _growth in ((40, 12), (100, 12), (100, 24)):
    PRESETS[f"densenet-{_depth}-{_growth}-stem-16"] = partial(
        plain, DENSE, _depth, [_growth] * 3, stem=_STEM_OF_16
    )

PRESETS["sparsenet-bc-100-24"] = partial(bottlenecks, SPARSE, 100, (24, 24, 24))
PRESETS["sparsenet-bc-100-16-32-64"] = partial(bottlenecks, SPARSE, 100, (16, 32, 64))
PRESETS["sparsenet-bc-100-32-64-128"] = partial(bottlenecks, SPARSE, 100, (32, 64, 128))
PRESETS["sparsenet-100-16-32-64"] = partial(plain, SPARSE, 100, (16, 32, 64))

for _base in (3, 4):
    PRESETS[f"sparsenet-100-24-base-{_base}"] = partial(
        plain, TOPOLOGIES.ref("sparse", base=_base), 100, (24, 24, 24)
    )

for _depth in (40, 100):
    for _width in (12, 24, 36):
        PRESETS[f"sparsenet-{_depth}-{_width}-sum"] = partial(summed, _depth, _width)

for _depth, _growth in ((121, 32), (161, 48), (169, 32), (201, 32)):
    PRESETS[f"densenet-{_depth}"] = partial(large, DENSE, _depth, _growth)

for _depth in (121, 169, 201):
    for _growth in (32, 48):
        PRESETS[f"sparsenet-{_depth}-{_growth}"] = partial(large, SPARSE, _depth, _growth)
