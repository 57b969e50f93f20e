"""Limits on measured costs: what is measured, what is refused, what samplers and readers are told."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_up import TRAIN, make_config
from torch import nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError, StudyError
from connsearch.nn import build
from connsearch.search import measured
from connsearch.search.config import StudyConfig
from connsearch.search.failures import failed, reached
from connsearch.search.hooks import Progress
from connsearch.search.measured import MEASURED, LimitError, Limits, measure
from connsearch.search.memory import OutOfMemoryError
from connsearch.search.retrain import retrain_exactly
from connsearch.search.samplers import SAMPLERS
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec

pytestmark = pytest.mark.slow  # steps are timed

SPEC = NetworkSpec(
    input={"channels": 1, "height": 8, "width": 8},
    n_classes=4,
    blocks=[{"topology": "dense", "n_layers": 3, "width": 16}],
)
HUGE: dict[str, Any] = {"inference_ms": 1e9, "training_step_ms": 1e9, "peak_memory_bytes": 10**15}


def measured_of(limits: dict[str, Any], train: dict[str, Any] | None = None) -> dict[str, float]:
    config = make_config(constraints=limits, train={**TRAIN, **(train or {})})
    return measure(SPEC, network_cost(SPEC), config.train, config.constraints, "cpu")


# ---- limits --------------------------------------------------------------------------------------------


def test_a_limit_is_kept_up_to_its_value() -> None:
    limits = Limits(inference_ms=5.0, peak_memory_bytes=1000)
    limits.check({"inference_ms": 5.0, "peak_memory_bytes": 1000})
    assert limits.violations({"inference_ms": 5.0, "peak_memory_bytes": 1000}) == {
        "inference_ms": 0.0, "peak_memory_bytes": 0.0,
    }  # fmt: skip
    assert limits.violations({"inference_ms": 4.0, "peak_memory_bytes": 1500}) == {
        "inference_ms": pytest.approx(-0.2), "peak_memory_bytes": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "reason", "detail"),
    [
        ({"inference_ms": 7.126, "peak_memory_bytes": 1000}, "inference_ms over 5",
         "inference_ms 7.13 over 5"),
        ({"inference_ms": 5.0, "peak_memory_bytes": 123_456}, "peak_memory_bytes over 1000",
         "peak_memory_bytes 123456 over 1000"),
        ({"inference_ms": 12_345.6, "peak_memory_bytes": 1001},
         "inference_ms over 5, peak_memory_bytes over 1000",
         "inference_ms 12346 over 5, peak_memory_bytes 1001 over 1000"),
    ],
)  # fmt: skip
def test_reasons_can_be_counted_and_details_have_the_figures(
    found: dict[str, float], reason: str, detail: str
) -> None:
    with pytest.raises(LimitError, match=f"^{re.escape(detail)}$") as raised:
        Limits(inference_ms=5.0, peak_memory_bytes=1000).check(found)
    assert raised.value.failure == (reason, detail)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"latency": 3}, r"^constraints\.latency: unknown key\. .*Known: inference_batch, inference_ms, "),
        ({"inference_ms": 0}, r"^constraints\.inference_ms: should be greater than 0, got 0$"),
        ({"inference_ms": "5 ms"}, r"^constraints\.inference_ms: must be a number"),
        ({"inference_batch": 0}, r"^constraints\.inference_batch: should be greater than or equal to 1, "),
        ({"peak_memory_bytes": 1.5}, r"^constraints\.peak_memory_bytes: must be an integer"),
    ],
)  # fmt: skip
def test_limits_that_cannot_be_are_named(constraints: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_config(constraints=constraints)


def test_limits_are_part_of_a_study_and_of_its_file(tmp_path: Path) -> None:
    config = make_config(constraints={"inference_ms": 5, "peak_memory_bytes": 10**9})
    (tmp_path / "study.toml").write_text(config.to_toml())
    assert StudyConfig.from_toml(tmp_path / "study.toml") == config
    assert config.constraints.bounds() == {"inference_ms": 5.0, "peak_memory_bytes": 10**9}
    assert make_config().constraints.bounds() == {}
    assert config.identity()["constraints.inference_ms"] == 5.0


# ---- measuring -----------------------------------------------------------------------------------------


def test_only_what_has_a_limit_is_measured_and_nothing_else_changes() -> None:
    torch.manual_seed(7)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(7)
    assert measured_of({}) == {}
    for name, bound in HUGE.items():
        assert {*measured_of({name: bound})} == {name}
    found = measured_of(HUGE)
    assert {*found} == {*HUGE}
    assert all(value > 0 for value in found.values())
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


class _Slow(nn.Module):
    """Takes its time, more in training, and counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 4)
        self.batches: list[tuple[bool, int, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append((self.training, len(images), torch.is_grad_enabled()))
        time.sleep(0.02 if self.training else 0.005)
        logits: torch.Tensor = self.linear(images.flatten(1))
        return logits


def test_steps_take_turns_and_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _Slow()
    monkeypatch.setattr(measured, "_made", lambda spec, train: slow.eval())
    monkeypatch.setattr(measured, "REPEATS", 5)
    found = measured_of({"inference_ms": 1.0, "training_step_ms": 1.0, "inference_batch": 3})
    # one module for both: each step sets the mode that it needs, or the passes below would tell
    assert 20 <= found["training_step_ms"] < 200
    assert 5 <= found["inference_ms"] < 200
    assert [size for _, size, _ in slow.batches] == [3, 16] * (measured.WARM_UP + 5)
    assert [grads for _, _, grads in slow.batches] == [False, True] * (measured.WARM_UP + 5)


def test_the_median_forgives_a_hiccup_and_the_first_steps_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 9.0] * measured.WARM_UP + [0.0, 0.001] * 6 + [0.0, 5.0] * 5)
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert measured_of({"inference_ms": 1.0}) == {"inference_ms": pytest.approx(1.0)}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_peak_holds_weights_gradients_moments_and_the_batch(optimizer: str) -> None:
    own = 4 * network_cost(SPEC).params
    moments = 1 if optimizer == "sgd" else 2
    small, large = (
        measured_of({"peak_memory_bytes": 1}, {"optimizer": optimizer, "batch_size": size})[
            "peak_memory_bytes"
        ]
        for size in (8, 32)
    )
    activations = network_cost(SPEC).training_bytes
    assert small > (2 + moments) * own + 8 * activations
    assert large - small > 24 * activations
    assert large < 3 * ((2 + moments) * own + 32 * activations)


