"""Networks that predict every pixel: a path down, a path up, features of the one read on the other.

FC-DenseNets (Jegou et al., arXiv 1611.09326) with the rule of DenseNet or SparseNet inside blocks, as their
authors' code has them; `-short-head` and the `ref100` networks as HarDNet's paper (arXiv 1909.00948, Table 2)
counts them, with a head that reads the last block's layers alone. FC-Log-DenseNets (Hu et al.,
arXiv 1711.00002) with one rule over the whole depth. U-Nets (Ronneberger et
al., arXiv 1505.04597) and hypercolumns (Hariharan et al., arXiv 1411.5752) are recalled, not confirmed: the
rule is theirs, sizes are ours.

Dropout, which FC-DenseNet's training has after every convolution, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from connsearch.graph import ConnectivityGraph, predecessors
from connsearch.graph.build import GraphBuilder, graph_of_rule
from connsearch.graph.decoder import dense_blocks_graph, way_down_and_up
from connsearch.graph.patterns import pattern_rule
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS, UNITS
from connsearch.spec.network import InputConfig, NetworkSpec

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

_CAMVID: dict[str, Any] = {"input": InputConfig(height=352, width=480), "n_classes": 11}
_DEPTHS_103 = (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4)
_NEWEST = LINES.ref("slice", start=-1, stop=0, in_widths=True)
_BARE_HEAD = HEADS.ref("pixels", norm="none", activation="none")


def fc_log_densenet(
    depths: Sequence[int] = _DEPTHS_103,
    growth: int = 24,
    *,
    pattern: object = "log_dense",
    lean: bool = False,
    hubs: Iterable[int] | None = None,
    **settings: Any,
) -> NetworkSpec:
    """Return an FC-Log-DenseNet, version 1: one rule over all layers of the way down and up.

    On the way down a layer is carried by its own norm - act - 1x1 - average. On the way up, what a scale had
    on the way down is read as it was; later layers are carried by their own norm - act - 3x3 deconvolution.

    Args:
        depths: Layers of each block: an odd number of blocks, the middle one at the lowest resolution.
        growth: Channels of each layer; the stem has three times as many.
        pattern: As in `log_densenet`.
        lean: Carry only what is read later, as the authors' code does, instead of every earlier layer at
            every change of scale, as the published number of parameters needs.
        hubs: Layers that all later ones read too; by default the last of block 1.
        **settings: Other fields of the network.

    Raises:
        SpecError: if the number of blocks is even, one has no layer or a value is wrong.
    """
    scales = way_down_and_up(depths)
    rule = pattern_rule(pattern, depths, hubs=(depths[0],) if hubs is None else hubs)
    graph = graph_of_rule(rule, depths, scales=scales, up="up", newest="" if lean else "newest")
    up = LINES.ref("deconv", keep=True, norm="batch", activation="relu")
    parts = [{"name": "up", "line": up}, *([] if lean else [{"name": "newest", "line": _NEWEST}])]
    values: dict[str, Any] = {"stem_ratio": 3, "compression": 1.0, "head": "pixels", "parts": parts}
    values |= {"aggregation": "concat", "unit": "conv", "width": growth}
    return NetworkSpec.from_graph(graph, **{**_CAMVID, **values, **settings})


def fc_densenet(
    depths: Sequence[int] = _DEPTHS_103,
    growth: int = 16,
    *,
    topology: object = "dense",
    stem: int = 48,
    short_head: bool = False,
    **settings: Any,
) -> NetworkSpec:
    """Return an FC-DenseNet: dense blocks; going up, a block reads the deconvolved layers of the one before.

    A block's output is what one more layer would read. Down: norm - act - 1x1 - maximum. Up: a 3x3
    deconvolution of the output without the block's input, beside the output of the block of that scale on
    the way down. All convolutions have biases, the head is a bare 1x1 convolution.

    Args:
        depths: Layers of each block: an odd number of blocks, the middle one at the lowest resolution.
        growth: Channels of each layer.
        topology: The rule inside a block.
        stem: Channels of the stem.
        short_head: Whether the head reads the last block without its input, as deconvolutions read theirs.
        **settings: Other fields of the network.

    Raises:
        SpecError: if the number of blocks is even, one has no layer or a value is wrong.
    """
    scales = way_down_and_up(depths)
    rules = [predecessors(topology, depth) for depth in depths]
    graph = dense_blocks_graph(rules, scales, short_head=short_head)
    values = dense_blocks_settings(stem) | {"width": growth}
    return NetworkSpec.from_graph(graph, **{**values, **settings})


def dense_blocks_settings(stem: int) -> dict[str, Any]:
    """Return the fields of an FC-DenseNet that depend on its stem's channels alone."""
    return {
        **_CAMVID,
        "stem": STEMS.ref("conv", channels=stem, bias=True),
        "transition": TRANSITIONS.ref("pool", kind="max", bias=True),
        "compression": 1.0,
        "head": _BARE_HEAD,
        "parts": [{"name": "up", "line": LINES.ref("deconv", keep=True, bias=True)}],
        "aggregation": "concat",
        "unit": UNITS.ref("conv", bias=True),
    }


