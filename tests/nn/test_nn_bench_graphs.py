"""CUDA graphs as a way to run a network: how they are captured, and timed only if a replay is right."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pairs import small
from torch import Tensor, nn

from connsearch.errors import SpecError, VerifyError
from connsearch.nn import Network, ways
from connsearch.nn.bench import bench_network
from connsearch.nn.timed import verify_ways
from connsearch.nn.verify import randomise
from connsearch.nn.ways import MODES, check_ways, own_module, steps_of

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


SPEC = small()


class FakeGraphs:
    """`torch.cuda` as far as captures need it: what is captured gives numbers only when it is replayed.

    Args:
        factor: What a replay multiplies gradients by, and in evaluation logits.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, factor: float = 1.0) -> None:
        self.log: list[str] = []
        self.factor, self.run = factor, ways._pass
        self.graph: Any = None  # what is being captured
        monkeypatch.setattr(ways, "_pass", self.logged)
        stream = SimpleNamespace(wait_stream=lambda other: self.log.append("wait"))
        for name in ("device", "graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, self.within(name))
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)

    def within(self, name: str) -> object:
        @contextmanager
        def entered(of: Any) -> Iterator[None]:
            self.log.append(name)
            self.graph = of if name == "graph" else None
            yield
            self.graph = None
            self.log.append(f"end {name}")

        return entered

    def logged(self, module: nn.Module, images: Tensor, *, train: bool) -> Tensor:
        self.log.append("run" if not gradients(module) else "run on gradients")
        logits = self.run(module, images, train=train)
        if self.graph is None:
            return logits
        written = (logits, *gradients(module))

        def replay() -> None:
            self.log.append("replay")
            module.zero_grad(set_to_none=True)
            anew = (self.run(module, images, train=train), *gradients(module))
            for number, (there, new) in enumerate(zip(written, anew, strict=True)):
                there.copy_(new if train and not number else self.factor * new)
            for parameter, there in zip(trained(module), written[1:], strict=True):
                parameter.grad = there

        for tensor in written:
            tensor.fill_(nan)
        self.graph.replay = replay
        return logits


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.grad is not None]


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in trained(module) if parameter.grad is not None]


def test_a_graph_is_captured_after_steps_on_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGraphs(monkeypatch)
    made = steps_of("cuda graph", Network(SPEC), torch.randn(2, 3, 8, 8))
    warm = ["wait", "stream", "run", "run", "run", "end stream", "wait"]
    assert fake.log == ["device", *warm, "graph", "run", "end graph", "end device"]
    fake.log.clear()
    made.step()
    assert fake.log == ["replay"]
    fake.log.clear()
    made.allocate()
    assert fake.log == ["device", "graph", "run", "end graph", "end device"]


@pytest.mark.parametrize("mode", MODES)
def test_a_graph_is_timed_if_a_replay_of_it_is_right(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(ways, "_check_graph", lambda *_, **__: None)
    fake = FakeGraphs(monkeypatch)
    settings = {"modes": [mode], "batch": 3, "repeats": 1}
    assert len(bench_network(SPEC, ["fused", "cuda graph"], **settings)) == 2
    fake.factor = 1.01
    what = {"train": "gradients", "inference": "inference"}[mode]
    with pytest.raises(
        VerifyError, match=rf"^small: {what} of 'cuda graph' at a batch of 3 are off by 1\.0e-02 in float32"
    ):
        bench_network(SPEC, ["fused", "cuda graph"], **settings)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_verify_replays_a_graph(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    monkeypatch.setattr(ways, "_check_graph", lambda *_, **__: None)
    FakeGraphs(monkeypatch, factor)
    plain, graph = verify_ways(SPEC, ["fused", "cuda graph"])
    assert plain.right
    assert graph.too_far == (() if factor == 1 else ("gradients", "inference"))


def test_a_graph_cannot_decide_at_random_which_sources_to_drop() -> None:
    spec = small("sum", drop="stochastic_depth(survival=0.5)")
    with pytest.raises(SpecError, match="would repeat what training of small decides at random"):
        check_ways(["cuda graph"], spec, "cuda", train=True)
    check_ways(["cuda graph"], spec, "cuda", train=False)
    check_ways(["cuda graph"], small("sum"), "cuda", train=True)


@pytest.mark.gpu
@needs_gpu
def test_a_graph_makes_the_gradients_of_a_step() -> None:
    torch.manual_seed(0)
    defined = Network(SPEC).cuda()
    randomise(defined)
    images = torch.randn(4, 3, 8, 8, device="cuda")
    graphed = copy.deepcopy(defined)
    made = steps_of("cuda graph", graphed, images)
    images.copy_(torch.randn_like(images))  # what a replay reads now
    made.step()
    plain = own_module("fused", defined)
    assert plain is not None
    plain(images).float().square().mean().backward()
    for a, b in zip(graphed.parameters(), defined.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ways_on_a_gpu(dtype: str) -> None:
    names = ("definition", "stacked", "fused", "cuda graph")
    found = bench_network(
        SPEC, names, modes=MODES, batch=4, repeats=2, device="cuda", dtype=dtype, channels_last=True
    )
    assert [(m.way, m.mode) for m in found] == [(way, mode) for way in names for mode in MODES]
    assert all(m.peak_bytes > 0 for m in found)
