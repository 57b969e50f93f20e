"""Kernels as operators of torch: what `torch.compile`, `torch.export`, and modes that watch operations see.

Called in eager mode, a kernel runs at once. Where torch looks on, or a gradient may be asked for, the call
goes through an operator `torch.ops.connsearch.<name>` with the arguments of the reference, of which torch
knows what comes out (a fake implementation). Gradients are in `gradients.py`, counts of operations in
`flops.py`.

An operator writes none of its arguments: where a kernel adds to maps in place, the operator gives out what
is to be added, as its last outcome. (Inductor of torch 2.13 takes two maps of zeros, in one list of
arguments that are written, for the same.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op, infer_schema
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from connsearch.kernels.fakes import new_map
from connsearch.kernels.flops import register

NAMESPACE = "connsearch"
PLAIN = (Tensor, torch.nn.Parameter)

OPERATORS: dict[str, Operator] = {}
"""By name; `dispatch.dispatched` makes them."""


class Operator:
    """The operator of a kernel.

    Args:
        reference: Gives name and arguments.
        run: Does it.
        fake: Returns tensors like those that `run` returns, empty.
        written: The argument that `run` adds to in place: a map or maps.
    """

    def __init__(
        self,
        reference: Callable[..., Any],
        run: Callable[..., Any],
        fake: Callable[..., Any],
        written: str | None,
    ) -> None:
        self._signature = signature(reference)
        self._run, self._fake = run, fake
        self._written = None if written is None else list(self._signature.parameters).index(written)
        self.definition = custom_op(
            f"{NAMESPACE}::{reference.__name__}",
            self._body,
            mutates_args=(),
            schema=_schema(reference, written),
        )
        self.definition.register_fake(self._promised)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the kernel does."""
        register()
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        found = self.definition(*bound.args)
        if self._written is None:
            return found
        *found, shares = found if isinstance(found, tuple) else (found,)
        for written, share in zip(tensors(bound.args[self._written]), tensors(shares), strict=True):
            written.add_(share)
        return tuple(found) or None

    def _body(self, *args: Any) -> Any:
        if self._written is None:
            return _apart(_laid(self._run(*args), self._fake, args), args)
        at, written = self._written, args[self._written]
        shares = [new_map(x).zero_() for x in tensors(written)]
        share = shares[0] if isinstance(written, Tensor) else shares
        found = self._run(*args[:at], share, *args[at + 1 :])
        return share if found is None else (*_apart(found, args), share)

    def _promised(self, *args: Any) -> Any:
        found = self._fake(*args)
        if self._written is None:
            return found
        written = args[self._written]
        if isinstance(written, Tensor):
            return new_map(written)
        return (*found, [new_map(x) for x in written])


def _schema(reference: Callable[..., Any], written: str | None) -> str:
    """Return the arguments of a reference, none with a default, and its outcomes with what is to be added."""
    schema = infer_schema(reference, mutates_args=()).replace("=None", "")
    if written is None:
        return schema
    arguments, outcomes = schema.split(" -> ")
    kind = "Tensor" if f"Tensor {written}" in arguments else "Tensor[]"
    found = [*filter(None, outcomes.strip("()").split(", ")), kind]
    return f"{arguments} -> {kind if len(found) == 1 else '(' + ', '.join(found) + ')'}"


def is_watched(like: Tensor, args: Sequence[Any]) -> bool:
    """Return whether a call has to go through the operator: torch looks on, or wants gradients."""
    if is_in_torch_dispatch_mode() or type(like) not in PLAIN:
        return True
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors(args))


def tensors(args: Any) -> Iterator[Tensor]:
    """Return all tensors among arguments or outcomes."""
    for arg in args if isinstance(args, tuple | list) else (args,):
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, tuple | list):
            yield from tensors(arg)


def _is_odd(x: Tensor) -> bool:
    return x.dim() == 4 and not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))


def _laid(found: Any, fake: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Return the outcome laid out as promised: of maps with odd strides, backends make different ones."""
    if found is None or not any(map(_is_odd, tensors(args))):
        return found
    promised = list(tensors(fake(*args)))
    laid = [
        have if have.stride() == like.stride() else like.copy_(have)
        for have, like in zip(tensors(found), promised, strict=True)
    ]
    return tuple(laid) if isinstance(found, tuple) else laid[0]


def _apart(found: Any, args: Sequence[Any]) -> Any:
    """Return the outcome with no memory in common among its tensors or with the arguments."""
    seen = {t.untyped_storage().data_ptr() for t in tensors(args)}
    own = []
    for t in tensors(found) if found is not None else ():
        memory = t.untyped_storage().data_ptr()
        own.append(t.clone() if memory in seen else t)
        seen.add(memory)
    if found is None:
        return None
    return tuple(own) if isinstance(found, tuple) else own[0]
