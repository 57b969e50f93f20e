# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Products of matrices in Triton, with a prologue: what is multiplied is normalised as it is read.

Shapes: N sources B C_i H W, together K channels; O outputs; S chunks of pixels. Tiles are N C here, pixels
times channels, as a product takes its left side from registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from connsearch.kernels.tiles import aligned, along, kernel, locate, offsets, pick, product, within


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
        a = tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL)
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
        z = h * w + along(bias + first, c, left, LAST, ALIGN)
        total = tl.where(z <= 0, 0.0, total)  # of a z that is NaN it stays, as torch has it
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
