"""Convolutions with constant weights, compiled for the CPU: float32, channels last, by AVX-512.

Weights are packed beforehand. What `fits` not is for torch to do. See `reference.py` for what is returned.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from connsearch.errors import KernelError
from connsearch.kernels.build import library, notice
from connsearch.kernels.convolve.reference import Before
from connsearch.kernels.maps import act_code

POINTER, INT = ctypes.c_void_p, ctypes.c_int64
ARGUMENTS = {
    "pointwise": (
        POINTER,
        INT,
        POINTER,
        POINTER,
        INT,
        INT,
        INT,
        INT,
        INT,
        POINTER,
        POINTER,
        POINTER,
        INT,
        INT,
    ),
    "winograd": (POINTER, INT, INT, INT, INT, INT, POINTER, POINTER, POINTER, INT, INT),
}
LAST = torch.channels_last
_PLACES = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)


@cache
def why_not() -> str | None:
    """Return why these kernels cannot run on this machine, or why torch is as fast, or None if they can.

    That they cannot be compiled is shown, unless a reason was shown before.
    """
    try:
        panel = library("convolve", "float32").panel()
    except KernelError as error:
        notice(str(error))
        return str(error)
    return None if panel == 32 else "torch's convolutions are as fast on a processor without AVX-512"


def fits(channels: Sequence[int], n_out: int) -> bool:
    """Return whether maps of these channels can be read, and so many channels written."""
    return not any(c % 16 for c in channels) and n_out % 32 == 0 and why_not() is None


def pack(weight_MKN: Tensor) -> Tensor:
    """Return matrices K N as products read them: M (N / 32) K 32."""
    M, K, N = weight_MKN.shape
    return weight_MKN.reshape(M, K, N // 32, 32).transpose(1, 2).float().contiguous()


def pack_pointwise(weight_NK: Tensor) -> Tensor:
    """Return the weights of a 1x1 convolution, packed."""
    return pack(weight_NK.t()[None])


def pack_3x3(weight_NK33: Tensor) -> Tensor:
    """Return the weights of a 3x3 convolution for each of the 16 places of a tile, packed."""
    places = torch.einsum("ai,nkij,bj->abkn", _PLACES, weight_NK33.double(), _PLACES)
    return pack(places.flatten(0, 1))


def pointwise(
    sources: Sequence[Tensor], before: Before | None, packed: Tensor, bias_N: Tensor | None, act: str
) -> Tensor:
    """Return act(w before(sources) + b), B N H W. Reads each source once."""
    B, _, H, W = sources[0].shape
    _, n_panels, K, width = packed.shape
    out = torch.empty((B, n_panels * width, H, W), memory_format=LAST)
    sources = [source.contiguous(memory_format=LAST) for source in sources]
    told = array("q", [number for h in sources for number in (h.data_ptr(), h.shape[1])])
    _function("pointwise")(
        told.buffer_info()[0],
        len(sources),
        _address(before and before.weight),
        _address(before and before.bias),
        before is not None and before.weight.dim() == 2,
        act_code(before.act) if before else 0,
        B * H * W,
        K,
        n_panels * width,
        packed.data_ptr(),
        _address(bias_N),
        out.data_ptr(),
        act_code(act),
        torch.get_num_threads(),
    )
    return out


def conv3x3(x: Tensor, packed: Tensor, bias_N: Tensor | None, act: str) -> Tensor:
    """Return act(w * x + b) with padding 1, B N H W, by Winograd's F(2x2, 3x3)."""
    B, K, H, W = x.shape
    _, n_panels, _, width = packed.shape
    x = x.contiguous(memory_format=LAST)
    out = torch.empty((B, n_panels * width, H, W), memory_format=LAST)
    addresses = packed.data_ptr(), _address(bias_N), out.data_ptr()
    _function("winograd")(
        x.data_ptr(), B, H, W, K, n_panels * width, *addresses, act_code(act), torch.get_num_threads()
    )
    return out


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def _function(name: str) -> ctypes._NamedFuncPointer:
    found: ctypes._NamedFuncPointer = getattr(library("convolve", "float32"), name)
    found.argtypes, found.restype = ARGUMENTS[name], None
    return found
