"""Inputs of kernels, and how near to the truth an outcome must be. Shared by the tests of all backends.

    call = Call("pull", "channel-extra", shape=(2, 5, 7, 9), n=3, dtype=torch.bfloat16, layout="slice")
    check(call)                    # on the CPU
    check(call, device="cuda")

A call names a kernel, one of its `VARIANTS`, and what its maps look like. `check`
runs it by whatever backend is chosen or forced and compares it with the reference on doubles: values,
dtypes, shapes, layouts, and what was added in place.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import torch.utils.deterministic
from guards import guarded
from torch import Tensor

Shape = tuple[int, int, int, int]

SHAPES: list[Shape] = [
    (1, 1, 1, 1),
    (2, 5, 7, 9),
    (3, 16, 8, 8),
    (1, 3, 16, 16),
    (2, 2, 17, 31),
    (4, 33, 3, 5),
    (7, 130, 1, 1),
    (3, 1, 6, 11),
]
ODD: Shape = (3, 19, 5, 7)
COUNTS = [1, 2, 3, 5, 8, 40]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
DENSE = ["nchw", "channels_last"]
LAYOUTS = [*DENSE, "slice", "slice_last", "transposed", "expanded", "pixel", "unaligned", "mixed"]


def name_of(value: Any) -> str:
    """Return a readable id of a shape, a dtype or anything that is written shortly."""
    if isinstance(value, tuple):
        B, C, H, W = value
        return f"B{B}-C{C}-{H}x{W}"
    return str(value).removeprefix("torch.")


def random(shape: Sequence[int], seed: int) -> Tensor:
    """Return standard normal doubles, the same ones for a seed on any machine."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def laid_out(values: Tensor, layout: str) -> Tensor:
    """Return the values B C H W with other strides (of "expanded" and "pixel": some of the values).

    slice: channels out of the middle of a wider NCHW map; slice_last: of a wider channels_last map;
    transposed: H and W swapped; expanded: one image for all; pixel: one value for all pixels, as the
    gradient of a mean; unaligned: NCHW, starting one value after an address that vectors like.
    """
    B, C, H, W = values.shape
    if layout == "nchw":
        return values.contiguous()
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout in ("slice", "slice_last"):
        dense = torch.contiguous_format if layout == "slice" else torch.channels_last
        wide = torch.full((B, C + 5, H, W), 1e4, dtype=values.dtype, device=values.device)
        wide = wide.contiguous(memory_format=dense)
        wide[:, 2 : 2 + C] = values
        return wide[:, 2 : 2 + C]
    if layout == "transposed":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "expanded":
        return values[:1].contiguous().expand(B, C, H, W)
    if layout == "pixel":
        return values[:, :, :1, :1].contiguous().expand(B, C, H, W)
    if layout == "unaligned":
        return torch.cat([values.flatten()[:1], values.flatten()])[1:].view(B, C, H, W)
    raise ValueError(f"unknown layout {layout!r}: use {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class Call:
    """One call of a kernel.

    Attributes:
        function: Its name.
        variant: One of `VARIANTS[function]`.
        shape: B C H W of each map; maps of `concat_norm_act` and its gradient differ in C.
        n: Sources or readers, where there are several.
        layout: One of `LAYOUTS`; "mixed" gives each map another one, the first NCHW.
        params: The dtype of weights and statistics; None: that in which the maps' sums are.
        mean, spread: Of the values in maps.
    """

    function: str
    variant: str
    shape: Shape = ODD
    n: int = 3
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"
    params: torch.dtype | None = None
    mean: float = 0.0
    spread: float = 1.0
    _count: list[int] = field(default_factory=list, compare=False, repr=False)

    def __str__(self) -> str:
        parts = [
            self.function,
            self.variant,
            name_of(self.shape),
            f"n{self.n}",
            name_of(self.dtype),
            self.layout,
        ]
        return "-".join(parts)

    def args(self, device: str = "cpu") -> list[Any]:
        """Return the arguments, always the same values."""
        self._count.clear()
        args = VARIANTS[self.function][self.variant](self)
        return apply(args, lambda t: _moved(t, device))

    def _seed(self) -> int:
        self._count.append(1)
        return zlib.crc32(str(self).encode()) % 10_000 * 1000 + len(self._count)

    @property
    def exact_params(self) -> torch.dtype:
        """The dtype of weights and statistics."""
        return self.params or (torch.float64 if self.dtype == torch.float64 else torch.float32)

    def map(self, channels: int | None = None, *, mean: float = 0.0, spread: float = 1.0) -> Tensor:
        """Return a new map, B C H W or of so many channels."""
        B, C, H, W = self.shape
        seed = self._seed()
        values = mean + spread * random((B, channels or C, H, W), seed)
        choices = ["nchw", *(x for x in LAYOUTS if x not in ("nchw", "mixed"))]
        layout = choices[(len(self._count) - 1) % len(choices)] if self.layout == "mixed" else self.layout
        return laid_out(values.to(self.dtype), layout)

    def source(self, channels: int | None = None) -> Tensor:
        """Return a map of the asked mean and spread."""
        return self.map(channels, mean=self.mean, spread=self.spread)

    def sources(self) -> list[Tensor]:
        """Return n maps."""
        return [self.source() for _ in range(self.n)]

    def writable(self, channels: int | None = None) -> Tensor:
        """Return a map with a place of its own for each value."""
        return own_places(self.map(channels))

    def vector(self, *shape: int, positive: bool = False) -> Tensor:
        """Return parameters."""
        values = random(shape, self._seed())
        return (values.abs() + 0.2 if positive else values).to(self.exact_params)

    def stats(self, sources: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean and 1 / sqrt(var + eps) of the channels of all sources together."""
        x = torch.cat([h.double() for h in sources], dim=1)
        var_K, mean_K = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        return mean_K.to(self.exact_params), (var_K + 1e-5).rsqrt().to(self.exact_params)

    def widths(self) -> list[int]:
        """Return the channels of n sources that need not have as many."""
        C = self.shape[1]
        return [max(1, C - 3 * (i % 4)) for i in range(self.n)]


def _moved(tensor: Tensor, device: str) -> Tensor:
    """Return the tensor on a device, its strides kept, whatever they are."""
    if device == "cpu":
        return tensor
    storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage()).to(device)
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def apply(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return arguments with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    return [apply(v, change) for v in value] if isinstance(value, (list, tuple)) else value


def _weighted_sum(call: Call, per: str, bias: bool) -> list[Any]:
    C = call.shape[1]
    return [call.sources(), _weight(call, per), call.vector(C) if bias else None]


def _weight(call: Call, per: str) -> Tensor:
    B, C = call.shape[:2]
    sizes = {"source": (1, 1), "channel": (1, C), "image": (B, 1), "both": (B, C)}
    return call.vector(call.n, *sizes[per]) / call.n**0.5


def _weighted_sum_norm_act(call: Call, per: str, bias: bool, act: str) -> list[Any]:
    C = call.shape[1]
    return [*_weighted_sum(call, per, bias), call.vector(C), call.vector(C), 1e-5, act]


def _begin_sums(call: Call, n_sums: int) -> list[Any]:
    weight_KLC = call.vector(n_sums, call.n, call.shape[1]) / call.n**0.5
    return [call.sources(), weight_KLC, [call.writable() for _ in range(n_sums)]]


def _finish_sum(call: Call, n_sources: int) -> list[Any]:
    C = call.shape[1]
    sources, begun = [call.source() for _ in range(n_sources)], own_places(call.source())
    weight_LC = call.vector(n_sources, C) / (n_sources + 1) ** 0.5
    return [begun, sources, weight_LC, call.vector(C) if n_sources else None]


def _finish_sum_norm_act(call: Call, n_sources: int, act: str) -> list[Any]:
    C = call.shape[1]
    return [*_finish_sum(call, n_sources), call.vector(C), call.vector(C), 1e-5, act]


def _pull(call: Call, per: str, extra: bool) -> list[Any]:
    grads = [call.map() for _ in range(call.n)]
    return [grads, _weight(call, per), call.source(), call.map() if extra else None]


def _pull_normalized(call: Call, extra: bool) -> list[Any]:
    grads, source = [call.map() for _ in range(call.n)], call.source()
    weight_RC = call.vector(call.n, call.shape[1]) / call.n**0.5
    return [grads, weight_RC, source, *call.stats([source]), call.map() if extra else None]


def _norm_act(call: Call, act: str) -> list[Any]:
    C = call.shape[1]
    return [call.source(), call.vector(C), call.vector(C), act]


def _norm_act_train(call: Call, act: str) -> list[Any]:
    C = call.shape[1]
    return [call.source(), call.vector(C), call.vector(C), 1e-5, act]


def _norm_act_backward(call: Call, act: str) -> list[Any]:
    x, C = call.source(), call.shape[1]
    grad = call.map()
    mean, rstd, weight, bias = *call.stats([x]), call.vector(C), call.vector(C)
    return [without_kink(grad, [x], mean, rstd, weight, bias), x, mean, rstd, weight, bias, act]


def without_kink(grad: Tensor, sources: Sequence[Tensor], *params: Tensor) -> Tensor:
    """Return the gradient with zeros where ReLU's argument is so near 0 that rounding decides its sign."""
    mean, rstd, weight, bias = (t.double()[:, None, None] for t in params)
    z = (torch.cat([h.double() for h in sources], dim=1) - mean) * rstd * weight + bias
    if not (z.abs() < 1e-3).any():
        return grad
    return own_places(grad).masked_fill_(z.abs() < 1e-3, 0)


def own_places(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy if several of its values share a place in memory."""
    shared = any(n > 1 and s == 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.contiguous() if shared else tensor


def _concat(call: Call, act: str) -> list[Any]:
    sources = [call.source(width) for width in call.widths()]
    K = sum(call.widths())
    return [sources, call.vector(K), call.vector(K), act]


def _concat_backward(call: Call, act: str) -> list[Any]:
    sources = [call.source(width) for width in call.widths()]
    K = sum(call.widths())
    mean, rstd, weight, bias = *call.stats(sources), call.vector(K), call.vector(K)
    grad = without_kink(call.map(K), sources, mean, rstd, weight, bias)
    sinks = [call.writable(width) for width in call.widths()]
    return [grad, sources, mean, rstd, weight, bias, act, sinks]


def _add_affine(call: Call) -> list[Any]:
    C = call.shape[1]
    return [call.writable(), call.source(), call.vector(C), call.vector(C)]


Maker = Callable[[Call], list[Any]]
_PER, _ACTS = ("source", "channel", "image", "both"), ("none", "relu")

VARIANTS: dict[str, dict[str, Maker]] = {
    "weighted_sum": {
        f"{per}{'-bias' if bias else ''}": lambda call, p=per, b=bias: _weighted_sum(call, p, b)
        for per in _PER
        for bias in (False, True)
    },
    "weighted_sum_norm_act": {
        f"{per}{'-bias' if bias else ''}-{act}": (
            lambda call, p=per, b=bias, a=act: _weighted_sum_norm_act(call, p, b, a)
        )
        for per, bias, act in [("channel", True, "relu"), ("source", False, "none"), ("both", True, "relu")]
    },
    "begin_sums": {f"{k}-sums": lambda call, k=k: _begin_sums(call, k) for k in (1, 2, 3, 4, 6)},
    "finish_sum": {
        "nothing": lambda call: _finish_sum(call, 0),
        "bias": lambda call: _finish_sum(call, call.n),
    },
    "finish_sum_norm_act": {
        "nothing-none": lambda call: _finish_sum_norm_act(call, 0, "none"),
        "bias-relu": lambda call: _finish_sum_norm_act(call, call.n, "relu"),
    },
    "pull": {
        f"{per}{'-extra' if extra else ''}": lambda call, p=per, e=extra: _pull(call, p, e)
        for per in _PER
        for extra in (False, True)
    },
    "pull_normalized": {
        "extra" if extra else "plain": lambda call, e=extra: _pull_normalized(call, e)
        for extra in (False, True)
    },
    "batch_stats": {"plain": lambda call: [call.source()]},
    "norm_act": {act: lambda call, a=act: _norm_act(call, a) for act in _ACTS},
    "norm_act_train": {act: lambda call, a=act: _norm_act_train(call, a) for act in _ACTS},
    "norm_act_backward": {act: lambda call, a=act: _norm_act_backward(call, a) for act in _ACTS},
    "concat_norm_act": {act: lambda call, a=act: _concat(call, a) for act in _ACTS},
    "concat_norm_act_backward": {act: lambda call, a=act: _concat_backward(call, a) for act in _ACTS},
    "add_affine": {"plain": _add_affine},
}
IN_PLACE = {  # the argument that is added to, or written
    "concat_norm_act_backward": 7,
    "add_affine": 0,
    "begin_sums": 2,
    "finish_sum": 0,
    "finish_sum_norm_act": 0,
}
RSTD = {"norm_act_backward": 3, "pull_normalized": 4}  # the argument that large terms are multiples of
MANY = ("weighted", "begin", "finish", "pull", "concat")
SEVERAL = [name for name in VARIANTS if name.startswith(MANY)]  # n maps


def calls(functions: Sequence[str] | None = None, **looks: Any) -> list[Call]:
    """Return a call of each variant of functions (default: all), all with those looks."""
    return [Call(f, v, **looks) for f in functions or VARIANTS for v in VARIANTS[f]]


PACKAGES = ("weighted_sum", "sums_ahead", "norm_act", "concat_norm_act")


def package_of(function: str) -> str:
    """Return the name of the package that defines a function."""
    for package in PACKAGES:
        module = import_module(f"connsearch.kernels.{package}.reference")
        if getattr(module, function, None) and getattr(module, function).__module__ == module.__name__:
            return package
    raise ValueError(f"no reference of {function!r}")


def reference(function: str) -> Callable[..., Any]:
    """Return a function's definition in plain PyTorch."""
    found: Callable[..., Any] = getattr(
        import_module(f"connsearch.kernels.{package_of(function)}.reference"), function
    )
    return found


def kernel(function: str) -> Callable[..., Any]:
    """Return a function as callers know it: by whatever backend is chosen or forced."""
    found: Callable[..., Any] = getattr(import_module(f"connsearch.kernels.{package_of(function)}"), function)
    return found


def outcome(function: str, run: Callable[..., Any], args: list[Any]) -> list[Tensor]:
    """Return what a function returns, and after that what it added to in place."""
    if function in IN_PLACE:
        target = args[IN_PLACE[function]]
        copies = apply(target, _same_strides)
        args = [copies if arg is target else arg for arg in args]
    returned = run(*args)
    found = list(returned) if isinstance(returned, tuple) else [] if returned is None else [returned]
    if function in IN_PLACE:
        found += copies if isinstance(copies, list) else [copies]
    return found


def _same_strides(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor together with the storage that it is a view of."""
    if tensor.dtype == torch.float64 and tensor.is_contiguous():
        return tensor.clone()
    storage = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage()).clone()
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def exact(call: Call, args: list[Any], found: list[Tensor]) -> list[Tensor]:
    """Return the outcome of the reference on doubles.

    What is normalised after a sum is the sum as it was returned, rounded to its dtype, as that is what the
    gradient sees.
    """
    doubles = apply(args, lambda t: t.double().contiguous())
    truth = outcome(call.function, reference(call.function), doubles)
    if call.function == "weighted_sum_norm_act":
        truth[1:] = reference("norm_act_train")(found[0].double(), *doubles[3:])
    if call.function == "finish_sum_norm_act":
        truth[:3] = reference("norm_act_train")(found[3].double(), *doubles[4:])
    return truth


def maps_of(args: list[Any]) -> list[Tensor]:
    """Return the maps among arguments, in order."""
    found: list[Tensor] = []
    apply(args, lambda t: found.append(t) or t if t.dim() == 4 else t)
    return found


def check(call: Call, device: str = "cpu", spoilt: tuple[int, float] | None = None) -> None:
    """Run a call and compare with the truth; fresh memory is NaN meanwhile, and has edges.

    Args:
        spoilt: A map, by its place among those of the arguments, and what one of its values is made.

    Raises:
        AssertionError: if a value, a dtype, a shape or a layout is not as it must be.
    """
    args = call.args(device)
    if spoilt is not None:
        maps_of(args)[spoilt[0]][-1, -1, 0, -1] = spoilt[1]
    expected = outcome(call.function, reference(call.function), args)
    with poisoned(), guarded():
        found = outcome(call.function, kernel(call.function), args)
    truth = exact(call, args, found)
    assert len(found) == len(truth)
    for i, (fast, model, true) in enumerate(zip(found, expected, truth, strict=True)):
        assert fast.dtype == model.dtype, f"{call}: output {i} is {fast.dtype}, must be {model.dtype}"
        assert fast.shape == model.shape, f"{call}: output {i} is {fast.shape}, must be {model.shape}"
        big, terms = (
            call.mean / call.spread,
            float(args[RSTD[call.function]].max()) if call.function in RSTD else 0,
        )
        assert_near(fast, true, f"{call}: output {i}", big=big, terms=terms)
        if call.layout in DENSE and fast.dim() == 4 and call.shape[1] > 1:  # one channel has any layout
            form = torch.channels_last if call.layout == "channels_last" else torch.contiguous_format
            assert fast.is_contiguous(memory_format=form), f"{call}: output {i} is not {call.layout}"


def assert_near(fast: Tensor, true: Tensor, what: str, big: float = 0.0, terms: float = 0.0) -> None:
    """Compare with the truth: one rounding to the outcome's dtype, sums in float32 (float64 of doubles).

    Args:
        big: How much larger than their spread the values were: what differences of them may lose.
        terms: How large terms were that may cancel out.
    """
    accumulated = 2e-14 if fast.dtype == torch.float64 else 4e-6
    finite = true.isfinite()
    assert torch.equal(fast.isfinite(), finite), f"{what} is not finite elsewhere than the truth"
    if true.dim() == 4:  # sums of what is not finite may be NaN or infinite
        torch.testing.assert_close(fast[~finite].double(), true[~finite], equal_nan=True)
    scale = float(true[finite].abs().max()) if finite.any() else 0.0
    torch.testing.assert_close(
        fast[finite].double(),
        true[finite],
        rtol=max(torch.finfo(fast.dtype).eps, accumulated),
        atol=accumulated * (1 + abs(big) / 30) * max(scale, terms, 0.5),
        msg=lambda text: f"{what}: {text}",
    )


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill what `torch.empty` gives with NaN: a value that a kernel forgets to write shows."""
    fill, deterministic = torch.utils.deterministic, torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    before, fill.fill_uninitialized_memory = fill.fill_uninitialized_memory, True
    try:
        yield
    finally:
        fill.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(deterministic)