def unet(widths: Sequence[int] = (16, 32, 64, 128, 256), **settings: Any) -> NetworkSpec:
    """Return a U-Net: decoder scale s reads concat(up(x_{s+1}), e_s), e_s the encoder's last layer there.

    Two 3x3 convolutions at each scale, each with norm and activation, 2x2 maximum down, 3x3 deconvolution
    to the next width up. The original has no norms, no padding, and a 2x2 deconvolution.

    Args:
        widths: Of each scale, the finest first.
        **settings: Other fields of the network.
    """
    parts = [
        {"name": "down", "line": "pool"},
        {"name": "up", "line": LINES.ref("deconv", bias=True)},
    ]
    values: dict[str, Any] = {
        "stem": STEMS.ref("conv", norm="batch", activation="relu"),
        "head": _BARE_HEAD,
        "parts": parts,
    }
    values |= {"aggregation": "concat", "unit": UNITS.ref("conv", order="post")}
    spec = NetworkSpec.from_graph(_unet_graph(len(widths)), **{**_CAMVID, **values, **settings})
    return spec.with_widths([*widths, *reversed(widths[:-1])])


def hypercolumn(widths: Sequence[int] = (16, 32, 64, 128), **settings: Any) -> NetworkSpec:
    """Return a network whose head reads the concat of every scale's last layer, upsampled bilinearly.

    Two 3x3 convolutions at each scale, each with norm and activation, 2x2 maximum down. The head's 1x1
    convolution of the concat equals the sum of a prediction from each scale.

    Args:
        widths: Of each scale, the finest first.
        **settings: Other fields of the network.
    """
    ups = [
        {"name": f"up{scale}", "line": LINES.ref("upsample", scale=1 << scale)}
        for scale in range(1, len(widths))
    ]
    values: dict[str, Any] = {
        "stem": STEMS.ref("conv", norm="batch", activation="relu"),
        "head": _BARE_HEAD,
        "parts": [{"name": "down", "line": "pool"}, *ups],
    }
    values |= {"aggregation": "concat", "unit": UNITS.ref("conv", order="post")}
    spec = NetworkSpec.from_graph(_hypercolumn_graph(len(widths)), **{**_CAMVID, **values, **settings})
    return spec.with_widths(widths)


# ---- graphs --------------------------------------------------------------------------------------------


def _encoder(graph: GraphBuilder, n_scales: int) -> list[str]:
    """Add two convolutions at each scale, the stem the first of them, and return the last of each scale."""
    last = [graph.add("block1.layer2", reads=[graph.add("stem", "stem")])]
    for scale in range(1, n_scales):
        state, block = last[-1], scale + 1
        state = graph.add(
            f"block{block}.down", "transition", reads=[state], block=block, scale=scale, part="down"
        )
        for i in (1, 2):
            state = graph.add(f"block{block}.layer{i}", reads=[state], block=block, scale=scale)
        last.append(state)
    return last


def _unet_graph(n_scales: int) -> ConnectivityGraph:
    graph = GraphBuilder()
    skips = _encoder(graph, n_scales)
    state = skips.pop()
    for block in range(n_scales + 1, 2 * n_scales):
        place: dict[str, Any] = {"block": block, "scale": 2 * n_scales - 1 - block}
        up = graph.add(f"block{block}.up", "transition", reads=[state], part="up", **place)
        first = graph.add(f"block{block}.layer1", reads=[skips.pop(), up], **place)
        state = graph.add(f"block{block}.layer2", reads=[first], **place)
    graph.add("head", "head", reads=[state], block=2 * n_scales - 1)
    return graph.graph()


def _hypercolumn_graph(n_scales: int) -> ConnectivityGraph:
    graph = GraphBuilder()
    last = _encoder(graph, n_scales)
    columns = [
        graph.add(f"block{scale + 1}.up", "carry", reads=[state], block=scale + 1, part=f"up{scale}")
        for scale, state in enumerate(last)
        if scale
    ]
    graph.add("head", "head", reads=[last[0], *columns], block=n_scales)
    return graph.graph()


PRESETS |= {
    "fc-log-densenet-103": fc_log_densenet,
    "fc-log-densenet-103-lean": partial(fc_log_densenet, lean=True),
    "fc-densenet-56": partial(fc_densenet, (4,) * 11, 12),
    "fc-densenet-67": partial(fc_densenet, (5,) * 11, 16),
    "fc-densenet-103": fc_densenet,
    "fc-densenet-56-short-head": partial(fc_densenet, (4,) * 11, 12, short_head=True),
    "fc-densenet-67-short-head": partial(fc_densenet, (5,) * 11, 16, short_head=True),
    "fc-densenet-103-short-head": partial(fc_densenet, short_head=True),
    "fc-densenet-ref100": partial(fc_densenet, (8,) * 11, 10, short_head=True),
    "fc-sparsenet-ref100": partial(fc_densenet, (8,) * 11, 26, topology="sparse"),
    "unet": unet,
    "hypercolumn": hypercolumn,
}
