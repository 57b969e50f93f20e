# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""What kernels written in Triton call: where the values of a tile lie, and its moments.

Tiles are C N: BLOCK_C channels times BLOCK_N pixels of one or several images. `tritonic.py` says what
a pitch is, and what ALIGN.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

NUMBERS = [
    *(
        "n_pixels",
        "n_values",
        "n_channels",
        "n_images",
        "n_chunks",
        "n_groups",
        "n_sources",
        "n_outputs",
        "before",
        "c_tiles",
        "n_sums",
        "biased",
        "added",
        "centred",
    ),
    *("pitch", "pitch_x", "pitch_y", "steps", "chunk", "relu"),
]

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for the GPU, once for all numbers.

    Triton would compile anew for numbers that are 1 or multiples of 16: `aligned` tells what matters.
    """
    return triton.jit(do_not_specialize=NUMBERS)(function)


@triton.jit
def aligned(n, ALIGN: tl.constexpr):
    """Return n, which is a multiple of ALIGN, so that the compiler knows it too."""
    return n // ALIGN * ALIGN


@triton.jit
def tile_of(c_tiles, LAST: tl.constexpr):
    """Return which tile of pixels, and of channels, a program makes: the next program's lies beside it."""
    if LAST:
        return tl.program_id(0) // c_tiles, tl.program_id(0) % c_tiles
    else:
        return tl.program_id(0), tl.program_id(1)


@triton.jit
def offsets(c, n, n_pixels, pitch, LAST: tl.constexpr, ALIGN: tl.constexpr):
    """Return where channels c of pixels n lie, in shapes that broadcast; pixels count through all images."""
    step = aligned(pitch, ALIGN).to(tl.int64)
    if LAST:
        return n.to(tl.int64) * step + c
    else:
        pixels = aligned(n_pixels, ALIGN)
        return (n // pixels).to(tl.int64) * step + n % pixels + c.to(tl.int64) * pixels


@triton.jit
def within(c, n, n_channels, n_values, LAST: tl.constexpr, ALIGN: tl.constexpr):
    """Return which channels and pixels there are. Masks that are alike for ALIGN values keep loads wide."""
    if LAST:
        return (c < aligned(n_channels, ALIGN)) & (n < n_values)
    else:
        return (c < n_channels) & (n < aligned(n_values, ALIGN))


@triton.jit
def both(mask, there):
    """Return the mask if there, else nothing. Triton's interpreter makes integers of a mask and a scalar."""
    return (mask & there) != 0


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """Return total + a b. The interpreter cannot multiply bfloat16, whose products are exact in float32."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@kernel
def table_kernel(
    maps,  # tuple of pointers
    table,  # addresses of the maps
    n_sources,
    LENGTH: tl.constexpr,
):
    """Write where maps lie."""
    for i in tl.static_range(LENGTH):
        tl.store(table + i, maps[i].to(tl.int64), mask=n_sources > i)


@triton.jit
def entry(maps, table, k, i, n_sources):
    """Return the pointer to map i: from the table, or if there is none, the k-th in the tuple."""
    if table is None:
        return maps[k]
    else:
        address = tl.load(table + i, mask=n_sources > i, other=0)
        return tl.multiple_of(address.to(maps[0].dtype), 16)


@triton.jit
def along(vector, c, n_channels, LAST: tl.constexpr, ALIGN: tl.constexpr):
    """Return values of channels c, 0 for channels that there are not."""
    if LAST:
        n_channels = aligned(n_channels, ALIGN)
    return tl.load(vector + c, mask=c < n_channels, other=0.0)


@triton.jit
def rectified(h, relu):
    """Return max(h, 0) if relu, else h. NaN stays NaN, so that a network that diverges shows it."""
    return tl.where(both(h < 0, relu != 0), 0.0, h)


@triton.jit
def let_through(g, z, relu):
    """Return the gradient g where max(z, 0) lets it through, if relu. As in torch, where z is NaN it does."""
    return tl.where(both(z <= 0, relu != 0), 0.0, g)


@triton.jit
def tile_moments(h, mask, count):
    """Return C 1 means and sums of squared distances from them of a tile of which `count` pixels count."""
    mean = tl.sum(tl.where(mask, h, 0.0), axis=1, keep_dims=True) / tl.maximum(count, 1)
    distance = tl.where(mask, h - mean, 0.0)
    return mean, tl.sum(distance * distance, axis=1, keep_dims=True)


@triton.jit
def pick(values, i, LENGTH: tl.constexpr):
    """Return values[i] of a tuple, for an i that only the running kernel knows."""
    found = values[0]
    for j in tl.static_range(1, LENGTH):
        found = tl.where(i == j, values[j], found)
    return found


@triton.jit
def locate(widths, tile, count, LENGTH: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return, of a tile of channels of several sources: its source, first channel there and among all, width.

    Widths come as 2 w + 1 (`tritonic.odd`), of which the first `count` count.
    """
    source = 0
    begin = 0  # first tile of a source
    before = 0  # channels before a source
    first_tile = 0
    first_channel = 0
    width = widths[0] // 2
    for j in tl.static_range(LENGTH):
        w = widths[j] // 2
        here = (count > j) & (tile >= begin)
        source = tl.where(here, j, source)
        first_tile = tl.where(here, begin, first_tile)
        first_channel = tl.where(here, before, first_channel)
        width = tl.where(here, w, width)
        begin += tl.cdiv(w, BLOCK_C)
        before += w
    local = (tile - first_tile) * BLOCK_C
    return source, local, first_channel + local, width
