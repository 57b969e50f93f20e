"""One attempt at a trial: what is left when it fails, and what a later attempt holds to."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from eager import EPOCHS, config
from made_up import SPACE, made_up_error, make_config

from connsearch.cost import network_cost
from connsearch.search import attempt
from connsearch.search.hooks import Progress
from connsearch.search.objective import Outcome
from connsearch.search.pruning.rules import PRUNED, Pruned
from connsearch.search.reading.records import state_of
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.train.checkpoint import CheckpointError
from connsearch.train.result import EpochRecord, StopTraining, TrainResult


@pytest.fixture
def after_freeing(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module | None]:
    """What is left of the last network that was held when memory has been given back, each time."""
    left: list[torch.nn.Module | None] = []
    free = attempt._free_memory

    def freeing(device: str) -> None:
        free(device)
        left.append(HELD[-1]())

    monkeypatch.setattr(attempt, "_free_memory", freeing)
    return left


HELD: list[weakref.ref[torch.nn.Module]] = []


def failing(*_: Any, **__: Any) -> Any:
    """Stand in for what holds a network and fails."""
    network = torch.nn.Linear(2, 2)
    HELD.append(weakref.ref(network))
    raise RuntimeError("no such luck")


@pytest.mark.parametrize(
    ("place", "changes"),
    [("evaluate_network", {}), ("recorded_proxies", {"prefilter": {}})],
    ids=["training", "proxies"],
)
def test_what_failed_is_freed_before_the_next_trial(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_freeing: list[torch.nn.Module | None],
    place: str,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(f"connsearch.search.attempt.{place}", failing)
    study = Study.from_config(tmp_path, make_config(**changes))
    study.run(2, device="cpu")
    assert study.status().reasons == {"RuntimeError: no such luck": 2}
    assert "no such luck" in study.trials()[0].user_attrs["error"]
    assert after_freeing == [None, None]


def test_what_does_not_go_on_is_freed_before_it_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up: None
) -> None:
    fresh: Callable[..., Outcome] = attempt.evaluate_network
    left: list[torch.nn.Module | None] = []

    def of_another_version(*given: Any, **more: Any) -> Outcome:
        if left or more["checkpoint"].exists():
            left.append(HELD[-1]())
            return fresh(*given, **more)
        more["checkpoint"].touch()
        network = torch.nn.Linear(2, 2)
        HELD.append(weakref.ref(network))
        raise CheckpointError("another", more["checkpoint"], ("machine.connsearch",))

    monkeypatch.setattr(attempt, "evaluate_network", of_another_version)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    Study.from_config(tmp_path, make_config()).run(1, device="cpu")
    assert left == [None]


# ---- a pruned trial that is taken up again -------------------------------------------------------------


def falling(
    spec: NetworkSpec, train: object, *, on_epoch: Callable[[EpochRecord], None], **_: Any
) -> Outcome:
    """Stand in for `evaluate_network`."""
    curve: list[EpochRecord] = []
    for epoch in range(1, EPOCHS + 1):
        error = made_up_error(spec) / epoch
        curve.append(EpochRecord(epoch, 0.1, 1.5, error, 1.5, error, 0.5))
        try:
            on_epoch(curve[-1])
        except StopTraining:
            break
    return Outcome(network_cost(spec), TrainResult(tuple(curve), diverged=False, seconds=0.5))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_trial_that_was_pruned_takes_no_whole_curve_from_a_twin_that_finished_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "evaluate_network", falling)
    one_network = {**SPACE, "blocks": {"n_layers": 2, "topology": "chain"}, "budget": {"macs": 200_000}}
    study = Study.from_config(tmp_path, config(space=one_network, duplicates="reuse"))
    study.run(1, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        study.run(2, device="cpu", progress=Progress(trial_started=_interrupt))
    why = Pruned(2, 0.5, 0.25, 9, 4).to_dict()  # as an attempt records that had no twin yet
    study._study._storage.set_trial_user_attr(study.trials()[1]._trial_id, PRUNED, why)
    study.run(3, device="cpu")
    first, second, third = study.trials()
    assert [state_of(trial) for trial in (first, second, third)] == ["complete", "pruned", "complete"]
    assert [len(trial.user_attrs["curve"]) for trial in (first, second, third)] == [EPOCHS, 2, EPOCHS]
    assert "seeds_of" not in second.user_attrs
    assert third.user_attrs["seeds_of"] == 0
