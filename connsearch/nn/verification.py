"""What a comparison of a compiled network with its definition has found, and whether that is right."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from operator import le
from typing import Any, NamedTuple

import torch

from connsearch.errors import SpecError, VerifyError, did_you_mean
from connsearch.text import table

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GRADIENTS = 1e-4  # of gradients at the least: what long sums, and norms over few pixels, make of rounding
FEW = 8  # units of rounding that the definition may be right to by chance
SLACK = 4.0  # how much further from the truth than the definition the compiled network may be
WHAT = ("values", "gradients", "statistics", "inference")


class Errors(NamedTuple):
    """Greatest relative errors of a tensor's values, in the norm |a - b| / |b|, by what is compared.

    Attributes:
        values: Of the logits of all heads, in training.
        gradients: Of the images' and all parameters' gradients.
        statistics: Of running statistics.
        inference: Of the logits in evaluation, without gradients.
    """

    values: float
    gradients: float
    statistics: float
    inference: float


class Verification(NamedTuple):
    """What was compared and how far apart it is.

    Attributes:
        name: The network.
        way: The pipeline that it was compiled by, or another of `connsearch.nn.ways.WAYS`.
        device: Where it ran.
        dtype: Its working precision.
        channels_last: Whether images and convolutions had their channels last in memory.
        exact: The compiled network against the definition, both in float64.
        allowed: What of that is rounding, at the most.
        ours: The compiled network in its working precision against the definition in float64.
        definition: The definition in its working precision against itself in float64; where it hangs on
            single roundings, the most of several runs.
        excess: How many times as far off the compiled network is as that explains, at the most of all
            tensors; up to 1 is right.
    """

    name: str
    way: str
    device: str
    dtype: torch.dtype
    channels_last: bool
    exact: Errors
    allowed: Errors
    ours: Errors
    definition: Errors
    excess: Errors

    @property
    def right(self) -> bool:
        """Whether the compiled network computes what the definition does."""
        return not self.too_far and all(map(le, self.exact, self.allowed))

    def raise_if_wrong(self) -> None:
        """Raise unless the compiled network computes what the definition does.

        Raises:
            VerifyError: naming what is wrong and by how much.
        """
        for what in WHAT:
            exact, allowed = getattr(self.exact, what), getattr(self.allowed, what)
            if not exact <= allowed:
                raise VerifyError(
                    f"{self.name}: {what} of {self.way!r} are off by {exact:.1e} in float64, "
                    f"more than {allowed:.0e}"
                )
            if what not in self.too_far:
                continue
            ours, definition = getattr(self.ours, what), getattr(self.definition, what)
            if definition == inf:
                raise VerifyError(
                    f"{self.name}: {what} of the definition are not finite in {dtype_name(self.dtype)}, "
                    f"so that those of {self.way!r} cannot be verified: take another dtype"
                )
            raise VerifyError(
                f"{self.name}: {what} of {self.way!r} are off by {ours:.1e} in {dtype_name(self.dtype)}, "
                f"those of the definition by {definition:.1e}; of one tensor, "
                f"{getattr(self.excess, what):.1f} times what that of the definition explains"
            )

    @property
    def too_far(self) -> tuple[str, ...]:
        """What is further from the truth in the working precision than the definition's error explains."""
        return tuple(what for what, excess in zip(WHAT, self.excess, strict=True) if not excess <= 1)

    def as_json(self) -> dict[str, Any]:
        """Return a record of plain values; all errors are relative."""
        own = dtype_name(self.dtype)
        errors = {"float64": self.exact, "float64_allowed": self.allowed, own: self.ours}
        return {
            "name": self.name,
            "way": self.way,
            "device": self.device,
            "dtype": own,
            "channels_last": self.channels_last,
            "right": self.right,
            "relative_error": {
                name: found._asdict()
                for name, found in (errors | {f"{own}_definition": self.definition}).items()
            },
        }


def excess_of(what: str, ours: Sequence[float], definition: Sequence[float], dtype: torch.dtype) -> float:
    """Return how many times as far off tensors are as the definition's errors explain, at the most.

    A definition that overflows explains nothing.

    Args:
        what: One of `WHAT`.
        ours: Of each tensor, the relative error of the compiled network in a precision.
        definition: Of each tensor, that of the definition in that precision.
        dtype: The precision.
    """
    few = FEW * torch.finfo(dtype).eps
    floor = max(GRADIENTS, few) if what == "gradients" else few
    explained = [SLACK * error + floor if error < inf else 0.0 for error in definition]
    ratios = [error / most if most else inf for error, most in zip(ours, explained, strict=True)]
    return max((ratio if ratio == ratio else inf for ratio in ratios), default=0.0)


def working_dtype(name: str) -> torch.dtype:
    """Return a working precision by its name.

    Raises:
        SpecError: if there is no such precision.
    """
    if name not in DTYPES:
        raise SpecError(f"unknown dtype {name!r}. {did_you_mean(name, DTYPES)}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """Return a type's name.

    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def verification_table(found: Sequence[Verification]) -> str:
    """Return a line for each way and what is compared: relative errors, the definition's own beside."""
    rows = [
        [v.way, what, f"{exact:.1e}", dtype_name(v.dtype), f"{ours:.1e}", f"{definition:.1e}"]
        for v in found
        for what, exact, ours, definition in zip(WHAT, v.exact, v.ours, v.definition, strict=True)
    ]
    return table(["way", "what", "float64", "dtype", "in dtype", "definition"], rows, left=("way", "what"))
