"""Measurements of ways to run a network: verified first, interleaved, beside what the model says."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from pairs import small
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError, VerifyError
from connsearch.ir import bytes_moved, least_saved, lower, optimize, saved_elements
from connsearch.kernels import use_backend
from connsearch.nn import Network, bench, verify, ways
from connsearch.nn.bench import MODES, Measurement, bench_network, bench_table
from connsearch.nn.modelled import modelled
from connsearch.nn.verification import Errors
from connsearch.nn.verify import randomise
from connsearch.nn.ways import WAYS, verifies
from connsearch.spec import NetworkSpec

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
OWN = ("definition", "stacked", "none", "default", "fused")


SPEC = small()


@pytest.mark.large
def test_a_measurement_for_each_way_and_mode() -> None:
    found = bench_network(SPEC, OWN, modes=MODES, batch=3, repeats=3)
    assert [(m.way, m.mode) for m in found] == [(way, mode) for way in OWN for mode in MODES]
    for m in found:
        assert 0 < m.low_s <= m.step_s <= m.high_s
        assert m.first_s > 0
        assert m.backend == ("cpu" if m.way in ("default", "fused") else None)
        assert m.peak_bytes > 3 * 4 * 64 * 4  # a map of the batch


def test_backends_are_those_that_run() -> None:
    with use_backend("reference"):
        found = bench_network(SPEC, ("definition", "fused"), batch=2, repeats=1, verify=False)
    assert [m.backend for m in found] == [None, "reference"]
    assert "fused (as plain PyTorch)  train" in bench_table(found)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is made and run, in order: of networks their number, of steps the way and the mode."""
    found: list[tuple[str, ...]] = []
    steps_of = bench.steps_of

    def noting(way: str, network: Network, images: Tensor) -> ways.Steps:
        made, case = steps_of(way, network, images), (way, "train" if network.training else "inference")

        def step() -> None:
            found.append(case)
            made.step()

        return made._replace(step=step)

    monkeypatch.setattr(bench, "steps_of", noting)
    return found


def test_steps_are_interleaved_and_each_round_begins_with_another(log: list[tuple[str, ...]]) -> None:
    told: list[str] = []
    bench_network(SPEC, ("definition", "stacked", "none"), batch=2, repeats=4, verify=False, tell=told.append)
    order = [way for way, _ in log]
    assert order == [
        "definition",  # on one image more
        "definition", "stacked", "none",  # for the first time
        "definition", "stacked", "none",
        "stacked", "none", "definition",
        "none", "definition", "stacked",
        "definition", "stacked", "none",
    ]  # fmt: skip
    assert told[-1] == "step 4 of 4: none (train)"


def test_a_first_step_begins_with_building_the_network(
    log: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build: Callable[..., None] = Network.__init__
    clock = [0.0]

    def slow(self: Network, spec: NetworkSpec) -> None:
        log.append(("built",))
        clock[0] += 5
        build(self, spec)

    monkeypatch.setattr(Network, "__init__", slow)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    found = bench_network(SPEC, ("definition", "stacked"), batch=2, repeats=1, verify=False)
    built, run = ("built",), [("definition", "train"), ("stacked", "train")]
    assert log == [built, run[0], built, run[0], built, run[1], *run]
    assert [(m.first_s, m.step_s) for m in found] == [(5.0, 0.0)] * 2


def test_no_first_step_comes_after_one_of_its_kind_that_verifies(
    log: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the batch that is timed has run before, libraries have made what they make once."""
    check = bench.AsTimed.check

    def noting(self: bench.AsTimed, way: str, mode: str, definition: Errors) -> None:
        log.append(("check", way, mode))
        check(self, way, mode, definition)

    monkeypatch.setattr(bench.AsTimed, "check", noting)
    bench_network(SPEC, ("definition", "none"), batch=2, repeats=1)
    first, check_it, steps = log[:3], log[3:4], log[4:]
    assert first == [("definition", "train"), ("definition", "train"), ("none", "train")]
    assert check_it == [("check", "none", "train")]
    assert steps == [("definition", "train"), ("none", "train")]


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
    found = {way: modelled(SPEC, way, 4, training=mode == "train") for way in WAYS}
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


def measurement(
    way: str, mode: str, step_s: float, moved: int | None, backend: str | None = None
) -> Measurement:
    return Measurement(way, mode, 1.0, step_s, step_s, step_s, 5_000_000, backend, moved, 10**6, moved, 0)


def test_the_table_compares_within_a_mode() -> None:
    found = [
        measurement("definition", "train", 8.0, 4_000_000),
        measurement("definition", "inference", 2.0, 4_000_000),
        measurement("stacked", "train", 1600.0, None),
        measurement("stacked", "inference", 1.0, None),
    ]
    header, *rows = bench_table(found).splitlines()
    assert header == (
        "way         mode       first step s    step ms            quartiles ms  times definition  peak MB  "
        "moved MB / least  saved MB / least"
    )
    assert rows[0].split() == [
        "definition", "train", "1.00", "8000.0", "8000.0", "to", "8000.0", "1.00", "5.0", "4.0", "/", "1.0",
        "4.0", "/", "0",
    ]  # fmt: skip
    assert [row.split()[7] for row in rows] == ["1.00", "1.00", "0.005", "2.00"]
    assert rows[2].split()[8:] == ["5.0", "-", "/", "1.0", "-", "/", "0"]


def test_columns_of_a_small_network_are_in_small_units() -> None:
    found = [
        Measurement("definition", "train", 1.2, 0.0123, 0.01, 0.02, 40_000_000, None, 900, 90, 0, 0),
        Measurement("fused", "train", 0.0456, 0.0007, 0.0006, 0.0008, 51_234, "cpu", 800, 90, 1_234_567, 0),
    ]
    header, *rows = bench_table(found).splitlines()
    assert re.split("  +", header) == [
        "way", "mode", "first step ms", "step us", "quartiles us", "times definition", "peak kB",
        "moved B / least", "saved MB / least",
    ]  # fmt: skip
    assert [re.split("  +", row) for row in rows] == [
        ["definition", "train", "1200.00", "12300.0", "10000.0 to 20000.0", "1.00", "40000.0",
         "900.0 / 90.0", "0 / 0"],
        ["fused", "train", "45.60", "700.0", "600.0 to 800.0", "17.57", "51.2", "800.0 / 90.0", "1.2 / 0"],
    ]  # fmt: skip


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


@pytest.mark.parametrize("form", ["normalized", "paper"])
def test_the_papers_way_moves_running_statistics(form: str) -> None:
    defined = Network(small(f"depthwise(form={form})")).double()
    randomise(defined)
    other = ways.stacked(copy.deepcopy(defined))
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        torch.testing.assert_close(other(images), defined(images))
    for a, b in zip(other.buffers(), defined.buffers(), strict=True):
        torch.testing.assert_close(a, b)
