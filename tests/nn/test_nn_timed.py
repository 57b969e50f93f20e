"""What is timed is verified as it is timed: what runs at a large batch alone, in its form, in its modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from connsearch.errors import VerifyError
from connsearch.nn import Network, ahead, bench, inference, timed
from connsearch.nn.bench import bench_network
from connsearch.nn.form import Form
from connsearch.nn.outcome import Draws, Outcome, explained
from connsearch.nn.timed import AsTimed
from connsearch.nn.verification import Errors
from connsearch.nn.ways import MODES
from connsearch.spec import NetworkSpec

pytestmark = pytest.mark.slow  # networks are verified at the size at which they are timed

SPEC = NetworkSpec(
    name="deep",
    input={"channels": 3, "height": 8, "width": 8},
    n_classes=5,
    blocks=[{"topology": "dense", "aggregation": "depthwise", "n_layers": 5, "width": 4}],
)
BATCH = 32
NONE = Errors(0.0, 0.0, 0.0, 0.0)


def tripled(begin_sums: Callable[..., None]) -> Callable[..., None]:
    def begun(sources: Sequence[Tensor], weight_KLC: Tensor, sums: list[Tensor]) -> None:
        begin_sums(sources, weight_KLC, sums)
        for total in sums:
            total.mul_(3)

    return begun


def reversed_parts(run: Callable[..., Any]) -> Callable[..., Any]:
    def found(self: inference.Inference, images: Tensor) -> tuple[Tensor, ...]:
        n = self.images_at_once or len(images)
        parts = [run(self, part) for part in images.split(n)][::-1]
        return tuple(torch.cat(logits) for logits in zip(*parts, strict=True))

    return found


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches that hold what four images need in float64, and not what 32 need in float32."""
    map_of_4 = 4 * 8 * 4 * 8 * 8
    monkeypatch.setattr(ahead, "CACHE_BYTES", 6 * map_of_4)
    monkeypatch.setattr(inference, "CACHE_BYTES", 12 * map_of_4)


@pytest.mark.usefixtures("small_caches")
@pytest.mark.parametrize("broken", [None, "ahead", "parts"])
def test_what_is_wrong_at_a_large_batch_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    if broken == "ahead":
        monkeypatch.setattr(ahead, "begin_sums", tripled(ahead.begin_sums))
    elif broken == "parts":
        monkeypatch.setattr(inference.Inference, "run", reversed_parts(inference.Inference.run))
    settings: dict[str, Any] = {"modes": MODES, "repeats": 1}
    assert len(bench_network(SPEC, ["fused"], batch=4, **settings)) == 2
    if broken is None:
        assert len(bench_network(SPEC, ["fused"], batch=BATCH, **settings)) == 2
        return
    what = {"ahead": "values", "parts": "inference"}[broken]
    found = rf"^deep: {what} of 'fused' at a batch of 32 are off by .* in float32, .* times what rounding"
    with pytest.raises(VerifyError, match=found):
        bench_network(SPEC, ["fused"], batch=BATCH, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch": 1},
        {"batch": 6},
        {"batch": 6, "dtype": "bfloat16"},
        {"batch": 6, "channels_last": True},
        {"batch": 6, "modes": ("inference",)},
    ],
    ids=str,
)
def test_it_is_verified_as_it_is_timed(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """The steps that are verified are those that are timed: on images of the same kind, in the same modes."""
    verified, measured = [], []

    def noting(into: list[object], steps_of: Callable[..., Any]) -> Callable[..., Any]:
        def noted(way: str, network: Network, images: Tensor) -> Any:
            last = images.is_contiguous(memory_format=torch.channels_last)
            kind = (max(2, len(images)), images.dtype, last, network.training)
            into.append((way, *kind, next(network.parameters()).dtype))
            return steps_of(way, network, images)

        return noted

    monkeypatch.setattr(timed, "steps_of", noting(verified, timed.steps_of))
    monkeypatch.setattr(bench, "steps_of", noting(measured, bench.steps_of))
    bench_network(SPEC, ["definition", "fused"], repeats=1, **settings)
    warm_up = len(settings.get("modes", ("train",)))
    assert set(verified) == set(measured[warm_up:])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["stacked", "none", "default", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ways_are_right_as_they_are_timed(way: str, mode: str, dtype: torch.dtype) -> None:
    AsTimed(SPEC, Form(dtype=dtype), 9).check(way, mode, NONE)


def test_a_definition_that_overflows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def huge(network: nn.Module) -> None:
        with torch.no_grad():
            for parameter in list(network.parameters())[-2:]:  # of the head
                parameter.fill_(6e4)

    monkeypatch.setattr(timed, "randomise", huge)
    timed_in_half = AsTimed(SPEC, Form(dtype=torch.float16), 4)
    with pytest.raises(VerifyError, match=r"^deep: what the definition gives at a batch of 4 is not finite"):
        timed_in_half.check("fused", "inference", NONE)


# ---- errors --------------------------------------------------------------------------------------------


def outcome(*gradients: list[float]) -> Outcome:
    return Outcome([], [torch.tensor(values, dtype=torch.float64) for values in gradients], [], [])


def test_an_error_is_relative_to_its_tensor() -> None:
    ours, truth = outcome([3.0, 4.5], [1.0, 1.0]), outcome([3.0, 4.0], [1.0, 1.0])
    assert ours.errors(truth)[1] == pytest.approx([0.1, 0.0])


def test_a_small_tensor_is_measured_by_the_size_of_all() -> None:
    ours, truth = outcome([1.0, 0.0], [2e-5]), outcome([1.0, 0.0], [1e-5])
    typical = (1 / 3) ** 0.5
    assert ours.errors(truth, small=0.0)[1][1] == pytest.approx(1e-5 / (1e-3 * typical), rel=1e-3)
    assert ours.errors(truth, small=0.5)[1][1] == pytest.approx(1e-5 / 0.5)


def test_a_gradient_that_is_0_but_for_rounding_is_measured_by_the_size_of_all() -> None:
    ours, truth = outcome([1e3, 0.0], [1e-2]), outcome([1e3, 0.0], [1e-14])
    assert ours.errors(truth)[1][1] == pytest.approx(1e-2 / (1e6 / 3) ** 0.5, rel=1e-3)


def test_what_is_no_number_is_wrong() -> None:
    assert outcome([float("nan")]).errors(outcome([1.0]))[1] == [float("inf")]


def test_runs_of_the_definition_are_made_until_they_explain() -> None:
    made = []

    def make(number: int) -> list[list[float]]:
        made.append(number)
        return [[], [1e-3 * number], [], []]

    draws = Draws(make, 8)
    ours = [[], [9e-3], [], []]
    own, excess = explained(ours, [[], [0.0], [], []], torch.float32, draws)
    assert own[1] == [3e-3]
    assert excess.gradients == pytest.approx(9e-3 / (4 * 3e-3 + 1e-4))
    assert made == [0, 1, 2, 3]
    assert explained([[], [5e-2], [], []], own, torch.float32, draws)[1].gradients > 1
    assert made == list(range(8))  # each once
