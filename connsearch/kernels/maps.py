"""Tensors as compiled kernels see them: addresses and strides, checked; the other side of `maps.h`.

A map is NCHW or channels last; images of the former and rows of the latter may lie any stride apart. Maps
with other strides are copied.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.build import VALUES, library

ACTS = {"none": 0, "relu": 1}
PLAIN = (int, float, type(None))


class Form(NamedTuple):
    """What maps of one call have in common.

    Attributes:
        shape: B C H W of the first.
        dtype: Of all maps.
        sums: The dtype of sums and of each channel's values.
        last: Whether channels lie next to each other.
        threads: How many may work on it.
    """

    shape: torch.Size
    dtype: torch.dtype
    sums: torch.dtype
    last: bool
    threads: int


def form_of(first: Tensor) -> Form:
    """Return the form that the first map gives to all maps of a call.

    Raises:
        KernelError: if it is not a map that a compiled kernel reads.
    """
    shape, dtype = first.shape, first.dtype
    if len(shape) != 4:
        raise KernelError(f"a map is B C H W, got {tuple(shape)}")
    if dtype not in NAMES or not first.is_cpu:
        raise KernelError(f"no kernel of the CPU reads maps of {dtype} on {first.device}")
    one_pixel = shape[2] * shape[3] == 1
    last = one_pixel if first.is_contiguous() else first.stride(1) == 1 and shape[1] > 1
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    return Form(shape, dtype, sums, last, torch.get_num_threads())


NAMES = {getattr(torch, name): name for name in VALUES}


def new_map(like: Tensor, form: Form, channels: int | None = None) -> Tensor:
    """Return a fresh map in the layout of `like`, maybe of other channels."""
    if channels is None and (like.is_contiguous() or like.is_contiguous(memory_format=torch.channels_last)):
        return torch.empty_like(like)
    B, C, H, W = form.shape
    return torch.empty((B, channels or C, H, W), dtype=form.dtype, memory_format=_memory_format(form.last))


def _memory_format(last: bool) -> torch.memory_format:
    return torch.channels_last if last else torch.contiguous_format


@lru_cache(maxsize=4096)
def _stride(shape: torch.Size, strides: tuple[int, ...], last: bool) -> int | None:
    """Return the stride between images (channels last: between rows), None if kernels cannot step so."""
    B, C, H, W = shape
    b, c, h, w = strides
    if not last:
        dense = (W == 1 or w == 1) and (H == 1 or h == W) and (C == 1 or c == H * W)
        return (b if B > 1 else C * H * W) if dense else None
    row = w if W > 1 else h if H > 1 else b if B > 1 else C
    even = (C == 1 or c == 1) and (H == 1 or h == W * row) and (B == 1 or b == H * W * row)
    return row if even else None


class Job:
    """One call of a compiled kernel: its form, and its maps one after the other.

    What had to be copied lives as long as the job.
    """

    def __init__(self, form: Form, n: int, channels: int | None = None) -> None:
        B, C, H, W = form.shape
        self.form = form
        self.ints = [form.last, B, channels or C, H * W, form.threads, n]
        self._kept: list[Tensor] = []
        self._back: list[tuple[Tensor, Tensor]] = []

    def add(self, what: str, tensor: Tensor | None, channels: int | None = None) -> None:
        """Add a map that is read, or null.

        Raises:
            KernelError: if it is not of the job's form; `what` names it.
        """
        self.ints += (0, 0) if tensor is None else self._place(what, tensor, channels)

    def add_all(self, what: str, tensors: Sequence[Tensor]) -> None:
        """Add maps that are read, all of the job's form; as `add`, only faster.

        Raises:
            KernelError: if one is not of the job's form.
        """
        form, append = self.form, self.ints.append
        shape, dtype = form.shape, form.dtype
        known: tuple[int, ...] = ()  # maps of one call mostly have the same strides
        stride: int | None = None
        for tensor in tensors:
            if tensor.shape == shape and tensor.dtype is dtype and tensor.is_cpu:
                strides = tensor.stride()
                if strides != known:
                    known, stride = strides, _stride(shape, strides, form.last)
                if stride is not None:
                    append(tensor.data_ptr())
                    append(stride)
                    continue
            self.ints += self._place(what, tensor, None)

    def add_written(self, what: str, tensor: Tensor, channels: int | None = None) -> None:
        """Add a map that is written; one with other strides gets the outcome when the job has run."""
        place = self._place(what, tensor, channels)
        self.ints += place
        if place[0] != tensor.data_ptr():
            self._back.append((tensor, self._kept[-1]))

    def _place(self, what: str, tensor: Tensor, channels: int | None) -> tuple[int, int]:
        form, shape = self.form, tensor.shape
        if shape != form.shape:
            B, C, H, W = form.shape
            if shape != (B, channels or C, H, W):
                raise KernelError(f"{what} must be {(B, channels or C, H, W)}, got {tuple(shape)}")
        if tensor.dtype is not form.dtype or not tensor.is_cpu:
            raise KernelError(
                f"{what} must be {form.dtype} on cpu, as the first map, got {tensor.dtype} on {tensor.device}"
            )
        stride = _stride(shape, tensor.stride(), form.last)
        if stride is None:
            tensor = tensor.contiguous(memory_format=_memory_format(form.last))
            self._kept.append(tensor)
            stride = _stride(shape, tensor.stride(), form.last)
            assert stride is not None
        return tensor.data_ptr(), stride

    def run(self, package: str, function: str, *args: Any) -> None:
        """Run a compiled function on the maps; tensors among the arguments are passed by address."""
        memory = array("q", self.ints)
        _function(package, function, self.form.dtype)(
            memory.buffer_info()[0], *[a if type(a) in PLAIN else a.data_ptr() for a in args]
        )
        for target, outcome in self._back:
            target.copy_(outcome)


POINTER, INT, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
ARGUMENTS: dict[str, tuple[Any, ...]] = {  # after the job
    "weighted_sum": (POINTER, INT, POINTER),
    "weighted_sum_norm_act": (POINTER, POINTER, POINTER, POINTER, REAL, INT, POINTER, POINTER),
    "begin_sums": (INT, POINTER),
    "pull": (POINTER, INT, POINTER),
    "pull_normalized": (POINTER, POINTER, POINTER, POINTER, POINTER),
    "norm_act": (POINTER, POINTER, INT),
    "norm_act_train": (POINTER, POINTER, REAL, INT, POINTER, POINTER),
    "norm_act_backward": (POINTER, POINTER, POINTER, POINTER, INT, POINTER, POINTER),
    "concat_norm_act": (POINTER, POINTER, POINTER, INT),
    "concat_norm_act_backward": (POINTER, POINTER, POINTER, POINTER, POINTER, INT, POINTER, POINTER),
    "add_affine": (POINTER, POINTER),
}


@cache
def _function(package: str, name: str, dtype: torch.dtype) -> Callable[..., None]:
    found = getattr(library(package, NAMES[dtype]), name)
    found.argtypes, found.restype = (POINTER, *ARGUMENTS[name]), None
    typed: Callable[..., None] = found
    return typed


def vector(what: str, tensor: Tensor, n: int, form: Form) -> Tensor:
    """Return a value for each of n channels as kernels read it.

    Raises:
        KernelError: if there are not n.
    """
    if tensor.shape != (n,):
        raise KernelError(f"{what} must be ({n},), one value for each channel, got {tuple(tensor.shape)}")
    return _dense(what, tensor, form)


def matrix(what: str, tensor: Tensor, rows: int, form: Form) -> Tensor:
    """Return a value for each source or reader and channel as kernels read it.

    Raises:
        KernelError: if the shape is wrong.
    """
    if tensor.shape != (rows, form.shape[1]):
        raise KernelError(f"{what} must be {(rows, form.shape[1])}, got {tuple(tensor.shape)}")
    return _dense(what, tensor, form)


def weights(tensor: Tensor, n: int, form: Form) -> Tensor:
    """Return weights n (B or 1) (C or 1) as kernels read them: n (B or 1) C.

    Raises:
        KernelError: if the shape is wrong.
    """
    B, C = form.shape[:2]
    shape = tensor.shape
    if len(shape) != 3 or shape[0] != n or shape[1] not in (1, B) or shape[2] not in (1, C):
        raise KernelError(f"the weight must be {n} x ({B} or 1) x ({C} or 1), got {tuple(shape)}")
    if shape[2] != C:
        tensor = tensor.expand(n, shape[1], C)
    return _dense("the weight", tensor, form)


def _dense(what: str, tensor: Tensor, form: Form) -> Tensor:
    if tensor.dtype is form.sums and tensor.is_cpu and tensor.is_contiguous():
        return tensor
    if not tensor.is_cpu or not tensor.is_floating_point():
        raise KernelError(f"{what} must be floating-point on cpu, got {tensor.dtype} on {tensor.device}")
    return tensor.to(form.sums).contiguous()


def act_code(act: str) -> int:
    """Return the number of an activation.

    Raises:
        KernelError: if it is unknown.
    """
    if act not in ACTS:
        raise KernelError(f"unknown activation {act!r}: use {', '.join(ACTS)}")
    return ACTS[act]


def some(what: str, maps: Sequence[Tensor]) -> Tensor:
    """Return the first of the maps.

    Raises:
        KernelError: if there is none.
    """
    if not maps:
        raise KernelError(f"there are no {what}")
    return maps[0]
