"""DelugeNets (Kuen et al., arXiv 1611.05552), in the form of the authors' code, and their baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from connsearch.registry import Ref
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}


def _deluge(widths: Sequence[int], depths: Sequence[int], aggregation: Ref) -> NetworkSpec:
    """Three blocks of bottlenecks of expansion 2; block 1's first unit is its node 0."""
    unit = UNITS.ref("bottleneck", expansion=2)
    blocks = tuple(
        BlockConfig(
            topology=Ref("dense"),
            aggregation=aggregation,
            unit=unit,
            n_layers=depth,
            width=width,
            entry_unit=number == 0,
        )
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True))
    )
    return NetworkSpec(stem_ratio=1, blocks=blocks)


_SIZES = {
    "delugenet-146": ((32, 64, 128), (8, 16, 24)),
    "delugenet-218": ((32, 64, 128), (12, 24, 36)),
    "wide-delugenet-146": ((56, 112, 224), (8, 16, 24)),
}
_FORMS = {
    "": Ref("depthwise"),
    "-paper": AGGREGATIONS.ref("depthwise", form="paper"),
    "-base-3x3": Ref("sum"),
}

for _name, (_widths, _depths) in _SIZES.items():
    for _suffix, _aggregation in _FORMS.items():
        PRESETS[_name + _suffix] = partial(_deluge, _widths, _depths, _aggregation)
