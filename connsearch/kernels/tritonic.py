"""What kernels in Triton share on the host's side: whether they run, how maps lie, how large tiles are.

Nothing here imports Triton: a machine without it can ask why.

Shapes: B C H W maps; P = H W pixels of an image; N pixels of all images that a channel's vector belongs to.
A map lies natively if it is dense, or a slice of channels of a dense map. One number, its pitch, then says
where it lies: what lies between an image and the next (NCHW), or a pixel and the next (channels_last).

Triton compiles a kernel for each pattern of constants and of aligned pointers, in up to some seconds. What
differs from network to network is therefore an argument: numbers, how many maps of a tuple there are, whether
there is a bias. Left are the dtype, the layout, what widths are multiples of (1, 4 or 8), two sizes of tiles,
eps, and few forms of each kernel: some dozens of compilations for all networks of a search together.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from connsearch.errors import KernelError

POINTERS = 8  # of maps, in the arguments of a kernel that sums them; more lie in a table
SOURCES = 16  # that a kernel finds its way among; more take several launches
ALIGNED = 16  # bytes of the widest load
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def why_not(index: int | None = None) -> str | None:
    """Return why kernels in Triton cannot run on a GPU (default: the current one), None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if not torch.cuda.is_available():
        return "there is no GPU"
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        return f"the GPU's compute capability is {major}.{minor}, kernels need 8.0"
    return None


def lies_last(x: Tensor) -> bool:
    """Return whether kernels take a map as channels_last: it lies so, and is of one pixel or not NCHW."""
    one_pixel = x.shape[2] * x.shape[3] == 1
    return (one_pixel or pitch_of(x, last=False) is None) and pitch_of(x, last=True) is not None


def pitch_of(x: Tensor, *, last: bool) -> int | None:
    """Return the pitch of a map that lies natively, None of another one.

    >>> wide = torch.empty(2, 8, 3, 5).to(memory_format=torch.channels_last)
    >>> pitch_of(wide[:, 2:5], last=True), pitch_of(wide, last=False)
    (8, None)
    """
    return _pitch(x.shape, x.stride(), last)


