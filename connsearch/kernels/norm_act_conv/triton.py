# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""1x1 convolution of the normalised and activated concatenation, in Triton: products with a prologue.

Shapes: N sources B C_i H W, together K channels; O outputs; S chunks of pixels. Tiles are N C here, pixels
times channels, as a product takes its left side from registers. Nothing of K channels is ever written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.concat_norm_act.triton import (
    check_sinks,
    copy_back,
    groups,
    norm_params,
    pitches,
)
from connsearch.kernels.tiles import aligned, along, kernel, locate, offsets, pick, product, within
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


@triton.jit
def activated(
    sources,
    widths,
    pitches,
    scale,  # K
    shift,  # K
    tile,  # of channels
    n,  # N 1
    n_pixels,
    n_values,
    n_sources,
    before,
    LENGTH: tl.constexpr,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return a tile N C of act(scale h + shift), its first channel, and how many its source still has."""
    source, local, first, width = locate(widths, tile, n_sources, LENGTH, BLOCK_C)
    first += before
    if LAST:
        first = aligned(first, ALIGN)
        width = aligned(width, ALIGN)
    left = width - local
    c = tl.arange(0, BLOCK_C)[None, :]
    at = offsets(local + c, n, n_pixels, pick(pitches, source, LENGTH) // 2, LAST, ALIGN)
    mask = within(c, n, left, n_values, LAST, ALIGN)
    h = tl.load(pick(sources, source, LENGTH) + at, mask=mask, other=0.0)
    a = h.to(scale.dtype.element_ty) * along(scale + first, c, left, LAST, ALIGN)
    a += along(shift + first, c, left, LAST, ALIGN)
    if RELU:
        a = tl.maximum(a, 0.0)
    return tl.where(mask, a, 0.0).to(h.dtype), first, left


@kernel
def norm_act_conv_kernel(
    sources,  # tuple of pointers to B C_i H W
    widths,  # 2 C_i + 1 (odd numbers: see `tritonic.odd`)
    pitches,  # 2 pitch_i + 1
    scale,  # K
    shift,  # K
    weight,  # O K
    base,  # B O H W, or None: sum over the sources of earlier launches
    y,  # B O H W
    n_pixels,
    n_values,
    n_channels,  # K
    n_outputs,
    n_sources,
    before,  # channels of the sources of earlier launches
    c_tiles,
    pitch_y,
    LENGTH: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """y = base + W a for a tile of pixels and outputs, going through the channels of all sources."""
    ACC: tl.constexpr = scale.dtype.element_ty
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    o = (tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O))[None, :]
    c = tl.arange(0, BLOCK_C)[:, None]
    row = o * (aligned(n_channels, ALIGN) if LAST else n_channels)
    total = tl.zeros([BLOCK_N, BLOCK_O], ACC)
    for tile in range(c_tiles):
        a, first, left = activated(
            sources,
            widths,
            pitches,
            scale,
            shift,
            tile,
            n,
            n_pixels,
            n_values,
            n_sources,
            before,
            LENGTH,
            RELU,
            LAST,
            ALIGN,
            BLOCK_C,
        )
        w = tl.load(weight + row + first + c, mask=(c < left) & (o < n_outputs), other=0.0)
        total = product(a, w, total, PRECISION)
    at = offsets(o, n, n_pixels, pitch_y, LAST, ALIGN)
    mask = within(o, n, n_outputs, n_values, LAST, ALIGN)
    if base is not None:
        total += tl.load(base + at, mask=mask, other=0.0)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=mask)


@kernel
def grad_sources_kernel(
    sources,  # tuple of pointers to B C_i H W
    sinks,  # tuple of pointers to B C_i H W
    widths,  # 2 C_i + 1
    pitches,  # 2 pitch_i + 1
    sink_pitches,  # the same of sinks
    grad,  # B O H W
    filters,  # O K
    mean,  # K
    rstd,  # K
    weight,  # K
    bias,  # K
    sums,  # 2 S K: of m n, of m, with m what the activation lets through
    n_pixels,
    n_values,
    n_channels,  # K
    n_outputs,
    n_sources,
    before,
    pitch_y,
    LENGTH: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """sink += weight rstd m for a tile of one of the sources, m = W^T grad where act lets through."""
    ACC: tl.constexpr = rstd.dtype.element_ty
    source, local, first, width = locate(widths, tl.program_id(1), n_sources, LENGTH, BLOCK_C)
    first += before
    if LAST:
        first = aligned(first, ALIGN)
        width = aligned(width, ALIGN)
    c = tl.arange(0, BLOCK_C)[None, :]
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    left = width - local
    total = tl.zeros([BLOCK_N, BLOCK_C], ACC)
    for begin in range(0, n_outputs, BLOCK_O):
        o = begin + tl.arange(0, BLOCK_O)
        at = offsets(o[None, :], n, n_pixels, pitch_y, LAST, ALIGN)
        inside = within(o[None, :], n, n_outputs, n_values, LAST, ALIGN)
        g = tl.load(grad + at, mask=inside, other=0.0)
        row = o[:, None] * (aligned(n_channels, ALIGN) if LAST else n_channels) + first
        inside = (c < left) & (o[:, None] < n_outputs)
        w = tl.load(filters + row + c, mask=inside, other=0.0)
        total = product(g, w, total, PRECISION)
    mask = within(c, n, left, n_values, LAST, ALIGN)
    r = along(rstd + first, c, left, LAST, ALIGN)
    w = along(weight + first, c, left, LAST, ALIGN)
    at = offsets(local + c, n, n_pixels, pick(pitches, source, LENGTH) // 2, LAST, ALIGN)
    h = tl.load(pick(sources, source, LENGTH) + at, mask=mask, other=0.0).to(ACC)
    h = (h - along(mean + first, c, left, LAST, ALIGN)) * r
    if RELU:
        total = tl.where(h * w + along(bias + first, c, left, LAST, ALIGN) > 0, total, 0.0)
    sink = pick(sinks, source, LENGTH)
    at = offsets(local + c, n, n_pixels, pick(sink_pitches, source, LENGTH) // 2, LAST, ALIGN)
    share = tl.load(sink + at, mask=mask, other=0.0).to(ACC) + r * w * total
    tl.store(sink + at, share.to(sink.dtype.element_ty), mask=mask)
    row = tl.program_id(0).to(tl.int64) * n_channels + first + c
    end = tl.num_programs(0).to(tl.int64) * n_channels
    tl.store(sums + row, tl.sum(total * h, axis=0, keep_dims=True), mask=c < left)
    tl.store(sums + end + row, tl.sum(total, axis=0, keep_dims=True), mask=c < left)


@kernel
def grad_weight_kernel(
    sources,  # tuple of pointers to B C_i H W
    widths,  # 2 C_i + 1
    pitches,  # 2 pitch_i + 1
    scale,  # K
    shift,  # K
    grad,  # B O H W
    partial,  # S O K
    n_pixels,
    n_values,
    n_channels,  # K
    n_outputs,
    n_sources,
    before,
    pitch_y,
    steps,  # tiles of pixels in a chunk
    LENGTH: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """Sum grad a^T over a chunk of pixels, for a tile of outputs and channels."""
    ACC: tl.constexpr = scale.dtype.element_ty
    o = (tl.program_id(2) * BLOCK_O + tl.arange(0, BLOCK_O))[:, None]
    c = tl.arange(0, BLOCK_C)[None, :]
    total = tl.zeros([BLOCK_O, BLOCK_C], ACC)
    first = 0
    left = 0
    for step in range(steps):
        n = (tl.program_id(0) * steps + step) * BLOCK_N + tl.arange(0, BLOCK_N)
        a, first, left = activated(
            sources,
            widths,
            pitches,
            scale,
            shift,
            tl.program_id(1),
            n[:, None],
            n_pixels,
            n_values,
            n_sources,
            before,
            LENGTH,
            RELU,
            LAST,
            ALIGN,
            BLOCK_C,
        )
        at = offsets(o, n[None, :], n_pixels, pitch_y, LAST, ALIGN)
        mask = within(o, n[None, :], n_outputs, n_values, LAST, ALIGN)
        g = tl.load(grad + at, mask=mask, other=0.0)
        total = product(g, a, total, PRECISION)
    row = (tl.program_id(0).to(tl.int64) * n_outputs + o) * n_channels + first + c
    tl.store(partial + row, total, mask=(o < n_outputs) & (c < left))


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
    whole, options = _cut([*maps, y], widths), _options(first, outputs, relu=relu)
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
    whole, options = _cut([*maps, *into, grad], widths), _options(maps[0], len(filters), relu=relu)
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


def _cut(maps: Sequence[Tensor], widths: Sequence[int]) -> Tiles:
    """Return tiles of a size that products of matrices like: at least 16 each way."""
    whole, narrow = tiles(maps, last=lies_last(maps[0]), widths=widths), maps[0].element_size() == 2
    block_c = max(16, channel_block(widths, 64 if narrow else 32))
    block_n = max(16, min(128 if narrow else 64, power_of_two(whole.n_values)))
    return whole._replace(block_c=block_c, block_n=block_n)


def _options(like: Tensor, outputs: int, *, relu: bool) -> dict[str, Any]:
    """Return how kernels multiply: as torch's convolutions do, TF32 included where that is allowed."""
    fast = like.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return {
        "RELU": relu,
        "PRECISION": "tf32" if fast else "ieee",
        "BLOCK_O": max(16, min(64, power_of_two(outputs))),
        "num_warps": 8 if like.element_size() == 2 else 4,
        "num_stages": 3 if like.element_size() < 8 else 1,
    }
