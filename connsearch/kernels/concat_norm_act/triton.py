# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""Batch normalisation and activation of several sources at once, without concatenating them, in Triton.

Shapes: N sources B C_i H W, together K channels; S tiles along the pixels. A tile lies within one source:
a program finds out which by going through the widths of at most 16, the sources of a launch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.tiles import (
    aligned,
    along,
    kernel,
    let_through,
    locate,
    offsets,
    pick,
    rectified,
    tile_of,
    within,
)
from connsearch.kernels.tritonic import (
    SOURCES,
    Tiles,
    check_act,
    check_maps,
    check_sources,
    launch,
    lies_last,
    native,
    natives,
    new_map,
    odd,
    padded,
    pitch_of,
    run,
    sum_type,
    tiles,
    vector,
)


@kernel
def concat_norm_act_kernel(
    sources,  # tuple of pointers to B C_i H W
    widths,  # 2 C_i + 1 (odd numbers: see `tritonic.odd`)
    pitches,  # 2 pitch_i + 1
    scale,  # K
    shift,  # K
    y,  # B K H W
    n_pixels,
    n_values,
    n_channels,  # K
    c_tiles,
    n_sources,
    before,  # channels of the sources of earlier launches
    pitch_y,
    relu,  # 1, or 0
    LENGTH: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """y = act(scale h + shift) for a tile of one of the sources."""
    ACC: tl.constexpr = scale.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    source, local, first, width = locate(widths, side, n_sources, LENGTH, BLOCK_C)
    c = (local + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, width, n_values, LAST, ALIGN)
    first = before + first - local
    if LAST:
        first = aligned(first, ALIGN)
    at = offsets(c, n, n_pixels, pick(pitches, source, LENGTH) // 2, LAST, ALIGN)
    h = tl.load(pick(sources, source, LENGTH) + at, mask=mask, other=0.0).to(ACC)
    h = h * along(scale + first, c, width, LAST, ALIGN) + along(shift + first, c, width, LAST, ALIGN)
    h = rectified(h, relu)
    at = offsets(first + c, n, n_pixels, pitch_y, LAST, ALIGN)
    tl.store(y + at, h.to(y.dtype.element_ty), mask=mask)


@kernel
def concat_norm_act_backward_kernel(
    sources,  # tuple of pointers to B C_i H W
    sinks,  # tuple of pointers to B C_i H W
    widths,  # 2 C_i + 1
    pitches,  # 2 pitch_i + 1
    sink_pitches,  # the same of sinks
    grad,  # B K H W
    mean,  # K
    rstd,  # K
    weight,  # K
    bias,  # K
    sums,  # 2 S K: of grad n, of grad
    n_pixels,
    n_values,
    n_channels,  # K
    c_tiles,
    n_sources,
    before,
    pitch_y,
    relu,  # 1, or 0
    LENGTH: tl.constexpr,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """sink += weight rstd m for a tile of one of the sources, and its sums of m n and m."""
    ACC: tl.constexpr = rstd.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    source, local, first, width = locate(widths, side, n_sources, LENGTH, BLOCK_C)
    c = (local + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, width, n_values, LAST, ALIGN)
    first = before + first - local
    if LAST:
        first = aligned(first, ALIGN)
    r = along(rstd + first, c, width, LAST, ALIGN)
    w = along(weight + first, c, width, LAST, ALIGN)
    b = along(bias + first, c, width, LAST, ALIGN)
    at = offsets(c, n, n_pixels, pick(pitches, source, LENGTH) // 2, LAST, ALIGN)
    h = tl.load(pick(sources, source, LENGTH) + at, mask=mask, other=0.0).to(ACC)
    h = (h - along(mean + first, c, width, LAST, ALIGN)) * r
    at = offsets(first + c, n, n_pixels, pitch_y, LAST, ALIGN)
    g = tl.load(grad + at, mask=mask, other=0.0).to(ACC)
    g = let_through(g, h * w + b, relu)
    sink = pick(sinks, source, LENGTH)
    at = offsets(c, n, n_pixels, pick(sink_pitches, source, LENGTH) // 2, LAST, ALIGN)
    total = tl.load(sink + at, mask=mask, other=0.0).to(ACC) + r * w * g
    tl.store(sink + at, total.to(sink.dtype.element_ty), mask=mask)
    row = tile.to(tl.int64) * n_channels + first + c
    end = tl.cdiv(n_values, BLOCK_N).to(tl.int64) * n_channels
    tl.store(sums + row, tl.sum(g * h, axis=1, keep_dims=True), mask=c < width)
    tl.store(sums + end + row, tl.sum(g, axis=1, keep_dims=True), mask=c < width)


@kernel
def add_affine_kernel(
    sink,  # B C H W
    source,  # B C H W
    slope,  # C
    shift,  # C
    n_pixels,
    n_values,
    n_channels,
    c_tiles,
    pitch_x,
    pitch_y,  # of the sink
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """sink += slope source + shift."""
    ACC: tl.constexpr = slope.dtype.element_ty
    tile, side = tile_of(c_tiles, LAST)
    c = (side * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    n = (tile * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    mask = within(c, n, n_channels, n_values, LAST, ALIGN)
    h = tl.load(source + offsets(c, n, n_pixels, pitch_x, LAST, ALIGN), mask=mask, other=0.0).to(ACC)
    at = offsets(c, n, n_pixels, pitch_y, LAST, ALIGN)
    total = tl.load(sink + at, mask=mask, other=0.0).to(ACC)
    total += h * along(slope, c, n_channels, LAST, ALIGN) + along(shift, c, n_channels, LAST, ALIGN)
    tl.store(sink + at, total.to(sink.dtype.element_ty), mask=mask)


class Group(NamedTuple):
    """Some neighbours among the sources of a concatenation: those of one launch.

    Attributes:
        own: Which they are.
        widths: Their channels.
        before: Channels of all sources before them.
        length: What tuples are filled up to; None: a power of two.
    """

    own: slice
    widths: list[int]
    before: int
    length: int | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """Its widths, as a kernel takes them."""
        return padded(odd(self.widths), self.length)

    def sizes(self, cut: Tiles, whole: Tensor) -> dict[str, Any]:
        """Return what kernels know of it beside a native map of all channels."""
        return {
            "n_channels": whole.shape[1],
            "n_sources": len(self.widths),
            "before": self.before,
            "pitch_y": pitch_of(whole, last=cut.last),
            "LENGTH": len(self.places),
            **cut.sizes(),
        }


def groups(widths: Sequence[int], most: int = SOURCES, length: int | None = None) -> Iterator[Group]:
    """Yield sources by at most so many, in tuples of a length (default: a power of two).

    >>> [(g.widths, g.before) for g in groups([8, 4, 4], most=2)]
    [([8, 4], 0), ([4], 12)]
    """
    begins = list(itertools.accumulate(widths, initial=0))
    for i in range(0, len(widths), most):
        yield Group(slice(i, i + most), list(widths[i : i + most]), begins[i], length)


def concat_norm_act(sources: Sequence[Tensor], scale_K: Tensor, shift_K: Tensor, act: str) -> Tensor:
    """Return act(scale [h_1, ..., h_N] + shift): B K H W."""
    relu = check_act(act)
    widths, last = check_sources(sources)
    maps = natives(sources, last=last)
    (B, _, H, W), K = maps[0].shape, sum(widths)
    scale, shift = vector(scale_K, maps[0], K, what="scale"), vector(shift_K, maps[0], K, what="shift")
    y = new_map((B, K, H, W), maps[0], last=last)
    whole = tiles([*maps, y], last=last, widths=widths)
    for group in groups(widths, length=SOURCES):
        some, cut = maps[group.own], whole.over(group.widths)
        numbers = (group.places, pitches(some, last=last, length=SOURCES))
        given = (padded(some, SOURCES), *numbers, scale, shift, y)
        known = {**group.sizes(cut, y), "c_tiles": cut.c_tiles, "relu": int(relu)}
        launch(concat_norm_act_kernel, cut.programs, *given, **known)
    return y


def concat_norm_act_backward(
    grad_y: Tensor,
    sources: Sequence[Tensor],
    mean_K: Tensor,
    rstd_K: Tensor,
    weight_K: Tensor,
    bias_K: Tensor,
    act: str,
    sinks: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Add this reader's share to the gradients of its sources; return gradients of weight K and bias K."""
    relu = check_act(act)
    widths, last = check_sources(sources)
    K = sum(widths)
    check_maps([grad_y, *sources], widths=[K, *widths])
    check_sinks(sinks, sources)
    maps, grad = natives(sources, last=last), native(grad_y, last=last)
    into = natives(sinks, last=last)
    params = norm_params(maps[0], K, mean_K, rstd_K, weight_K, bias_K)
    whole = tiles([*maps, *into, grad], last=last, sums=True, widths=widths)
    sums = torch.empty(2, whole.n_tiles, K, dtype=sum_type(grad), device=grad.device)
    for group in groups(widths, length=SOURCES):
        some, here, cut = maps[group.own], into[group.own], whole.over(group.widths)
        lying = (pitches(lot, last=last, length=SOURCES) for lot in (some, here))
        given = (padded(some, SOURCES), padded(here, SOURCES), group.places, *lying, grad, *params, sums)
        known = {**group.sizes(cut, grad), "c_tiles": cut.c_tiles, "relu": int(relu)}
        launch(concat_norm_act_backward_kernel, cut.programs, *given, **known)
    copy_back(sinks, into)
    dots, plain = sums.sum(dim=1).unbind()
    return dots, plain


def add_affine(sink: Tensor, source: Tensor, slope_C: Tensor, shift_C: Tensor) -> None:
    """Do sink += slope source + shift, B C H W, in place."""
    check_maps([source])
    check_sinks([sink], [source])
    last, C = lies_last(sink), sink.shape[1]
    into, x = native(sink, last=last), native(source, last=last)
    slope, shift = vector(slope_C, x, C, what="slope"), vector(shift_C, x, C, what="shift")
    cut = tiles([into, x], last=last)
    known = {"n_channels": C, "pitch_x": pitch_of(x, last=last), "pitch_y": pitch_of(into, last=last)}
    run(add_affine_kernel, cut, into, x, slope, shift, **known)
    copy_back([sink], [into])


def norm_params(like: Tensor, K: int, *params: Tensor) -> list[Tensor]:
    """Return mean K, rstd K, weight K, bias K as kernels take them."""
    names = ("mean", "rstd", "weight", "bias")
    return [vector(t, like, K, what=name) for t, name in zip(params, names, strict=True)]


def pitches(maps: Sequence[Tensor], *, last: bool, length: int | None = None) -> tuple[int, ...]:
    """Return where maps that lie natively lie, as a kernel over a tuple of them takes it."""
    return padded(odd([pitch_of(x, last=last) or 0 for x in maps]), length)


def check_sinks(sinks: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Check that what sources get is added to maps like them, all of one dtype, each of them another.

    Raises:
        KernelError: if there is not one sink for each source, if one has another shape or device, or if two
            begin at one address: programs that add to one place do not wait for each other.
    """
    shapes = [(tuple(x.shape), x.device) for x in sources]
    found = [(tuple(x.shape), x.device) for x in sinks]
    if found != shapes:
        raise KernelError(f"sinks {found} do not match sources {shapes}")
    check_maps(sinks, widths=[x.shape[1] for x in sinks])
    places = {x.data_ptr() for x in sinks}
    if len(places) < len(sinks):
        raise KernelError(f"{len(sinks)} sinks are {len(places)} maps: each has to be another")


def copy_back(sinks: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """Copy to sinks what a kernel added to copies of them."""
    for sink, copy in zip(sinks, into, strict=True):
        if copy is not sink:
            sink.copy_(copy)
