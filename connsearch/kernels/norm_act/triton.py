# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Batch normalisation and activation in Triton.

Shapes: maps B C H W, C a value for each channel, S a value for each chunk of the pixels of a channel.
Sums over chunks are added up by a second kernel, in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from connsearch.kernels.tiles import along, kernel, offsets, tile_moments, within
from connsearch.kernels.tritonic import (
    Tiles,
    check_act,
    check_maps,
    launch,
    lies_last,
    native,
    new_map,
    pitch_of,
    sum_type,
    tiles,
    vector,
)

PROGRAMS = 1024  # that keep a large GPU busy; chunks become longer, not more


@kernel
def stats_kernel(
    x,  # B C H W
    partial,  # 2 S C: means, and sums of squared distances from them
    n_pixels,
    n_values,
    n_channels,
    pitch_x,
    steps,  # tiles of a chunk
    n_chunks,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Leave the moments of a chunk of pixels, combined as by Chan, Golub and LeVeque (1979)."""
    ACC: tl.constexpr = partial.dtype.element_ty
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    known_mean = tl.zeros([BLOCK_C, 1], ACC)
    known_squares = tl.zeros([BLOCK_C, 1], ACC)
    known = tl.program_id(0) * 0
    for step in range(steps):
        first = (tl.program_id(0) * steps + step) * BLOCK_N
        n = (first + tl.arange(0, BLOCK_N))[None, :]
        mask = within(c, n, n_channels, n_values, LAST, ALIGN)
        at = offsets(c, n, n_pixels, pitch_x, LAST, ALIGN)
        h = tl.load(x + at, mask=mask, other=0.0).to(ACC)
        count = tl.minimum(tl.maximum(n_values - first, 0), BLOCK_N)
        tile_mean, tile_squares = tile_moments(h, mask, count)
        delta = tile_mean - known_mean
        share = count.to(ACC) / tl.maximum(known + count, 1)
        known_squares += tile_squares + delta * delta * share * known
        known_mean += delta * share
        known += count
    at = tl.program_id(0).to(tl.int64) * n_channels + c
    end = n_chunks.to(tl.int64) * n_channels
    tl.store(partial + at, known_mean, mask=c < n_channels)
    tl.store(partial + end + at, known_squares, mask=c < n_channels)


@kernel
def combine_kernel(
    partial,  # 2 S C: means, and sums of squared distances from them
    weight,  # C, or None
    mean,  # C
    var,  # C
    scale,  # C, or None: weight / sqrt(var + eps)
    n_values,  # of a group
    n_channels,
    n_chunks,
    n_groups,
    chunk,  # pixels of a chunk; the last one of a group has fewer
    EPS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Combine the moments of chunks: the mean of all first, then distances from it."""
    ACC: tl.constexpr = mean.dtype.element_ty
    c = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    length = n_chunks // n_groups
    total = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    for first in range(0, n_chunks, BLOCK_S):
        s = (first + tl.arange(0, BLOCK_S))[:, None]
        mask = (s < n_chunks) & (c < n_channels)
        count = tl.minimum(n_values - s % length * chunk, chunk).to(ACC)
        total += count * tl.load(partial + s * n_channels + c, mask=mask, other=0.0)
    whole = tl.sum(total, axis=0, keep_dims=True) / (n_values * n_groups)
    total = tl.zeros([BLOCK_S, BLOCK_C], ACC)
    for first in range(0, n_chunks, BLOCK_S):
        s = (first + tl.arange(0, BLOCK_S))[:, None]
        mask = (s < n_chunks) & (c < n_channels)
        count = tl.minimum(n_values - s % length * chunk, chunk).to(ACC)
        delta = tl.load(partial + s * n_channels + c, mask=mask, other=0.0) - whole
        inner = tl.load(partial + (n_chunks + s) * n_channels + c, mask=mask, other=0.0)
        total += inner + tl.where(mask, count * delta * delta, 0.0)
    variance = tl.sum(total, axis=0, keep_dims=True) / (n_values * n_groups)
    tl.store(mean + c, whole, mask=c < n_channels)
    tl.store(var + c, variance, mask=c < n_channels)
    if scale is not None:
        w = tl.load(weight + c, mask=c < n_channels, other=0.0)
        tl.store(scale + c, w / tl.sqrt(variance + EPS), mask=c < n_channels)


@kernel
def norm_act_kernel(
    x,  # B C H W
    y,  # B C H W
    center,  # C, or None
    scale,  # C
    shift,  # C
    n_pixels,
    n_values,
    n_channels,
    pitch_x,
    pitch_y,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """y = act((x - center) scale + shift)."""
    ACC: tl.constexpr = scale.dtype.element_ty
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    h = tl.load(x + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    if center is not None:
        h -= along(center, c, n_channels, LAST, ALIGN)
    a = along(scale, c, n_channels, LAST, ALIGN)
    b = along(shift, c, n_channels, LAST, ALIGN)
    h = h * a + b
    if RELU:
        h = tl.maximum(h, 0.0)
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
    pitch_x,
    pitch_y,
    steps,
    n_chunks,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Sum m n and m over a chunk of pixels: n = (x - mean) rstd, m = grad where act lets through."""
    ACC: tl.constexpr = sums.dtype.element_ty
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    m = along(mean, c, n_channels, LAST, ALIGN)
    r = along(rstd, c, n_channels, LAST, ALIGN)
    w = along(weight, c, n_channels, LAST, ALIGN)
    b = along(bias, c, n_channels, LAST, ALIGN)
    dots = tl.zeros([BLOCK_C, BLOCK_N], ACC)
    plain = tl.zeros([BLOCK_C, BLOCK_N], ACC)
    for step in range(steps):
        n = ((tl.program_id(0) * steps + step) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
        mask = within(c, n, n_channels, n_values, LAST, ALIGN)
        h = tl.load(x + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
        g = tl.load(grad + offsets(c, n, n_pixels, pitch_y, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
        h = (h - m) * r
        if RELU:
            g = tl.where(h * w + b > 0, g, 0.0)
        dots += g * h
        plain += g
    at = tl.program_id(0).to(tl.int64) * n_channels + c
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
    pitch_x,
    pitch_y,
    RELU: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out = rstd weight (m - mean of m - n mean of m n)."""
    ACC: tl.constexpr = sums.dtype.element_ty
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    h = tl.load(x + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    g = tl.load(grad + offsets(c, n, n_pixels, pitch_y, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    r = along(rstd, c, n_channels, LAST, ALIGN)
    w = along(weight, c, n_channels, LAST, ALIGN)
    h = (h - along(mean, c, n_channels, LAST, ALIGN)) * r
    if RELU:
        g = tl.where(h * w + along(bias, c, n_channels, LAST, ALIGN) > 0, g, 0.0)
    slope = along(dots, c, n_channels, LAST, ALIGN) / n_values
    constant = along(sums, c, n_channels, LAST, ALIGN) / n_values
    total = r * w * (g - constant - slope * h)
    at = offsets(c, n, n_pixels, tl.where(LAST, n_channels, n_channels * n_pixels), LAST, ALIGN)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


def batch_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean C and variance C: one pass, chunks combined as by Chan, Golub and LeVeque (1979)."""
    check_maps([x])
    return _stats(native(x, last=lies_last(x)))[:2]


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
    mean, var, scale = _stats(x, weight, eps)
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
    relu, last = check_act(act), lies_last(grad_y)
    grad, x = native(grad_y, last=last), native(x, last=last)
    names = ("mean", "rstd", "weight", "bias")
    params = [
        vector(t, x, x.shape[1], what=name)
        for t, name in zip((mean_C, rstd_C, weight_C, bias_C), names, strict=True)
    ]
    cut = tiles([grad, x], last=last)
    steps, n_chunks = _chunks(cut)
    known = {
        "n_channels": x.shape[1],
        "pitch_x": pitch_of(x, last=last),
        "pitch_y": pitch_of(grad, last=last),
        "RELU": relu,
        **cut.sizes(),
    }
    partial = torch.empty(2, n_chunks, x.shape[1], dtype=sum_type(x), device=x.device)
    grid = (n_chunks, cut.c_tiles)
    launch(norm_act_sums_kernel, grid, grad, x, *params, partial, steps=steps, n_chunks=n_chunks, **known)
    dots, sums = (vector(t, x, x.shape[1], what="sums") for t in partial.sum(dim=1))
    out = new_map(x.shape, x, last=last)
    launch(norm_act_backward_kernel, cut.grid, grad, x, out, *params, dots, sums, **known)
    return out, dots, sums


def _chunks(cut: Tiles) -> tuple[int, int]:
    """Return tiles of a chunk, and how many chunks."""
    steps = max(1, min(16, cut.n_tiles * cut.c_tiles // PROGRAMS))
    return steps, -(-cut.n_tiles // steps)


def _stats(x: Tensor, weight: Tensor | None = None, eps: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean C, variance C and, if there is a weight, weight / sqrt(variance + eps) of a native map."""
    last = lies_last(x)
    cut = tiles([x], last=last)
    steps, n_chunks = _chunks(cut)
    partial = torch.empty(2, n_chunks, x.shape[1], dtype=sum_type(x), device=x.device)
    known = {"n_channels": x.shape[1], "pitch_x": pitch_of(x, last=last), "steps": steps, **cut.sizes()}
    launch(stats_kernel, (n_chunks, cut.c_tiles), x, partial, n_chunks=n_chunks, **known)
    return combine(partial, cut, steps, weight, eps)


def combine(
    partial: Tensor, cut: Tiles, steps: int = 1, weight: Tensor | None = None, eps: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean C, variance C and, if there is a weight, weight / sqrt(variance + eps) of moments 2 S C."""
    n_chunks, C = partial.shape[1:]
    mean, var = partial.new_empty(C), partial.new_empty(C)
    scale = mean if weight is None else partial.new_empty(C)
    grid = (-(-C // 16),)
    known: dict[str, Any] = {
        "n_values": cut.n_values,
        "n_channels": C,
        "n_chunks": n_chunks,
        "n_groups": cut.groups,
    }
    known |= {"chunk": steps * cut.block_n, "EPS": eps, "BLOCK_S": 128, "BLOCK_C": 16}
    launch(combine_kernel, grid, partial, weight, mean, var, None if weight is None else scale, **known)
    return mean, var, scale


def apply(x: Tensor, center: Tensor | None, scale: Tensor, shift: Tensor, act: str) -> Tensor:
    """Return act((x - center) scale + shift) of a map that lies natively."""
    last = lies_last(x)
    cut, y = tiles([x], last=last), new_map(x.shape, x, last=last)
    known = {"n_channels": x.shape[1], "RELU": check_act(act), **cut.sizes()}
    pitches = (pitch_of(x, last=last), pitch_of(y, last=last))
    launch(
        norm_act_kernel, cut.grid, x, y, center, scale, shift, pitch_x=pitches[0], pitch_y=pitches[1], **known
    )
    return y
