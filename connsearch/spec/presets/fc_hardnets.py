"""FC-HarDNets (Chao et al., arXiv 1909.00948, Tables 2 and 3): FC-DenseNets whose blocks are harmonic.

Inside a block layer k reads layers k - 2^n for every 2^n that divides k and has g m^v channels, as HarDNet;
layers begin with norm and activation, as in FC-DenseNet. On the way down a block gives out its input, its odd
layers and its last one; deconvolutions and the head read its layers without the input.

Channels, layers, g and m are in the paper's Table 3, and that the blocks of an FC-DenseNet are replaced is
its text. The authors' public code has a later network only, FC-HarDNet-70.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from connsearch.errors import SpecError
from connsearch.graph import predecessors
from connsearch.graph.decoder import dense_blocks_graph, way_down_and_up
from connsearch.graph.patterns import check_depths
from connsearch.registry import Ref
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets.dense_prediction import dense_blocks_settings
from connsearch.spec.presets.hardnets import harmonic_parts, harmonic_width

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

_HARMONIC = Ref("harmonic")


def fc_hardnet(
    stem: int, depths: Sequence[int], growths: Sequence[int], *, weighting: float = 1.7, **settings: Any
) -> NetworkSpec:
    """Return an FC-HarDNet.

    Args:
        stem: Channels of the stem.
        depths: Layers of each block on the way down and of the middle one; the way up has them in reverse.
        growths: g of each of these blocks, its width.
        weighting: m.
        **settings: Other fields of the network.

    Raises:
        SpecError: if a block has no layer or there is not one growth rate for each.
    """
    check_depths(depths)
    if len(growths) != len(depths):
        raise SpecError(f"growths: {len(depths)} blocks need as many growth rates, got {list(growths)}")
    there_and_back = [*depths, *reversed(depths[:-1])]
    graph = dense_blocks_graph(
        [_rule(depth) for depth in there_and_back],
        way_down_and_up(there_and_back),
        short_head=True,
        part=lambda i: f"width{harmonic_width(i)}",
    )
    values = dense_blocks_settings(stem)
    values["parts"] = [*values["parts"], *(part.to_dict() for part in harmonic_parts(depths, weighting))]
    spec = NetworkSpec.from_graph(graph, **{**values, "width": growths[0], **settings})
    return spec.with_widths([*growths, *reversed(growths[:-1])])


def _rule(depth: int) -> tuple[tuple[int, ...], ...]:
    """Return what each layer of a block reads and, last, what it gives out: its input, 0, too."""
    *layers, out = predecessors(_HARMONIC, depth)
    return (*layers, (0, *out))


PRESETS["fc-hardnet-ref100"] = partial(fc_hardnet, 48, (8,) * 6, (10,) * 6, weighting=1.54)
PRESETS["fc-hardnet-76"] = partial(fc_hardnet, 24, (4, 4, 4, 8, 8, 8), (8, 10, 12, 12, 12, 14))
PRESETS["fc-hardnet-84"] = partial(fc_hardnet, 32, (4, 4, 8, 8, 8, 8), (10, 12, 14, 16, 20, 22))
