# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Mean and variance of channels in Triton: moments of chunks of pixels, combined.

Shapes: maps B C H W, C a value for each channel; S chunks of the pixels of a group of images, G groups.
Chunks are combined in a fixed order, of large maps in two levels.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from connsearch.kernels.tiles import kernel, offsets, tile_moments, tile_of, within
from connsearch.kernels.tritonic import Tiles, launch, lies_last, pitch_of, sum_type, tiles

PROGRAMS = 1024  # that keep a large GPU busy; chunks become longer, not more
TOGETHER = 128  # chunks that one program combines at once


@kernel
def stats_kernel(
    x,  # B C H W
    partial,  # 2 S C: means, and sums of squared distances from them
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
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
    chunk, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    known_mean = tl.zeros([BLOCK_C, 1], ACC)
    known_squares = tl.zeros([BLOCK_C, 1], ACC)
    known = chunk * 0
    for step in range(steps):
        first = (chunk * steps + step) * BLOCK_N
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
    at = chunk.to(tl.int64) * n_channels + c
    end = n_chunks.to(tl.int64) * n_channels
    tl.store(partial + at, known_mean, mask=c < n_channels)
    tl.store(partial + end + at, known_squares, mask=c < n_channels)


@kernel
def gather_kernel(
    partial,  # 2 (G S) C: means, and sums of squared distances from them
    fewer,  # the same of BLOCK_S chunks together
    n_values,  # of a group
    n_channels,
    n_chunks,  # of a group
    chunk,  # pixels of a chunk; the last one of a group has fewer
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Combine the moments of some chunks of a group into those of one."""
    ACC: tl.constexpr = partial.dtype.element_ty
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    s = (tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S))[:, None]
    mask = (s < n_chunks) & (c < n_channels)
    at = (tl.program_id(2).to(tl.int64) * n_chunks + s) * n_channels + c
    end = tl.num_programs(2).to(tl.int64) * n_chunks * n_channels
    count = tl.minimum(tl.maximum(n_values - s * chunk, 0), chunk).to(ACC)
    mean = tl.load(partial + at, mask=mask, other=0.0)
    whole = tl.sum(count * mean, axis=0, keep_dims=True) / tl.sum(count, axis=0, keep_dims=True)
    inner = tl.load(partial + end + at, mask=mask, other=0.0)
    delta = tl.where(mask, mean - whole, 0.0)
    squares = tl.sum(inner + count * delta * delta, axis=0, keep_dims=True)
    at = (tl.program_id(2).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * n_channels + c
    end = tl.num_programs(2).to(tl.int64) * tl.num_programs(0) * n_channels
    tl.store(fewer + at, whole, mask=c < n_channels)
    tl.store(fewer + end + at, squares, mask=c < n_channels)


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


def chunks_of(cut: Tiles) -> tuple[int, int]:
    """Return tiles of a chunk, and how many chunks."""
    steps = max(1, min(16, cut.n_tiles * cut.c_tiles // PROGRAMS))
    return steps, -(-cut.n_tiles // steps)


def stats(x: Tensor, weight: Tensor | None = None, eps: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean C, variance C and, if there is a weight, weight / sqrt(variance + eps) of a native map."""
    last = lies_last(x)
    cut = tiles([x], last=last)
    steps, n_chunks = chunks_of(cut)
    partial = torch.empty(2, n_chunks, x.shape[1], dtype=sum_type(x), device=x.device)
    known = {"n_channels": x.shape[1], "pitch_x": pitch_of(x, last=last), "c_tiles": cut.c_tiles}
    chunks = {"steps": steps, "n_chunks": n_chunks, **cut.sizes()}
    launch(stats_kernel, cut.chunks(n_chunks), x, partial, **known, **chunks)
    return combine(partial, cut, steps, weight, eps)


def combine(
    partial: Tensor, cut: Tiles, steps: int = 1, weight: Tensor | None = None, eps: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean C, variance C and, if there is a weight, weight / sqrt(variance + eps) of moments 2 S C."""
    C, chunk = partial.shape[2], steps * cut.block_n
    if partial.shape[1] > TOGETHER * cut.groups:
        partial, chunk = gathered(partial, cut, chunk), TOGETHER * chunk
    mean, var = partial.new_empty(C), partial.new_empty(C)
    scale = mean if weight is None else partial.new_empty(C)
    given = (partial, weight, mean, var, None if weight is None else scale)
    known = {"n_values": cut.n_values, "n_channels": C, "n_chunks": partial.shape[1], "n_groups": cut.groups}
    launch(
        combine_kernel, (-(-C // 16),), *given, **known, chunk=chunk, EPS=eps, BLOCK_S=TOGETHER, BLOCK_C=16
    )
    return mean, var, scale


def gathered(partial: Tensor, cut: Tiles, chunk: int) -> Tensor:
    """Return the moments of some chunks together each, by many programs: 2 (G S) C with a smaller S."""
    n_chunks, C = partial.shape[1] // cut.groups, partial.shape[2]
    fewer = partial.new_empty(2, cut.groups * -(-n_chunks // TOGETHER), C)
    grid = (-(-n_chunks // TOGETHER), -(-C // 16), cut.groups)
    known = {"n_values": cut.n_values, "n_channels": C, "n_chunks": n_chunks, "chunk": chunk}
    launch(gather_kernel, grid, partial, fewer, **known, BLOCK_S=TOGETHER, BLOCK_C=16)
    return fewer
