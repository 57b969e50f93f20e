# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Sums of sources, each with a weight of its own, and what flows back to the sources, in Triton.

Shapes: L sources, R readers of one source, B C H W maps; G groups of images: B, if each image has weights of
its own, else 1; S tiles along the pixels of a group. Sources are a tuple of 8 pointers (the first one again
where there is none, which is not read), of more than 8 a table: two compilations serve any number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.norm_act.moments import combine
from connsearch.kernels.norm_act.triton import apply
from connsearch.kernels.tiles import (
    aligned,
    along,
    both,
    entry,
    kernel,
    offsets,
    tile_moments,
    tile_of,
    within,
)
from connsearch.kernels.tritonic import (
    POINTERS,
    Tiles,
    check_act,
    check_maps,
    lies_last,
    native,
    natives,
    new_map,
    pitch_of,
    pointers,
    run,
    tiles,
    vector,
)


@triton.jit
def weight_of(
    weight,  # L G C, or L G
    i,
    c,
    n_sources,
    n_channels,
    PER_CHANNEL: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Return the weights of source i: C 1, or one; 0 if there is no source i."""
    row = i * tl.num_programs(2) + tl.program_id(2)
    if PER_CHANNEL:
        if LAST:
            n_channels = aligned(n_channels, ALIGN)
        mask = both(c < n_channels, n_sources > i)
        return tl.load(weight + row * n_channels + c, mask=mask, other=0.0)
    else:
        return tl.load(weight + row, mask=n_sources > i, other=0.0)


@kernel
def weighted_sum_kernel(
    sources,  # tuple of pointers to B C H W
    table,  # pointers to all of them, or None: they are those in the tuple
    weight,  # L G C, or L G
    bias,  # C
    out,  # B C H W
    partial,  # 2 (G S) C, or None: moments of tiles of out
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch,
    n_sources,
    biased,  # 1, or 0: there is no bias
    PER_CHANNEL: tl.constexpr,
    LENGTH: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out = sum_i w_i h_i + b, the moments of a tile as it is stored beside it."""
    ACC: tl.constexpr = weight.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    first = tl.program_id(2) * (n_values if LAST else aligned(n_values, ALIGN))
    at = offsets(c, first + n, n_pixels, pitch, LAST, ALIGN)
    total = tl.zeros([BLOCK_C, BLOCK_N], ACC)
    for begin in range(0, 1 if table is None else n_sources, LENGTH):
        for k in tl.static_range(LENGTH):
            w = weight_of(weight, begin + k, c, n_sources, n_channels, PER_CHANNEL, LAST, ALIGN)
            h = entry(sources, table, k, begin + k, n_sources) + at
            total += w * tl.load(h, mask=both(mask, n_sources > begin + k), other=0.0).to(ACC)
    total += along(bias, c, tl.where(biased != 0, n_channels, 0), LAST, ALIGN)
    stored = total.to(out.dtype.element_ty)
    tl.store(out + at, stored, mask=mask)
    if partial is not None:
        count = tl.minimum(n_values - tile * BLOCK_N, BLOCK_N)
        mean, squares = tile_moments(stored.to(ACC), mask, count)
        chunk = tl.program_id(2).to(tl.int64) * tl.cdiv(n_values, BLOCK_N) + tile
        end = tl.num_programs(2).to(tl.int64) * tl.cdiv(n_values, BLOCK_N)
        tl.store(partial + chunk * n_channels + c, mean, mask=c < n_channels)
        tl.store(partial + (end + chunk) * n_channels + c, squares, mask=c < n_channels)


@kernel
def pull_kernel(
    grads,  # tuple of pointers to B C H W
    table,  # pointers to all of them, or None: they are those in the tuple
    weight,  # R G C, or R G
    source,  # B C H W
    mean,  # C, or None: of the source, which is normalised for dots
    rstd,  # C, or None
    extra,  # B C H W
    out,  # B C H W
    dots,  # R G S C: sums over a tile of grad source
    sums,  # R G S C, or None: of grad
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch,
    n_sources,
    added,  # 1, or 0: there is nothing extra
    PER_CHANNEL: tl.constexpr,
    LENGTH: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out = extra + sum_j w_j g_j, and sums of g_j h and g_j over a tile, each reader read once."""
    ACC: tl.constexpr = weight.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    first = tl.program_id(2) * (n_values if LAST else aligned(n_values, ALIGN))
    at = offsets(c, first + n, n_pixels, pitch, LAST, ALIGN)
    h = tl.load(source + at, mask=mask, other=0.0).to(ACC)
    if mean is not None:
        h = (h - along(mean, c, n_channels, LAST, ALIGN)) * along(rstd, c, n_channels, LAST, ALIGN)
    total = tl.load(extra + at, mask=both(mask, added != 0), other=0.0).to(ACC)
    chunk = tl.program_id(2).to(tl.int64) * tl.cdiv(n_values, BLOCK_N) + tile
    step = tl.num_programs(2).to(tl.int64) * tl.cdiv(n_values, BLOCK_N)
    for begin in range(0, 1 if table is None else n_sources, LENGTH):
        for k in tl.static_range(LENGTH):
            i = begin + k
            w = weight_of(weight, i, c, n_sources, n_channels, PER_CHANNEL, LAST, ALIGN)
            g = entry(grads, table, k, i, n_sources) + at
            g = tl.load(g, mask=both(mask, n_sources > i), other=0.0).to(ACC)
            total += w * g
            row = (i * step + chunk) * n_channels + c
            there = both(c < n_channels, n_sources > i)
            tl.store(dots + row, tl.sum(g * h, axis=1, keep_dims=True), mask=there)
            if sums is not None:
                tl.store(sums + row, tl.sum(g, axis=1, keep_dims=True), mask=there)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@kernel
def through_stats_kernel(
    total,  # B C H W: gradient of the normalised source
    source,  # B C H W
    mean,  # C
    rstd,  # C
    slope,  # C: mean of total n
    shift,  # C: mean of total
    extra,  # B C H W
    out,  # B C H W
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch,
    added,  # 1, or 0: there is nothing extra
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out = rstd (total - shift - slope n) + extra, n = (h - mean) rstd."""
    ACC: tl.constexpr = rstd.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    at = offsets(c, n, n_pixels, pitch, LAST, ALIGN)
    r = along(rstd, c, n_channels, LAST, ALIGN)
    h = tl.load(source + at, mask=mask, other=0.0).to(ACC)
    h = (h - along(mean, c, n_channels, LAST, ALIGN)) * r
    t = tl.load(total + at, mask=mask, other=0.0) - along(shift, c, n_channels, LAST, ALIGN)
    t = r * (t - along(slope, c, n_channels, LAST, ALIGN) * h)
    t += tl.load(extra + at, mask=both(mask, added != 0), other=0.0).to(ACC)
    tl.store(out + at, t.to(out.dtype.element_ty), mask=mask)


def weighted_sum(sources: Sequence[Tensor], weight_LBC: Tensor, bias_C: Tensor | None = None) -> Tensor:
    """Return sum_i w_i h_i + b, B C H W."""
    return summed(sources, weight_LBC, bias_C)[0]


def weighted_sum_norm_act(
    sources: Sequence[Tensor],
    weight_LBC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x = sum_i w_i h_i + b, y = act(BN(x)), mean C, variance C.

    Tiles of x leave their moments, so that x is read once more only, to be normalised.
    """
    check_act(act)
    x, partial, cut = summed(sources, weight_LBC, bias_C, moments=True)
    weight = vector(norm_weight_C, x, x.shape[1], what="norm_weight")
    bias = vector(norm_bias_C, x, x.shape[1], what="norm_bias")
    mean, var, scale = combine(partial, cut, weight=weight, eps=eps)
    return x, apply(x, mean, scale, bias, act), mean, var


def summed(
    sources: Sequence[Tensor],
    weight_LBC: Tensor,
    bias_C: Tensor | None,
    *,
    moments: bool = False,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tiles]:
    """Return the sum, moments of its tiles 2 (G S) C if asked for (else any tensor), and the tiles.

    Given `out`, the sum is written there; that may be one of the sources.
    """
    check_maps(sources)
    first, last = sources[0], lies_last(sources[0])
    maps = natives(sources, last=last, dense=True)
    weight = _weights(weight_LBC, first, len(maps))
    bias = None if bias_C is None else vector(bias_C, first, first.shape[1], what="bias")
    cut = tiles(maps[:1], last=last, per_image=weight.shape[1] > 1, sums=moments)
    if out is None:
        out = new_map(first.shape, first, last=last)
    shape = (2, cut.groups * cut.n_tiles, first.shape[1])
    partial = torch.empty(shape if moments else 0, dtype=weight.dtype, device=first.device)
    given = (*pointers(maps), weight, weight if bias is None else bias, out, partial if moments else None)
    run(weighted_sum_kernel, cut, *given, biased=int(bias is not None), **sizes_of(cut, maps, weight))
    return out, partial, cut


def pull(
    grads: Sequence[Tensor], weight_RBC: Tensor, source: Tensor, extra: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of a source, and those of the weights by which R readers weigh it."""
    check_maps([source, *grads, *([] if extra is None else [extra])])
    last = lies_last(source)
    weight = _weights(weight_RBC, source, len(grads))
    out, (dots,) = _pull(grads, weight, native(source, last=last, dense=True), extra)
    return out, dots.sum(dim=(2, 3) if weight.shape[2] == 1 else 2).view(weight.shape)


def pull_normalized(
    grads: Sequence[Tensor],
    weight_RC: Tensor,
    source: Tensor,
    mean_C: Tensor,
    rstd_C: Tensor,
    extra: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of a source that R readers weigh after normalising it, and of weights and biases.

    What flows through the statistics needs the sums of a whole channel: a second pass over three maps.
    """
    check_maps([source, *grads, *([] if extra is None else [extra])])
    last, C = lies_last(source), source.shape[1]
    weight = vector(weight_RC, source, len(grads), C, what="weight")
    mean, rstd = vector(mean_C, source, C, what="mean"), vector(rstd_C, source, C, what="rstd")
    source = native(source, last=last, dense=True)
    total, partial = _pull(grads, weight[:, None], source, None, stats=(mean, rstd))
    dots, sums = partial.sum(dim=(2, 3)).unbind()
    count = source.numel() // C
    slope, shift = ((weight * t).sum(dim=0) / count for t in (dots, sums))
    cut = tiles([source], last=last)
    out = new_map(source.shape, source, last=last)
    extra = None if extra is None else native(extra, last=last, dense=True)
    given = (total, source, mean, rstd, slope, shift, source if extra is None else extra, out)
    known = {"n_channels": C, "pitch": pitch_of(source, last=last), "added": int(extra is not None)}
    run(through_stats_kernel, cut, *given, **known)
    return out, dots, sums


def _pull(
    grads: Sequence[Tensor],
    weight: Tensor,
    source: Tensor,
    extra: Tensor | None,
    stats: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return extra + sum_j w_j g_j, and for each tile the sums of g_j h, 1 R G S C.

    With statistics h is normalised, the first is in the type of sums, and there are the sums of g_j, too.
    """
    last = lies_last(source)
    maps = natives(grads, last=last, dense=True)
    extra = None if extra is None else native(extra, last=last, dense=True)
    cut = tiles(maps[:1], last=last, per_image=weight.shape[1] > 1, sums=True)
    R, groups, _ = weight.shape
    shape = (2 if stats else 1, R, groups, cut.n_tiles, source.shape[1])
    partial = torch.empty(shape, dtype=weight.dtype, device=source.device)
    out = new_map(source.shape, source, last=last, dtype=weight.dtype if stats else None)
    dots, sums = partial[0], partial[1] if stats else None
    known = {**sizes_of(cut, maps, weight), "added": int(extra is not None)}
    more = source if extra is None else extra
    given = (weight, source, *(stats or (None, None)), more, out, dots, sums)
    run(pull_kernel, cut, *pointers(maps), *given, **known)
    return out, partial


def _weights(weight_LBC: Tensor, like: Tensor, count: int) -> Tensor:
    """Return weights L G C or L G 1, dense, in the type of sums."""
    B, C = like.shape[:2]
    shape = tuple(weight_LBC.shape)
    if len(shape) != 3 or shape[0] != count or shape[1] not in (1, B) or shape[2] not in (1, C):
        raise KernelError(f"weight is {shape}: {count} maps need {count} ({B} or 1) ({C} or 1)")
    return vector(weight_LBC, like, *shape, what="weight")


def sizes_of(cut: Tiles, maps: Sequence[Tensor], weight: Tensor) -> dict[str, object]:
    """Return what kernels over several maps know of them."""
    return {
        "n_channels": maps[0].shape[1],
        "pitch": pitch_of(maps[0], last=cut.last),
        "n_sources": len(maps),
        "PER_CHANNEL": weight.shape[2] > 1,
        "LENGTH": POINTERS,
    }
