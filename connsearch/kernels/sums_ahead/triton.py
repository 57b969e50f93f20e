# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Weighted sums that are begun ahead, in Triton.

Shapes: L sources B C H W, K sums of them, up to 4 in one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from connsearch.kernels.norm_act.moments import combine
from connsearch.kernels.norm_act.triton import apply
from connsearch.kernels.tiles import aligned, both, entry, kernel, offsets, tile_of, within
from connsearch.kernels.tritonic import (
    Tiles,
    check_act,
    check_maps,
    is_aligned,
    lies_last,
    natives,
    new_map,
    padded,
    pitch_of,
    pointers,
    run,
    tiles,
    vector,
)
from connsearch.kernels.weighted_sum.triton import sizes_of, summed, weight_of


@kernel
def begin_sums_kernel(
    sources,  # tuple of pointers to B C H W
    table,  # pointers to all of them, or None: they are those in the tuple
    weight,  # n_sums L C
    sums,  # tuple of 4 pointers to B C H W
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch,
    n_sources,
    n_sums,
    LENGTH: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """sums[k] = sum_i w_ki h_i, up to 4 of them, each source read once."""
    ACC: tl.constexpr = weight.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    at = offsets(c, n, n_pixels, pitch, LAST, ALIGN)
    step = n_sources * (aligned(n_channels, ALIGN) if LAST else n_channels)
    of_second = tl.where(n_sums > 1, n_sources, 0)
    of_third = tl.where(n_sums > 2, n_sources, 0)
    of_fourth = tl.where(n_sums > 3, n_sources, 0)
    zero = tl.zeros([BLOCK_C, BLOCK_N], ACC)
    first, second, third, fourth = zero, zero, zero, zero
    for begin in range(0, 1 if table is None else n_sources, LENGTH):
        for k in tl.static_range(LENGTH):
            i = begin + k
            h = entry(sources, table, k, i, n_sources) + at
            h = tl.load(h, mask=both(mask, n_sources > i), other=0.0).to(ACC)
            first += h * weight_of(weight, i, c, n_sources, n_channels, True, LAST, ALIGN)
            second += h * weight_of(weight + step, i, c, of_second, n_channels, True, LAST, ALIGN)
            third += h * weight_of(weight + 2 * step, i, c, of_third, n_channels, True, LAST, ALIGN)
            fourth += h * weight_of(weight + 3 * step, i, c, of_fourth, n_channels, True, LAST, ALIGN)
    OUT: tl.constexpr = sums[0].dtype.element_ty
    tl.store(sums[0] + at, first.to(OUT), mask=mask)
    tl.store(sums[1] + at, second.to(OUT), mask=both(mask, n_sums > 1))
    tl.store(sums[2] + at, third.to(OUT), mask=both(mask, n_sums > 2))
    tl.store(sums[3] + at, fourth.to(OUT), mask=both(mask, n_sums > 3))


AT_ONCE = 4  # sums of the same maps that one kernel makes, and maps in its arguments: they share registers


def begin_sums(sources: Sequence[Tensor], weight_KLC: Tensor, sums: Sequence[Tensor]) -> None:
    """Write sum_i w_ki h_i to each of K maps. Reads each source once for 4 of them."""
    check_maps([*sources, *sums])
    first, last = sources[0], lies_last(sources[0])
    maps = natives(sources, last=last, dense=True)
    C = first.shape[1]
    weight = vector(weight_KLC, first, len(sums), len(maps), C, what="weight")
    cut = tiles(maps[:1], last=last)
    cut = cut._replace(block_n=-(-cut.block_n // 2))  # small ones: several sums share the registers
    from_maps = pointers(maps, AT_ONCE)
    for k in range(0, len(sums), AT_ONCE):
        asked = sums[k : k + AT_ONCE]
        into = [_writable(x, last=last) for x in asked]
        rows = vector(weight[k : k + AT_ONCE], first, len(into), len(maps), C, what="weight")
        sizes = {**sizes_of(cut, maps, rows), "n_sums": len(into), "LENGTH": AT_ONCE}
        del sizes["PER_CHANNEL"]
        run(begin_sums_kernel, cut, *from_maps, rows, padded(into, AT_ONCE), **sizes)
        _give_back(into, asked)


def finish_sum(begun: Tensor, sources: Sequence[Tensor], weight_LC: Tensor, bias_C: Tensor | None) -> None:
    """Make x = begun + sum_i w_i h_i + b of begun."""
    _finish(begun, sources, weight_LC, bias_C, moments=False)


def finish_sum_norm_act(
    begun: Tensor,
    sources: Sequence[Tensor],
    weight_LC: Tensor,
    bias_C: Tensor | None,
    norm_weight_C: Tensor,
    norm_bias_C: Tensor,
    eps: float,
    act: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make x = begun + sum_i w_i h_i + b of begun; return y = act(BN(x)), mean C, variance C."""
    check_act(act)
    C = begun.shape[1]
    x, partial, cut = _finish(begun, sources, weight_LC, bias_C, moments=True)
    norm_weight = vector(norm_weight_C, x, C, what="norm_weight")
    norm_bias = vector(norm_bias_C, x, C, what="norm_bias")
    mean, var, scale = combine(partial, cut, weight=norm_weight, eps=eps)
    return apply(x, mean, scale, norm_bias, act), mean, var


def _finish(
    begun: Tensor, sources: Sequence[Tensor], weight_LC: Tensor, bias_C: Tensor | None, *, moments: bool
) -> tuple[Tensor, Tensor, Tiles]:
    """Make x of begun; return it as kernels read it, and what else `summed` returns."""
    C = begun.shape[1]
    weight = vector(weight_LC, begun, len(sources), C, what="weight")
    weight = torch.cat([weight.new_ones(1, C), weight])[:, None]
    into = _writable(begun, last=lies_last(begun))
    found = summed([begun, *sources], weight, bias_C, moments=moments, out=into)
    _give_back([into], [begun])
    return found


def _writable(x: Tensor, *, last: bool) -> Tensor:
    """Return the map if kernels can write it as it lies, else a fresh one of which it gets the values."""
    _, C, H, W = x.shape
    dense = pitch_of(x, last=last) == (C if last else C * H * W)
    return x if dense and is_aligned(x) else new_map(x.shape, x, last=last)


def _give_back(written: Sequence[Tensor], asked: Sequence[Tensor]) -> None:
    for found, target in zip(written, asked, strict=True):
        if found is not target:
            target.copy_(found)
