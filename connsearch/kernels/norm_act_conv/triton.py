"""1x1 convolution of the normalised and activated concatenation, in Triton: K channels are never written.

Shapes: N sources B C_i H W, together K channels; O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.concat_norm_act.triton import (
    check_sinks,
    copy_back,
    groups,
    norm_params,
    pitches,
)
from connsearch.kernels.norm_act_conv.products import (
    grad_sources_kernel,
    grad_weight_kernel,
    norm_act_conv_kernel,
)
from connsearch.kernels.tritonic import (
    Tiles,
    channel_block,
    check_act,
    check_maps,
    check_sources,
    is_aligned,
    launch,
    lies_last,
    native,
    natives,
    new_map,
    padded,
    power_of_two,
    sum_type,
    tiles,
    vector,
)

SOURCES = 32  # of a launch: a program finds its way among them once for each tile of products
PROGRAMS = 528  # that keep a large GPU busy with the gradient of the weight: four for each of 132 processors


def norm_act_conv(
    sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str, weight_OK: Tensor
) -> Tensor:
    """Return y[o] = sum_k w[o, k] act(scale h + shift)[k]: B O H W."""
    relu = check_act(act)
    widths, last = check_sources(sources)
    maps = natives(sources, last=last)
    first, K = maps[0], sum(widths)
    scale, shift = vector(scale_K, first, K, what="scale"), vector(shift_K, first, K, what="shift")
    filters = _filters(weight_OK, first, K)
    (B, _, H, W), outputs = first.shape, len(filters)
    y, base = new_map((B, outputs, H, W), first, last=last), None
    precision = _precision(first)
    whole = _cut([*maps, y], widths, precision)
    options = _options(first, outputs, precision, relu=relu)
    grid = (whole.n_tiles, -(-outputs // options["BLOCK_O"]))
    for group in groups(widths, SOURCES):
        ends = group.before + sum(group.widths) == K
        out = y if ends else new_map(y.shape, first, last=last, dtype=sum_type(first))
        some, cut = maps[group.own], whole.over(group.widths)
        given = (padded(some), group.places, pitches(some, last=last), scale, shift, filters, base, out)
        known = {**group.sizes(cut, y), "n_channels": K, "n_outputs": outputs, "c_tiles": cut.c_tiles}
        launch(norm_act_conv_kernel, grid, *given, **known, **options)
        base = out
    return y


def norm_act_conv_backward(
    grad_y: Tensor,
    sources: Sequence[Tensor],
    mean_K: Tensor,
    rstd_K: Tensor,
    norm_weight_K: Tensor,
    norm_bias_K: Tensor,
    act: str,
    weight_OK: Tensor,
    sinks: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Add to the gradients of the sources; return gradients of norm weight K, norm bias K and weight O K."""
    relu = check_act(act)
    widths, last = check_sources(sources)
    maps, K = natives(sources, last=last), sum(widths)
    filters = _filters(weight_OK, maps[0], K)
    check_maps([grad_y, *sources], widths=[len(filters), *widths])
    check_sinks(sinks, sources)
    into, grad = natives(sinks, last=last), native(grad_y, last=last)
    params = norm_params(maps[0], K, mean_K, rstd_K, norm_weight_K, norm_bias_K)
    precision = _precision(grad)
    whole = _cut([*maps, *into, grad], widths, precision)
    options = _options(grad, len(filters), precision, relu=relu)
    o_tiles = -(-len(filters) // options["BLOCK_O"])
    steps = max(1, whole.n_tiles * whole.c_tiles * o_tiles // PROGRAMS)
    chunks = -(-whole.n_tiles // steps)
    sums = torch.empty(2, whole.n_tiles, K, dtype=sum_type(grad), device=grad.device)
    partial = torch.empty(chunks, *filters.shape, dtype=sum_type(grad), device=grad.device)
    scale = params[2] * params[1]
    affine = (scale, params[3] - params[0] * scale)
    for group in groups(widths, SOURCES):
        some, adds, cut = maps[group.own], into[group.own], whole.over(group.widths)
        known = {**group.sizes(cut, grad), "n_channels": K, "n_outputs": len(filters), **options}
        numbers = (group.places, pitches(some, last=last))
        grid = (chunks, cut.c_tiles, o_tiles)
        launch(grad_weight_kernel, grid, padded(some), *numbers, *affine, grad, partial, steps=steps, **known)
        given = (*numbers, pitches(adds, last=last), grad, filters, *params, sums)
        launch(grad_sources_kernel, cut.grid, padded(some), padded(adds), *given, **known)
    copy_back(sinks, into)
    dots, plain = sums.sum(dim=1).unbind()
    return dots, plain, partial.sum(dim=0)


def _filters(weight_OK: Tensor, like: Tensor, K: int) -> Tensor:
    """Return the weight O K, dense, aligned, in the maps' dtype."""
    if weight_OK.dim() != 2 or weight_OK.shape[1] != K or weight_OK.device != like.device:
        raise KernelError(
            f"weight is {tuple(weight_OK.shape)} on {weight_OK.device}, sources need O {K} on {like.device}"
        )
    dense = weight_OK.to(like.dtype).contiguous()
    return dense if is_aligned(dense) else dense.clone()


def _precision(like: Tensor) -> str:
    """Return how kernels multiply: as torch's convolutions do, of float32 by TF32 where that is allowed."""
    if like.dtype != torch.float32:
        return "ieee"
    settings: Any = torch.backends.cudnn
    if hasattr(settings, "conv"):  # since torch 2.9; the older flag may no longer be read once this is set
        return "tf32" if settings.conv.fp32_precision == "tf32" else "ieee"
    return "tf32" if settings.allow_tf32 else "ieee"


def _cut(maps: Sequence[Tensor], widths: Sequence[int], precision: str) -> Tiles:
    """Return tiles of a size that products of matrices like: at least 16 each way."""
    first = maps[0]
    whole, narrow = tiles(maps, last=lies_last(first), widths=widths), first.element_size() == 2
    most = 128 if narrow else 32 if _in_registers(first, precision) else 64
    block_c = max(16, channel_block(widths, 64 if narrow else 32))
    block_n = max(16, min(most, power_of_two(whole.n_values)))
    return whole._replace(block_c=block_c, block_n=block_n)


def _in_registers(like: Tensor, precision: str) -> bool:
    """Return whether no tensor core multiplies the maps: larger tiles would not fit a program's registers."""
    return like.dtype == torch.float32 and precision == "ieee"


def _options(like: Tensor, outputs: int, precision: str, *, relu: bool) -> dict[str, Any]:
    """Return what else kernels are compiled for."""
    most = 32 if _in_registers(like, precision) else 64
    return {
        "RELU": relu,
        "PRECISION": precision,
        "BLOCK_O": max(16, min(most, power_of_two(outputs))),
        "num_warps": 8 if like.element_size() == 2 else 4,
        "num_stages": 3 if like.element_size() < 8 else 1,
    }