def test_memory_that_does_not_suffice_is_told_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connsearch.search.memory.free_bytes", lambda device: 0)
    monkeypatch.setattr(measured, "_made", lambda spec, train: pytest.fail("was built"))
    with pytest.raises(OutOfMemoryError, match=r"^out of memory on cpu, predicted: "):
        measured_of(HUGE)


# ---- in a study ----------------------------------------------------------------------------------------


@pytest.fixture
def by_macs(monkeypatch: pytest.MonkeyPatch, made_up: None) -> list[float]:
    """Make up milliseconds from MACs instead of measuring; return a list of what was measured."""
    calls: list[float] = []

    def measure(spec: NetworkSpec, cost: Any, train: Any, limits: Limits, device: str) -> dict[str, float]:
        calls.append(cost.macs / 1e4)
        return {"inference_ms": calls[-1]}

    monkeypatch.setattr("connsearch.search.attempt.measure", measure)
    return calls


def run(path: Path, n: int = 8, **changes: Any) -> Study:
    study = Study.from_config(path, make_config(**{"constraints": {"inference_ms": 10.0}, **changes}))
    study.run(n, device="cpu")
    return study


def test_what_is_over_a_limit_is_not_trained(
    tmp_path: Path, by_macs: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = run(tmp_path / "study")
    over = {trial.number for trial in study.trials() if trial.user_attrs["cost"]["macs"] > 1e5}
    assert 0 < len(over) < 8
    assert len(by_macs) == 8
    for trial in study.trials():
        ms = trial.user_attrs["cost"]["macs"] / 1e4
        assert trial.user_attrs[MEASURED] == {"inference_ms": ms}
        assert trial.constraints == {"inference_ms": pytest.approx(ms / 10 - 1)}
        assert failed(trial) == (trial.number in over)
        assert reached(trial) == (trial.number not in over)
        if trial.number in over:
            assert trial.values == [1.0, trial.user_attrs["cost"]["macs"]]
            assert trial.user_attrs["reason"] == "inference_ms over 10"
            assert trial.user_attrs["error"] == f"inference_ms {ms:.3g} over 10"
            assert "curve" not in trial.user_attrs
    status = study.status()
    assert status.states == {"complete": 8 - len(over), "failed": len(over), "pruned": 0, "unfinished": 0}
    assert status.reasons == {"inference_ms over 10": len(over)}
    assert status.best is not None
    assert status.best["trial"] not in over
    assert not over & {*study.pareto_front().trials["trial"]}
    with pytest.raises(StudyError, match=r"failed \(inference_ms over 10\): there is no curve to compare$"):
        retrain_exactly(study, min(over))


def test_without_limits_nothing_is_measured(tmp_path: Path, by_macs: list[float]) -> None:
    study = run(tmp_path, constraints={})
    assert by_macs == []
    assert all(MEASURED not in t.user_attrs and not t.constraints for t in study.trials())


@pytest.mark.parametrize("hook", ["reached", "_fail"])
def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, by_macs: list[float], monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """A trial is cut off after measuring, and would measure something else the next time."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    study = Study.from_config(tmp_path, make_config(constraints={"inference_ms": 10.0}))
    place = "evaluate_network" if hook == "reached" else "_Attempt._fail"
    with monkeypatch.context() as patch:
        patch.setattr(f"connsearch.search.attempt.{place}", stop)
        with pytest.raises(KeyboardInterrupt):
            study.run(8, device="cpu")
    cut_off = Study.load(tmp_path).trials()[-1]
    assert not cut_off.state.is_finished()
    found = cut_off.user_attrs[MEASURED]
    assert (found["inference_ms"] > 10) == (hook == "_fail")
    monkeypatch.setattr("connsearch.search.attempt.measure", lambda *_: pytest.fail("measured again"))
    study = Study.load(tmp_path)
    study.run(cut_off.number + 1, device="cpu")
    trial = study.trials()[cut_off.number]
    assert trial.user_attrs[MEASURED] == found
    assert failed(trial) == (hook == "_fail")


def test_a_result_that_is_reused_has_its_measurements(tmp_path: Path, by_macs: list[float]) -> None:
    space = make_config().space.to_full_dict()
    space["blocks"] = {"count": 1, "topology": {"any_of": ["chain", "nearest(k=1)"]}, "aggregation": "sum",
                       "n_layers": 2}  # fmt: skip
    space["budget"] = {"macs": 200_000, "tolerance": 0.2}
    study = run(tmp_path, 3, space=space, duplicates="reuse", constraints={"inference_ms": 100.0})
    assert len(by_macs) == 1
    first, *others = study.trials()
    for trial in others:
        assert trial.user_attrs["twin"] == 0
        assert trial.user_attrs[MEASURED] == first.user_attrs[MEASURED]
        assert trial.constraints == first.constraints


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "gp" else []) for n in sorted(SAMPLERS)]
)
def test_every_sampler_goes_on_after_trials_over_a_limit(
    name: str, tmp_path: Path, by_macs: list[float]
) -> None:
    early = {"tpe": {"n_startup_trials": 4}, "gp": {"n_startup_trials": 8}, "nsga2": {"population_size": 4}}
    study = run(tmp_path, 9, sampler={"name": name, **early.get(name, {})})
    assert study.status().finished == 9
    assert study.status().states["failed"] > 0


def test_a_real_study_with_limits(tmp_path: Path) -> None:
    told: list[object] = []
    study = Study.from_config(tmp_path, make_config(constraints={**HUGE, "training_step_ms": 1e-6}))
    study.run(1, device="cpu", progress=Progress(trial_ended=lambda number, outcome: told.append(outcome)))
    (trial,) = study.trials()
    assert {*trial.user_attrs[MEASURED]} == {*HUGE}
    assert re.fullmatch(r"training_step_ms [\d.]+ over 1e-06", str(told[0]))
    assert trial.user_attrs["reason"] == "training_step_ms over 1e-06"
    study = Study.from_config(tmp_path / "enough", make_config(constraints=HUGE))
    study.run(1, device="cpu")
    assert study.status().states["complete"] == 1
    assert all(value < 0 for value in study.trials()[0].constraints.values())
    assert retrain_exactly(study, 0).equal


def test_measured_networks_are_compiled_as_the_study_says(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def noted(spec: NetworkSpec, *, pipeline: str) -> nn.Module:
        built.append(pipeline)
        return build(spec, pipeline=pipeline)

    monkeypatch.setattr("connsearch.nn.build", noted)
    measured_of(HUGE, {"pipeline": "fused"})
    assert built == ["fused"] * 3
