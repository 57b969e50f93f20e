"""DelugeNets (Kuen et al., arXiv 1611.05552), in the form of the authors' code, and their baselines.

Names without a suffix: each source of a cross-layer connection is normalised, as in the code, which is what
the published figures come from. `-paper`: equation 1 of the paper. `-base-3x3`: the same layout with plain
sums. `-base-1x1`: a ResNet-v2 of the same units with projection shortcuts, the stride in the first 1x1
convolution; inferred from the published figures, not stated by a source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from connsearch.registry import Ref
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import STEMS, UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec
from connsearch.spec.presets.inputs import LARGE
from connsearch.spec.presets.residual import pre_activation

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

_UNIT = UNITS.ref("bottleneck", expansion=2)


def _deluge(
    widths: Sequence[int],
    depths: Sequence[int],
    aggregation: Ref,
    *,
    entry_unit: bool = True,
    **settings: Any,
) -> NetworkSpec:
    """Blocks of bottlenecks of expansion 2; an entry unit is block 1's first, and its node 0."""
    blocks = tuple(
        BlockConfig(
            topology=Ref("dense"),
            aggregation=aggregation,
            unit=_UNIT,
            n_layers=depth,
            width=width,
            entry_unit=entry_unit and number == 0,
        )
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True))
    )
    return NetworkSpec(stem_ratio=1, blocks=blocks, **settings)


def _large(depths: Sequence[int], aggregation: Ref) -> NetworkSpec:
    """For 224 x 224 pixels: the stem ends with a bare 1x1 convolution, which gives block 1's node 0."""
    return _deluge(
        (64, 128, 256, 512),
        depths,
        aggregation,
        entry_unit=False,
        stem=STEMS.ref("imagenet", expansion=2),
        input=LARGE,
        n_classes=1000,
    )


def _projecting(widths: Sequence[int], depths: Sequence[int]) -> NetworkSpec:
    """The baseline with 1x1 shortcuts."""
    return pre_activation(depths, widths, UNITS.ref("bottleneck", expansion=2, stride_at="first"))


_SMALL = {
    "delugenet-146": ((32, 64, 128), (8, 16, 24)),
    "delugenet-218": ((32, 64, 128), (12, 24, 36)),
    "wide-delugenet-146": ((56, 112, 224), (8, 16, 24)),
}
_LARGE = {
    "delugenet-92": (7, 7, 8, 8),
    "delugenet-104": (7, 8, 9, 10),
    "delugenet-122": (7, 9, 11, 13),
}
_FORMS = {"": Ref("depthwise"), "-paper": AGGREGATIONS.ref("depthwise", form="paper")}

for _name, (_widths, _depths) in _SMALL.items():
    for _suffix, _aggregation in {**_FORMS, "-base-3x3": Ref("sum")}.items():
        PRESETS[_name + _suffix] = partial(_deluge, _widths, _depths, _aggregation)
    PRESETS[f"{_name}-base-1x1"] = partial(_projecting, _widths, _depths)
for _name, _counts in _LARGE.items():
    for _suffix, _aggregation in _FORMS.items():
        PRESETS[_name + _suffix] = partial(_large, _counts, _aggregation)
