"""What kernel_speed.py times: several ways to the same tensors, all of them through autograd.

"ours" is what a compiled network runs; "eager" is plain PyTorch, `torch.compile` the same compiled; "stacked"
is how the paper of DelugeNets describes its layers: sources interleaved channel by channel, and a grouped
convolution. Each step goes forward and backward: outcomes, then gradients of all sources and parameters.

Shapes: B images, C channels, H W pixels; layer j of a block of n reads the sources 0..j.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from speed_records import (
    CHAINED,
    COMPILED,
    CONCAT_NORM_ACT,
    EAGER,
    NORM_ACT,
    NORMALIZED,
    OURS,
    PAPER,
    STACKED,
)
from torch import Tensor, nn

from connsearch.nn import fused
from connsearch.nn.aggregations import Depthwise, NormalizedDepthwise
from connsearch.nn.shared import share, weights_of
from connsearch.nn.ways import Stacked

GROWING = (24, *[12] * 15)  # channels that a dense block of 15 layers concatenates

Shape = tuple[int, int, int, int]
Step = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Maps:
    """What maps look like.

    Attributes:
        shape: B C H W.
        dtype: Its name in torch, which parameters have too.
        channels_last: Whether maps have their channels last in memory.
    """

    shape: Shape
    dtype: str = "float32"
    channels_last: bool = False

    def __str__(self) -> str:
        """Return it for people."""
        layout = "channels_last" if self.channels_last else "NCHW"
        return f"({','.join(map(str, self.shape))}) {self.dtype} {layout}"

    def draw(self, *channels: int) -> list[Tensor]:
        """Return a random map for each number of channels, a leaf of autograd."""
        B, _, H, W = self.shape
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        dtype = getattr(torch, self.dtype)
        drawn = [torch.randn(B, C, H, W).to(dtype, memory_format=form) for C in channels]
        return [h.requires_grad_() for h in drawn]

    def randomised(self, module: nn.Module) -> nn.Module:
        """Return a module with random parameters."""
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        return module.to(getattr(torch, self.dtype))


@dataclass(frozen=True)
class Case:
    """Ways to the same tensors.

    Attributes:
        operation: What is computed.
        maps: What it is computed of.
        n: How many layers or sources.
        ways: By name, eager first.
    """

    operation: str
    maps: Maps
    n: int
    ways: dict[str, Step]

    def __str__(self) -> str:
        """Return it for people."""
        return name(self.operation, self.maps, self.n)

    def settings(self) -> dict[str, Any]:
        """Return what a line of results says of it."""
        return {"operation": self.operation, **vars(self.maps), "n": self.n}


def paper_block(maps: Maps, n: int) -> Case:
    """All weighted sums of a block: x_j = sum_i w_ij h_i + b_j."""
    C = maps.shape[1]
    sources, grads = maps.draw(*[C] * n), maps.draw(*[C] * n)
    layers = [maps.randomised(Depthwise(j + 1, C)) for j in range(n)]
    stacks = [Stacked(layer) for layer in layers]
    inputs = [*sources, *(p for layer in layers for p in layer.parameters())]

    def eager() -> list[Tensor]:
        return [layer(sources[: j + 1]) for j, layer in enumerate(layers)]

    def stacked() -> list[Tensor]:
        return [add(sources[: j + 1]) for j, add in enumerate(stacks)]

    def ours() -> list[Tensor]:
        return weighted(sources, layers)

    ways = {EAGER: eager, STACKED: stacked, COMPILED: compiled(eager), OURS: ours}
    return Case(PAPER, maps, n, {way: differentiated(run, inputs, grads) for way, run in ways.items()})


def chained_block(maps: Maps, n: int) -> Case:
    """A block whose layers follow each other, as in a network: h_(j+1) = ReLU(BN(sum_i w_ij h_i + b_j)).

    No layer can start before the one before it is at its end, whose statistics are those of a batch.
    """
    C = maps.shape[1]
    first, grads = maps.draw(C), maps.draw(C)
    layers = [maps.randomised(Depthwise(j + 1, C)) for j in range(n)]
    norms, act = [maps.randomised(nn.BatchNorm2d(C)) for _ in range(n)], nn.ReLU()
    inputs = [*first, *(p for module in (*layers, *norms) for p in module.parameters())]

    def by(form: Callable[[nn.Module], nn.Module]) -> Step:
        adding = [form(layer) for layer in layers]

        def run() -> list[Tensor]:
            sources = [*first]
            for add, norm in zip(adding, norms, strict=True):
                sources.append(act(norm(add(sources))))
            return sources[-1:]

        return run

    def ours() -> list[Tensor]:
        readers = [weights_of(layer) for layer in layers]
        h_BCHW, shared = first[0], []
        for i, (reader, norm) in enumerate(zip(readers, norms, strict=True)):
            shared.append(share(h_BCHW, readers[i:]))
            h_BCHW = fused.weighted_layer(shared, reader, norm, act)
        return [h_BCHW]

    eager, stacked = by(lambda layer: layer), by(Stacked)
    ways = {EAGER: eager, STACKED: stacked, COMPILED: compiled(eager), OURS: ours}
    return Case(CHAINED, maps, n, {way: differentiated(run, inputs, grads) for way, run in ways.items()})


def normalized_block(maps: Maps, n: int) -> Case:
    """All sums of a block whose sources have a batch norm for each reader: x_j = sum_i BN_ij(h_i)."""
    C = maps.shape[1]
    sources, grads = maps.draw(*[C] * n), maps.draw(*[C] * n)
    layers = [maps.randomised(NormalizedDepthwise(j + 1, C)) for j in range(n)]
    norms = [[_norm_of(layer, i) for i in range(j + 1)] for j, layer in enumerate(layers)]
    of_norms = [getattr(norm, name) for name in ("weight", "bias") for row in norms for norm in row]
    of_layers = [getattr(layer, name) for name in ("weight", "bias") for layer in layers]

    def eager() -> list[Tensor]:
        found = []
        for j, row in enumerate(norms):
            total = row[0](sources[0])
            for norm, h_BCHW in zip(row[1:], sources[1 : j + 1], strict=True):
                total = total + norm(h_BCHW)
            found.append(total)
        return found

    def ours() -> list[Tensor]:
        return weighted(sources, layers)

    loops = {EAGER: eager, COMPILED: compiled(eager)}
    ways = {way: differentiated(run, [*sources, *of_norms], grads) for way, run in loops.items()}
    ways[OURS] = differentiated(ours, [*sources, *of_layers], grads)
    return Case(NORMALIZED, maps, n, ways)


def norm_act(maps: Maps) -> Case:
    """ReLU(BN(x))."""
    C = maps.shape[1]
    sources, grads, norm, act = maps.draw(C), maps.draw(C), maps.randomised(nn.BatchNorm2d(C)), nn.ReLU()

    def eager() -> list[Tensor]:
        return [act(norm(sources[0]))]

    def ours() -> list[Tensor]:
        return [fused.layer(sources[0], norm, act)]

    ways = {EAGER: eager, COMPILED: compiled(eager), OURS: ours}
    inputs = [*sources, norm.weight, norm.bias]
    return Case(NORM_ACT, maps, 1, {way: differentiated(run, inputs, grads) for way, run in ways.items()})


def concat_norm_act(maps: Maps, channels: Sequence[int]) -> Case:
    """ReLU(BN([h_1, ..., h_n])), the C of maps being that of the concatenation.

    The statistics of all sources are computed, as elsewhere; in a network of many readers each is once.
    """
    K = maps.shape[1]
    sources, grads = maps.draw(*channels), maps.draw(K)
    norm, act = maps.randomised(nn.BatchNorm2d(K)), nn.ReLU()

    def eager() -> list[Tensor]:
        return [act(norm(torch.cat(sources, dim=1)))]

    def ours() -> list[Tensor]:
        return [fused.concat_layer(sources, norm, act)]

    ways = {EAGER: eager, COMPILED: compiled(eager), OURS: ours}
    inputs = [*sources, norm.weight, norm.bias]
    steps = {way: differentiated(run, inputs, grads) for way, run in ways.items()}
    return Case(CONCAT_NORM_ACT, maps, len(channels), steps)


def weighted(sources: Sequence[Tensor], layers: Sequence[nn.Module]) -> list[Tensor]:
    """Return the sums of all layers as a compiled network makes them."""
    readers = [weights_of(layer) for layer in layers]
    shared = [share(h, readers[i:], stats=readers[0].normalized) for i, h in enumerate(sources)]
    return [fused.weighted_layer(shared[: j + 1], reader) for j, reader in enumerate(readers)]


def compiled(run: Step) -> Step:
    """Return what `torch.compile` makes of it, when it first runs."""

    @cache
    def made() -> Step:
        return torch.compile(run)

    return lambda: made()()


def differentiated(run: Step, inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> Step:
    """Return what runs forward and backward; it returns outcomes, and gradients of all inputs in a row."""

    def step() -> list[Tensor]:
        found = run()
        pulled = torch.autograd.grad(found, inputs, grads)
        maps = [grad for grad in pulled if grad.dim() == 4]
        flat = torch.cat([grad.flatten() for grad in pulled if grad.dim() < 4])
        return [*(x.detach() for x in found), *maps, flat]

    return step


def _norm_of(layer: NormalizedDepthwise, i: int) -> nn.BatchNorm2d:
    """Return the batch norm that a layer applies to one source, with parameters of its own."""
    norm = nn.BatchNorm2d(layer.weight.shape[1], dtype=layer.weight.dtype)
    norm.weight.data, norm.bias.data = layer.weight[i].detach().clone(), layer.bias[i].detach().clone()
    return norm


def makers(*, quick: bool) -> dict[str, Callable[[], Case]]:
    """Return what makes each case, by its name; a case may need a gigabyte."""
    B, n, m = (16, 6, 8) if quick else (64, 16, 24)
    found: dict[str, Callable[[], Case]] = {}
    for dtype, channels_last in (("float32", False), ("float32", True), ("bfloat16", True)):
        early, late, wide = (
            Maps((B, C, H, H), dtype, channels_last) for C, H in ((128, 16), (256, 8), (64, 32))
        )
        for maps, layers in ((early, n), (late, m)):
            found[name(PAPER, maps, layers)] = partial(paper_block, maps, layers)
            found[name(NORMALIZED, maps, layers)] = partial(normalized_block, maps, layers)
            if dtype == "float32":  # in bfloat16 what rounding does to a chain hides all else
                found[name(CHAINED, maps, layers)] = partial(chained_block, maps, layers)
        for maps in (early, wide):
            found[name(NORM_ACT, maps, 1)] = partial(norm_act, maps)
        grown = Maps((B, sum(GROWING), 32, 32), dtype, channels_last)
        found[name(CONCAT_NORM_ACT, grown, len(GROWING))] = partial(concat_norm_act, grown, GROWING)
    return found


def name(operation: str, maps: Maps, n: int) -> str:
    """Return what a case is called."""
    return f"{operation} {maps} x {n}"