@lru_cache(maxsize=4096)
def _pitch(shape: torch.Size, strides: tuple[int, ...], last: bool) -> int | None:
    _, C, H, W = shape
    axes = (3, 2, 0) if last else (0,)
    spans = {3: 1, 2: W, 0: H * W} if last else {0: 1}
    pitch = next((strides[a] // spans[a] for a in axes if shape[a] > 1), C if last else C * H * W)
    native = (H * W * pitch, 1, W * pitch, pitch) if last else (pitch, H * W, W, 1)
    fits = all(n < 2 or s == t for n, s, t in zip(shape, strides, native, strict=True))
    return pitch if fits and pitch >= (C if last else C * H * W) else None


def native(x: Tensor, *, last: bool, dense: bool = False) -> Tensor:
    """Return a map that lies natively, or densely: itself, or a copy."""
    return x if _lies(x, last, dense) else _laid(x, last)


def _lies(x: Tensor, last: bool, dense: bool) -> bool:
    pitch = pitch_of(x, last=last)
    if pitch is None or not dense:
        return pitch is not None
    _, C, H, W = x.shape
    return pitch == (C if last else C * H * W)


def _laid(x: Tensor, last: bool) -> Tensor:
    return new_map(x.shape, x, last=last).copy_(x)


def natives(maps: Sequence[Tensor], *, last: bool, dense: bool = False) -> list[Tensor]:
    """Return maps for a tuple of pointers: native, and where the widest loads may begin.

    Triton compiles a kernel for each pattern of aligned and other pointers; so there is only one.
    """
    return [x if is_aligned(x) and _lies(x, last, dense) else _laid(x, last) for x in maps]


def is_aligned(x: Tensor) -> bool:
    """Return whether a tensor begins where the widest loads may begin."""
    return x.data_ptr() % ALIGNED == 0


def new_map(shape: Sequence[int], like: Tensor, *, last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """Return a dense map, not yet written."""
    form = torch.channels_last if last else torch.contiguous_format
    return torch.empty(*shape, dtype=dtype or like.dtype, device=like.device, memory_format=form)


def sum_type(x: Tensor) -> torch.dtype:
    """Return the type of sums over a map."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def vector(values: Tensor, like: Tensor, *shape: int, what: str) -> Tensor:
    """Return parameters or statistics of maps: dense, aligned, in the type of their sums.

    Raises:
        KernelError: if they have another shape or lie on another device.
    """
    if tuple(values.shape) != shape or values.device != like.device:
        raise KernelError(
            f"{what} is {tuple(values.shape)} on {values.device}, maps need {shape} on {like.device}"
        )
    dense = values.to(sum_type(like)).contiguous()
    return dense if is_aligned(dense) else dense.clone()


def check_maps(maps: Sequence[Tensor], *, widths: Sequence[int] | None = None) -> None:
    """Check that kernels take maps together: as many channels as the first one, or of the widths.

    Raises:
        KernelError: if one differs from the first in shape, dtype or device.
    """
    if not maps:
        raise KernelError("no maps: a kernel needs one or more")
    first = maps[0]
    dtype, device = first.dtype, first.device
    if first.dim() != 4 or first.numel() == 0 or first.dtype not in DTYPES:
        raise KernelError(f"a map is {first.dtype} {tuple(first.shape)}: need floats B C H W, none of them 0")
    B, _, H, W = shape = tuple(first.shape)
    for i, x in enumerate(maps):
        if widths:
            shape = (B, widths[i], H, W)
        if x.shape != shape or x.dtype is not dtype or x.device != device:
            raise KernelError(
                f"map {i} is {x.dtype} {tuple(x.shape)} on {x.device}, beside {dtype} {shape} on {device}"
            )


def check_sources(sources: Sequence[Tensor]) -> tuple[list[int], bool]:
    """Return channels of maps that are concatenated, and whether kernels take them as channels_last.

    Raises:
        KernelError: if one differs from the first in more than channels.
    """
    widths = [x.shape[1] if x.dim() == 4 else 0 for x in sources]
    check_maps(sources, widths=widths)
    return widths, lies_last(sources[0])


def check_act(act: str) -> bool:
    """Return whether the activation is ReLU, False if there is none.

    Raises:
        KernelError: if it is another one.
    """
    if act not in ("none", "relu"):
        raise KernelError(f"unknown activation {act!r}: use none, relu")
    return act == "relu"


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Run a kernel on the device of its first argument, a tensor or a tuple of them.

    Products and sums are fused, which later versions of Triton do when asked only.
    """
    first = args[0][0] if isinstance(args[0], tuple) else args[0]
    with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
        kernel[grid](*args, enable_fp_fusion=True, **options)


def run(kernel: Any, cut: Tiles, *args: Any, **options: Any) -> None:
    """Run a kernel with a program for each tile, which tells it of them."""
    launch(kernel, cut.programs, *args, c_tiles=cut.c_tiles, **cut.sizes(), **options)


def pointers(maps: Sequence[Tensor], length: int = POINTERS) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return maps as arguments of a kernel that sums them: a tuple of a length, and of more a table.

    Loops over tuples are unrolled: a kernel over 64 of them takes a minute to compile and runs out of
    registers. A loop over a table is compiled once for any number of maps. The table is written by a
    kernel, not copied from the host, so that a CUDA graph holds it.
    """
    from connsearch.kernels.tiles import table_kernel

    if len(maps) <= length:
        return padded(maps, length), None
    table = torch.empty(len(maps), dtype=torch.int64, device=maps[0].device)
    for i in range(0, len(maps), SOURCES):
        some = maps[i : i + SOURCES]
        launch(table_kernel, (1,), padded(some, SOURCES), table[i:], len(some), LENGTH=SOURCES)
    return tuple(maps[:length]), table


def padded(values: Sequence[Any], length: int | None = None) -> tuple[Any, ...]:
    """Return the values and the first one again, up to a length (default: a power of two).

    >>> padded([5, 6, 7]), padded([5], 2)
    ((5, 6, 7, 5), (5, 5))
    """
    length = length or power_of_two(len(values))
    return (*values, *[values[0]] * (length - len(values)))


def odd(values: Sequence[int]) -> tuple[int, ...]:
    """Return 2 v + 1 for each: Triton compiles anew for numbers that are 1 or multiples of 16."""
    return tuple(2 * v + 1 for v in values)


def power_of_two(n: int) -> int:
    """Return the least power of two that is at least n.

    >>> [power_of_two(n) for n in (1, 2, 3, 40)]
    [1, 2, 4, 64]
    """
    return 1 << (n - 1).bit_length()


def channel_block(widths: Sequence[int], most: int = 64) -> int:
    """Return how many channels a tile has: many, unless that leaves more than a fifth of the tiles empty.

    >>> channel_block([128]), channel_block([24, 12, 12]), channel_block([3])
    (64, 16, 16)
    """
    choices = [block for block in (64, 32, 16) if block <= most]
    held = {block: sum(-(-w // block) * block for w in widths) for block in choices}
    return next(b for b in choices if held[b] <= max(1.2 * sum(widths), min(held.values())))


class Tiles(NamedTuple):
    """How maps are cut into tiles of C times N values.

    Attributes:
        last: Whether maps are channels_last.
        groups: Images, if each has weights of its own, else 1.
        n_values: Pixels in a group.
        n_pixels: Pixels of an image.
        block_c, block_n: Channels and pixels of a tile.
        c_tiles: Tiles side by side: of all sources, if there are several.
        align: What numbers of channels (channels_last) or pixels (NCHW) are multiples of: 1, 4 or 8.
    """

    last: bool
    groups: int
    n_values: int
    n_pixels: int
    block_c: int
    block_n: int
    c_tiles: int
    align: int

    @property
    def n_tiles(self) -> int:
        """Tiles of a group, one after another."""
        return -(-self.n_values // self.block_n)

    @property
    def grid(self) -> tuple[int, int, int]:
        """A program for each tile: of pixels, of channels, of a group."""
        return self.n_tiles, self.c_tiles, self.groups

    @property
    def programs(self) -> tuple[int, int, int]:
        """A program for each tile, in the order in which tiles lie in memory: see `tiles.tile_of`."""
        return self.chunks(self.n_tiles)

    def chunks(self, n: int) -> tuple[int, int, int]:
        """Return programs for so many chunks of the tiles of a group."""
        return (n * self.c_tiles, 1, self.groups) if self.last else (n, self.c_tiles, self.groups)

    def over(self, widths: Sequence[int]) -> Tiles:
        """Return the tiles of sources of so many channels, cut alike."""
        return self._replace(c_tiles=sum(-(-w // self.block_c) for w in widths))

    def sizes(self) -> dict[str, Any]:
        """Return the arguments by which kernels know tiles."""
        return {
            "n_pixels": self.n_pixels,
            "n_values": self.n_values,
            "LAST": self.last,
            "ALIGN": self.align,
            "BLOCK_C": self.block_c,
            "BLOCK_N": self.block_n,
        }


def tiles(
    maps: Sequence[Tensor],
    *,
    last: bool,
    per_image: bool = False,
    sums: bool = False,
    widths: Sequence[int] = (),
) -> Tiles:
    """Cut maps that lie natively into tiles, of few sizes: each is a compilation of its own.

    Args:
        sums: Whether each tile leaves sums behind: then they are larger, to leave fewer.
        widths: Channels of the sources that the maps' channels are cut into, one after another.
    """
    B, C, H, W = maps[0].shape
    widths, size = widths or [C], maps[0].element_size()
    n_values = H * W if per_image else B * H * W
    numbers = {pitch_of(x, last=last) or 1 for x in maps}.union(widths if last else [H * W])
    align = next(a for a in (8 if size == 2 else 4, 4, 1) if not any(n % a for n in numbers))
    few = align == 1 or size == 8  # where each is loaded by itself, or takes two registers
    elements = 1024 if few else 4096 if sums else 2048
    if last:
        block_c = channel_block(widths, 32 if align * size >= 16 else 16)
        block_n = elements // block_c
    else:
        block_n = 64 if per_image and H * W <= 64 else 256
        block_c = elements // block_n
    return Tiles(last, B if per_image else 1, n_values, H * W, block_c, block_n, 0, align).over(widths)
