"""Measurements of ways to run a network: verified first, interleaved, beside what the model says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError, VerifyError
from connsearch.ir import bytes_moved, least_saved, lower, optimize, saved_elements
from connsearch.nn import Network, bench, verify, ways
from connsearch.nn.bench import MODES, Measurement, bench_network, bench_table, modelled
from connsearch.nn.verify import randomise
from connsearch.nn.ways import WAYS, check_ways, own_module, steps_of, verifies
from connsearch.spec import NetworkSpec

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
OWN = ("definition", "stacked", "none", "default", "fused")


def network(aggregation: str = "depthwise", **more: object) -> NetworkSpec:
    return NetworkSpec(
        name="small",
        input={"channels": 3, "height": 8, "width": 8},
        n_classes=5,
        blocks=[{"topology": "dense", "aggregation": aggregation, "n_layers": 2, "width": 4}],
        **more,
    )


SPEC = network()


@pytest.mark.large
def test_a_measurement_for_each_way_and_mode() -> None:
    found = bench_network(SPEC, OWN, modes=MODES, batch=3, repeats=3)
    assert [(m.way, m.mode) for m in found] == [(way, mode) for way in OWN for mode in MODES]
    for m in found:
        assert 0 < m.low_s <= m.step_s <= m.high_s
        assert m.first_s > 0
        assert m.peak_bytes > 3 * 4 * 64 * 4  # a map of the batch


@pytest.mark.slow
def test_the_fused_pipeline_keeps_what_it_says() -> None:
    """In training the peak is little more than what is kept and the gradients of parameters."""
    deep = SPEC.replaced(blocks=[SPEC.blocks[0].model_copy(update={"n_layers": 8, "width": 16})])
    found = {m.way: m for m in bench_network(deep, ("none", "fused"), batch=32, repeats=1, verify=False)}
    params = 4 * network_cost(deep).params
    for m in found.values():
        assert m.saved_bytes is not None
        assert m.saved_bytes < m.peak_bytes < 1.5 * m.saved_bytes + params
    assert found["fused"].peak_bytes < found["none"].peak_bytes


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_what_the_model_says_is_in_bytes_of_the_batch(dtype: str, size: int) -> None:
    (m,) = bench_network(SPEC, ["fused"], batch=3, repeats=1, dtype=dtype)
    program = optimize(lower(SPEC), "fused")
    assert m.bytes_moved == bytes_moved(program, batch=3, bytes_per_element=size)
    assert m.saved_bytes == 3 * size * saved_elements(program)
    assert m.least_saved_bytes == 3 * size * least_saved(lower(SPEC))
    assert m.least_bytes_moved < m.bytes_moved


@pytest.mark.parametrize("mode", MODES)
def test_the_model_of_each_way(mode: str) -> None:
    found = {way: modelled(SPEC, way, mode, 4) for way in WAYS}
    programs = {way for way in WAYS if found[way].bytes_moved is not None}
    assert programs == {"definition", "none", "default", "fused", "cuda graph"}
    assert found["definition"] == found["none"]
    assert found["cuda graph"] == found["fused"]
    assert len({(t.least_bytes_moved, t.least_saved_bytes) for t in found.values()}) == 1
    for way in programs:
        traffic = found[way]
        assert traffic.bytes_moved is not None
        assert traffic.saved_bytes is not None
        assert found["definition"].bytes_moved >= traffic.bytes_moved >= traffic.least_bytes_moved > 0
        assert traffic.saved_bytes >= traffic.least_saved_bytes
        assert (traffic.saved_bytes == 0) == (mode == "inference")


def test_the_table_compares_within_a_mode() -> None:
    def measurement(way: str, mode: str, step_s: float, moved: int | None) -> Measurement:
        return Measurement(way, mode, 1.0, step_s, step_s, step_s, 5_000_000, moved, 10**6, moved, 0)

    found = [
        measurement("definition", "train", 8.0, 4_000_000),
        measurement("definition", "inference", 2.0, 4_000_000),
        measurement("stacked", "train", 16.0, None),
        measurement("stacked", "inference", 1.0, None),
    ]
    header, *rows = bench_table(found).splitlines()
    assert header.split("  ")[0] == "way"
    assert "times definition" in header
    assert rows[0].split() == [
        "definition", "train", "1.00", "8000.0", "8000.0", "to", "8000.0", "1.00", "5.0", "4.0", "/", "1.0",
        "4.0", "/", "0.0",
    ]  # fmt: skip
    assert [row.split()[7] for row in rows] == ["1.00", "1.00", "0.50", "2.00"]
    assert rows[2].split()[8:] == ["5.0", "-", "/", "1.0", "-", "/", "0.0"]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "channels_last"), [("float32", True), ("bfloat16", False)])
def test_what_is_wrong_as_it_would_run_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, dtype: str, channels_last: bool
) -> None:
    """A network that is wrong in one dtype and memory format is refused there, and there alone."""

    def own(way: str, network: Network) -> Network:
        weight = next(p for p in network.parameters() if p.dim() == 4 and p.shape[1] > 1)
        last = weight.is_contiguous(memory_format=torch.channels_last)
        if way == "fused" and str(weight.dtype) == f"torch.{dtype}" and last == channels_last:
            with torch.no_grad():
                list(network.parameters())[-1] += 1
        return network

    def timed(way: str, network: nn.Module, images: Tensor) -> None:
        raise AssertionError(way)

    monkeypatch.setattr(verify, "own_module", own)
    settings = {"batch": 2, "repeats": 1}
    for other in ({"dtype": "float16"}, {"channels_last": not channels_last, "dtype": dtype}):
        assert len(bench_network(SPEC, ["fused"], **settings, **other)) == 1
    monkeypatch.setattr(bench, "steps_of", timed)
    with pytest.raises(VerifyError, match=rf"^small: values of 'fused' are off by .* in {dtype}"):
        bench_network(SPEC, ["fused"], **settings, dtype=dtype, channels_last=channels_last)


def test_what_verifies() -> None:
    assert [way for way in WAYS if verifies(way)] == ["stacked", "none", "default", "fused", "cuda graph"]


REFUSED = [
    ({"ways": ["fusd"]}, r"unknown way 'fusd'\. Did you mean 'fused'\?"),
    ({"ways": ["inference"]}, "unknown way 'inference'"),
    ({"modes": ["training"]}, r"unknown mode 'training'\. Did you mean 'train'\?"),
    ({"dtype": "float64"}, r"unknown dtype 'float64'"),
    (
        {"ways": ["cuda graph"]},
        "^way 'cuda graph' needs a CUDA device, not 'cpu': use --device cuda, or leave",
    ),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_refused_before_anything_runs(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        bench_network(SPEC, **settings)


def test_a_graph_cannot_decide_at_random_which_sources_to_drop() -> None:
    spec = network("sum", drop="stochastic_depth(survival=0.5)")
    with pytest.raises(SpecError, match="would repeat what training of small decides at random"):
        check_ways(["cuda graph"], spec, "cuda", train=True)
    check_ways(["cuda graph"], spec, "cuda", train=False)
    check_ways(["cuda graph"], network("sum"), "cuda", train=True)


@pytest.mark.parametrize("form", ["normalized", "paper"])
def test_the_papers_way_moves_running_statistics(form: str) -> None:
    defined = Network(network(f"depthwise(form={form})")).double()
    randomise(defined)
    other = ways.stacked(copy.deepcopy(defined))
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        torch.testing.assert_close(other(images), defined(images))
    for a, b in zip(other.buffers(), defined.buffers(), strict=True):
        torch.testing.assert_close(a, b)


class FakeGraphs:
    """`torch.cuda` as far as a capture needs it: what is captured runs at once, and again when replayed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        run = ways._pass

        def logged(module: nn.Module, images: Tensor, *, train: bool) -> None:
            self.log.append("run" if all(p.grad is None for p in module.parameters()) else "run on gradients")
            self.again = lambda: run(module, images, train=train)
            self.again()

        monkeypatch.setattr(ways, "_pass", logged)
        stream = SimpleNamespace(wait_stream=lambda other: self.log.append("wait"))
        for name in ("device", "graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, self.within(name))
        monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=self.replay))

    def within(self, name: str) -> object:
        @contextmanager
        def entered(of: object) -> Iterator[None]:
            self.log.append(name)
            yield
            self.log.append(f"end {name}")

        return entered

    def replay(self) -> None:
        self.log.append("replay")


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
