# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Batch normalisation and activation in Triton.

Shapes: maps B C H W, C a value for each channel, S a value for each chunk of the pixels of a channel.
Sums over chunks are added up afterwards, in a fixed order.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from connsearch.kernels.norm_act.moments import chunks_of, stats
from connsearch.kernels.tiles import (
    along,
    kernel,
    let_through,
    offsets,
    rectified,
    tile_of,
    within,
)
from connsearch.kernels.tritonic import (
    check_act,
    check_maps,
    launch,
    lies_last,
    native,
    new_map,
    pitch_of,
    run,
    sum_type,
    tiles,
    vector,
)


@kernel
def norm_act_kernel(
    x,  # B C H W
    y,  # B C H W
    center,  # C
    scale,  # C
    shift,  # C
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch_x,
    pitch_y,
    centred,  # 1, or 0: there is no center
    relu,  # 1, or 0
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """y = act((x - center) scale + shift)."""
    ACC: tl.constexpr = scale.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    h = tl.load(x + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    h -= along(center, c, tl.where(centred != 0, n_channels, 0), LAST, ALIGN)
    a = along(scale, c, n_channels, LAST, ALIGN)
    b = along(shift, c, n_channels, LAST, ALIGN)
    h = h * a + b
    h = rectified(h, relu)
    at = offsets(c, n, n_pixels, pitch_y, LAST, ALIGN)
    tl.store(y + at, h.to(y.dtype.element_ty), mask=mask)


@kernel
def norm_act_sums_kernel(
    grad,  # B C H W
    x,  # B C H W
    mean,  # C
    rstd,  # C
    weight,  # C
    bias,  # C
    sums,  # 2 S C: of grad n, of grad
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch_x,
    pitch_y,
    steps,
    n_chunks,
    relu,  # 1, or 0
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Sum m n and m over a chunk of pixels: n = (x - mean) rstd, m = grad where act lets through."""
    ACC: tl.constexpr = sums.dtype.element_ty
    chunk, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    m = along(mean, c, n_channels, LAST, ALIGN)
    r = along(rstd, c, n_channels, LAST, ALIGN)
    w = along(weight, c, n_channels, LAST, ALIGN)
    b = along(bias, c, n_channels, LAST, ALIGN)
    dots = tl.zeros([BLOCK_C, BLOCK_N], ACC)
    plain = tl.zeros([BLOCK_C, BLOCK_N], ACC)
    for step in range(steps):
        n = ((chunk * steps + step) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
        mask = within(c, n, n_channels, n_values, LAST, ALIGN)
        h = tl.load(x + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
        g = tl.load(grad + offsets(c, n, n_pixels, pitch_y, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
        h = (h - m) * r
        g = let_through(g, h * w + b, relu)
        dots += g * h
        plain += g
    at = chunk.to(tl.int64) * n_channels + c
    end = n_chunks.to(tl.int64) * n_channels
    tl.store(sums + at, tl.sum(dots, axis=1, keep_dims=True), mask=c < n_channels)
    tl.store(sums + end + at, tl.sum(plain, axis=1, keep_dims=True), mask=c < n_channels)


@kernel
def norm_act_backward_kernel(
    grad,  # B C H W
    x,  # B C H W
    out,  # B C H W
    mean,  # C
    rstd,  # C
    weight,  # C
    bias,  # C
    dots,  # C: sums of grad n
    sums,  # C: sums of grad
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch_x,
    pitch_y,
    relu,  # 1, or 0
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out = rstd weight (m - mean of m - n mean of m n)."""
    ACC: tl.constexpr = sums.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    h = tl.load(x + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    g = tl.load(grad + offsets(c, n, n_pixels, pitch_y, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    r = along(rstd, c, n_channels, LAST, ALIGN)
    w = along(weight, c, n_channels, LAST, ALIGN)
    h = (h - along(mean, c, n_channels, LAST, ALIGN)) * r
    g = let_through(g, h * w + along(bias, c, n_channels, LAST, ALIGN), relu)
    slope = along(dots, c, n_channels, LAST, ALIGN) / n_values
    constant = along(sums, c, n_channels, LAST, ALIGN) / n_values
    total = r * w * (g - constant - slope * h)
    at = offsets(c, n, n_pixels, tl.where(LAST, n_channels, n_channels * n_pixels), LAST, ALIGN)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


def batch_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean C and variance C: one pass, chunks combined as by Chan, Golub and LeVeque (1979)."""
    check_maps([x])
    return stats(native(x, last=lies_last(x)))[:2]


def norm_act(x: Tensor, scale_C: Tensor, shift_C: Tensor, act: str) -> Tensor:
    """Return act(scale x + shift), B C H W."""
    check_maps([x])
    C = x.shape[1]
    scale, shift = vector(scale_C, x, C, what="scale"), vector(shift_C, x, C, what="shift")
    return apply(native(x, last=lies_last(x)), None, scale, shift, act)


def norm_act_train(
    x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, act: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y = act(BN(x)), mean C, variance C."""
    check_maps([x])
    C = x.shape[1]
    weight, bias = vector(weight_C, x, C, what="weight"), vector(bias_C, x, C, what="bias")
    x = native(x, last=lies_last(x))
    mean, var, scale = stats(x, weight, eps)
    return apply(x, mean, scale, bias, act), mean, var


def norm_act_backward(
    grad_y: Tensor,
    x: Tensor,
    mean_C: Tensor,
    rstd_C: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias."""
    check_maps([grad_y, x])
    relu, last = check_act(act), lies_last(x)
    grad, x = native(grad_y, last=last), native(x, last=last)
    names = ("mean", "rstd", "weight", "bias")
    params = [
        vector(t, x, x.shape[1], what=name)
        for t, name in zip((mean_C, rstd_C, weight_C, bias_C), names, strict=True)
    ]
    cut = tiles([grad, x], last=last)
    steps, n_chunks = chunks_of(cut)
    known = {
        "n_channels": x.shape[1],
        "pitch_x": pitch_of(x, last=last),
        "pitch_y": pitch_of(grad, last=last),
        "relu": int(relu),
    }
    partial = torch.empty(2, n_chunks, x.shape[1], dtype=sum_type(x), device=x.device)
    chunks = {"steps": steps, "n_chunks": n_chunks, "c_tiles": cut.c_tiles, **cut.sizes()}
    grid = cut.chunks(n_chunks)
    launch(norm_act_sums_kernel, grid, grad, x, *params, partial, **chunks, **known)
    dots, sums = (vector(t, x, x.shape[1], what="sums") for t in partial.sum(dim=1))
    out = new_map(x.shape, x, last=last)
    run(norm_act_backward_kernel, cut, grad, x, out, *params, dots, sums, **known)
    return out, dots, sums


def apply(x: Tensor, center: Tensor | None, scale: Tensor, shift: Tensor, act: str) -> Tensor:
    """Return act((x - center) scale + shift) of a map that lies natively."""
    last = lies_last(x)
    cut, y = tiles([x], last=last), new_map(x.shape, x, last=last)
    known = {
        "n_channels": x.shape[1],
        "pitch_x": pitch_of(x, last=last),
        "pitch_y": pitch_of(y, last=last),
        "centred": int(center is not None),
        "relu": int(check_act(act)),
    }
    run(norm_act_kernel, cut, x, y, scale if center is None else center, scale, shift, **known)
    return y
