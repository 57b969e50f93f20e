from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import SPACE, TRAIN, diverged_outcome, made_up_error, make_config

from connsearch.cost import network_cost
from connsearch.errors import BudgetError, DataError, SpecError, StudyError, TrainError
from connsearch.graph import TOPOLOGIES
from connsearch.search.hooks import Progress
from connsearch.search.objective import (
    Outcome,
    enough_memory,
    environment,
    evaluate_network,
    training_device,
)
from connsearch.search.plan import plan_of
from connsearch.search.reading.pace import Pace
from connsearch.search.reading.records import Status, _common
from connsearch.search.space import Member, SearchSpace
from connsearch.search.storages import COPY, JOURNAL, LOCK, check_writable
from connsearch.search.study import Study
from connsearch.spec import AGGREGATIONS, UNITS
from connsearch.spec.network import NetworkSpec
from connsearch.train.checkpoint import CheckpointWarning
from connsearch.train.result import EpochRecord

Run = Callable[..., Study]
REGISTRIES = (TOPOLOGIES, AGGREGATIONS, UNITS)


@pytest.fixture
def run(tmp_path: Path, made_up: None) -> Run:
    """Run a study in milliseconds and return it."""

    def run(n: int = 4, **changes: Any) -> Study:
        study = Study.from_config(tmp_path / "study", make_config(**changes))
        study.run(n)
        return study

    return run


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*")}


def lines(study: Study) -> list[bytes]:
    return (study.directory / JOURNAL).read_bytes().splitlines(keepends=True)


def values(study: Study) -> list[tuple[dict[str, Any], list[float]]]:
    return [(trial.params, trial.values) for trial in study.trials()]


# ---- opening -------------------------------------------------------------------------------------------


def test_open_creates_a_study_and_load_reads_it(tmp_path: Path) -> None:
    space = SearchSpace.from_dict(SPACE)
    study = Study.open(tmp_path / "a/b", space, seed=3, sampler="random", train=TRAIN, question="Why?")
    assert files(tmp_path / "a/b") == {JOURNAL, COPY, LOCK}
    loaded = Study.load(tmp_path / "a/b")
    assert loaded.config == study.config
    assert (loaded.config.seed, loaded.config.question, loaded.config.space) == (3, "Why?", space)
    assert loaded.config.objectives == {"val_error": "minimize", "macs": "minimize"}
    assert type(study.config).from_toml(tmp_path / "a/b" / COPY) == study.config
    assert Study.open(tmp_path / "a/b", space, seed=3, sampler="random", train=TRAIN).trials() == []


def test_one_name_is_one_objective(tmp_path: Path) -> None:
    space = SearchSpace.from_dict(SPACE)
    study = Study.open(tmp_path, space, objectives="val_error", train=TRAIN)
    assert study.config.objectives == {"val_error": "minimize"}
    with pytest.raises(
        SpecError, match=r"^objectives: unknown objective 'error'\. Did you mean 'val_error'\?"
    ):
        Study.open(tmp_path / "other", space, objectives="error", train=TRAIN)


def test_the_default_training_does_not_fit_every_space(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"^dataset 'digits' holds 1 x 8 x 8 images of 10 classes, the network "
        r"takes 1 x 8 x 8 images and knows 4 classes: set input = .*n_classes = 10$",
    ):
        Study.open(tmp_path / "new", SearchSpace.from_dict(SPACE))
    assert files(tmp_path) == set()  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there, 1 here"),
        ({"sampler": "tpe"}, "sampler is random there, tpe here"),
        ({"sampler": {"name": "tpe", "n_startup_trials": 3}},
         "sampler is random there, {'name': 'tpe', 'n_startup_trials': 3} here"),
        ({"train": {**TRAIN, "epochs": 2}}, "train.epochs is 1 there, 2 here"),
        ({"objectives": {"macs": "minimize", "val_error": "minimize"}},
         "objectives is val_error, macs there, macs, val_error here"),
        ({"space": {**SPACE, "scope": "global"}}, "space.scope is block there, global here"),
        ({"space": {**SPACE, "blocks": {**SPACE["blocks"], "n_layers": 2}}},
         "space.blocks.n_layers is {'low': 1, 'high': 3} there, 2 here"),
    ],
)  # fmt: skip
def test_another_study_in_the_directory_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    Study.from_config(tmp_path, make_config())
    before = (tmp_path / JOURNAL).read_bytes()
    expected = f"{tmp_path}: holds another study: {message}; choose another --dir"
    with pytest.raises(StudyError, match=f"^{re.escape(expected)}$"):
        Study.from_config(tmp_path, make_config(**change))
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_number_of_trials_and_question_may_change(run: Run, tmp_path: Path) -> None:
    run(2)
    study = Study.from_config(tmp_path / "study", make_config(n_trials=3, question="Why not?"))
    assert study.run() == 1
    assert study.config.question == "Why not?"


def test_a_space_that_cannot_meet_its_budget_leaves_nothing_behind(tmp_path: Path) -> None:
    space = {**SPACE, "budget": {"macs": 1000}}
    with pytest.raises(
        BudgetError, match=r"^budget: no chain x sum fits: macs: the least possible is 27,664 "
    ):
        Study.from_config(tmp_path / "new", make_config(space=space))
    assert files(tmp_path) == set()


def test_no_study_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file", tmp_path / "file/below"):
        expected = f"{path}: no study there: run one with `connsearch run STUDY.toml --dir {path}`"
        with pytest.raises(StudyError, match=f"^{re.escape(expected)}$"):
            Study.load(path)
    assert files(tmp_path) == {"file"}


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file/below", "Not a directory")):
        expected = f"{path}: cannot be written: {reason}; choose another directory"
        with pytest.raises(StudyError, match=f"^{re.escape(expected)}$"):
            Study.from_config(path, make_config())
        expected = f"{path}: cannot be written: {tmp_path}/file does not allow it; choose another directory"
        with pytest.raises(StudyError, match=f"^{re.escape(expected)}$"):
            check_writable(path)
    check_writable(tmp_path / "not/yet")
    assert files(tmp_path) == {"file"}


def test_a_users_own_study_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / COPY).write_text("mine")
    with pytest.raises(
        StudyError, match=r": holds a study\.toml that is no study's copy: choose another --dir$"
    ):
        Study.from_config(tmp_path, make_config())
    assert (tmp_path / COPY).read_text() == "mine"
    assert files(tmp_path) == {COPY}


def test_a_creation_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    (tmp_path / f"{JOURNAL}.new").write_text("half a li")
    (tmp_path / f"{LOCK}.new").touch()
    assert Study.from_config(tmp_path, make_config()).trials() == []
    assert files(tmp_path) == {JOURNAL, COPY, LOCK}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "KeyError: 'Record does not exist.'"),
        (b"garbage\n", "KeyError: 'Record does not exist.'"),
        (b"garbage\ngarbage\n", "JSONDecodeError: "),
        (b"\x80\x81\n\x80\n", "UnicodeDecodeError: "),
        (b"[]\n{}\n", "TypeError: "),
        (b'{"a": 1}\n', "KeyError: 'op_code'"),
    ],
    ids=["empty", "garbage", "more garbage", "binary", "lists", "tables"],
)
def test_a_file_that_is_no_journal(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / JOURNAL).write_bytes(content)
    expected = f"{tmp_path / JOURNAL}: no study's journal, or damaged ({reason}"
    for opened in (Study.load, lambda path: Study.from_config(path, make_config())):
        with pytest.raises(
            StudyError, match=f"^{re.escape(expected)}.*: restore it, or choose another --dir$"
        ):
            opened(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_a_study_of_something_that_is_not_registered_here(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path, make_config())
    (tmp_path / JOURNAL).write_bytes(b"".join(lines(study)).replace(b"chain", b"mesh"))
    message = f"{tmp_path}: space.blocks.topology: unknown topology 'mesh'. "
    with pytest.raises(SpecError, match=f"^{re.escape(message)}"):
        Study.load(tmp_path)


# ---- running -------------------------------------------------------------------------------------------


def test_the_number_of_trials_is_a_total(run: Run) -> None:
    study = run(3)
    assert len(study.trials()) == 3
    assert study.run(5) == 2
    assert study.run(5) == study.run(2) == study.run(0) == 0
    assert study.run() == 3  # as the configuration says
    assert len(study.trials()) == 8


def test_attributes_say_all_about_a_trial(run: Run) -> None:
    study = run(3)
    for trial in study.trials():
        attrs = trial.user_attrs
        assert set(attrs) == {
            "network", "cost", "budget", "curve", "val_error", "seconds", "environment", "lease", "hash",
        }  # fmt: skip
        member = study.config.space.member(trial.params)
        spec = NetworkSpec.from_dict(attrs["network"])
        assert spec == member.spec
        assert attrs["cost"] == network_cost(spec).to_dict()
        assert attrs["budget"] == {"macs": trial.params["macs_budget"]}
        assert attrs["val_error"] == trial.values[0] == made_up_error(spec)
        assert trial.values[1] == attrs["cost"]["macs"] <= attrs["budget"]["macs"]
        assert EpochRecord(**attrs["curve"][0]).val_error == attrs["val_error"]
        assert attrs["seconds"] == 0.5
        assert {"device", "threads", "connsearch", "torch", "optuna", "numpy"} <= set(attrs["environment"])
        assert json.loads(json.dumps(attrs)) == attrs


def test_every_objective_is_recorded(run: Run) -> None:
    names = ["params", "training_bytes", "inference_bytes", "val_error", "macs"]
    study = run(2, objectives=dict.fromkeys(names, "minimize"))
    for trial in study.trials():
        cost = network_cost(NetworkSpec.from_dict(trial.user_attrs["network"]))
        error = trial.user_attrs["val_error"]
        assert trial.values == [cost.params, cost.training_bytes, cost.inference_bytes, error, cost.macs]


def test_hooks_are_called_in_order(tmp_path: Path, made_up: None) -> None:
    seen: list[tuple[str, int]] = []

    def started(number: int, member: Member) -> None:
        seen.append(("started", number))

    def epoch(number: int, record: EpochRecord) -> None:
        seen.append((f"epoch {record.epoch}", number))

    def ended(number: int, outcome: Outcome | str) -> None:
        seen.append(("ended" if isinstance(outcome, Outcome) else outcome, number))

    Study.from_config(tmp_path, make_config()).run(2, progress=Progress(started, epoch, ended))
    assert seen == [(what, number) for number in (0, 1) for what in ("started", "epoch 1", "ended")]


def test_a_training_that_diverges_counts_as_the_worst_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", diverged_outcome)
    study = run(2, sampler="nsga2")
    for trial in study.trials():
        assert trial.state.name == "COMPLETE"
        assert trial.values == [1.0, trial.user_attrs["cost"]["macs"]]
        assert trial.user_attrs["reason"] == "diverged"
        assert trial.user_attrs["curve"] == []
        assert trial.constraints == {"diverged": 1.0}
    assert study.status().reasons == {"diverged": 2}
    assert study.pareto_front().trials.empty


def test_a_study_prints_as_its_directory_and_status(run: Run) -> None:
    study = run(2)
    directory, trials, best = str(study).splitlines()[:3]
    assert directory == f"study    {study.directory}"
    assert trials.startswith("trials   2 of 2 finished: 2 complete, ")
    assert best.startswith("best     trial ")
    assert str(study.status()).splitlines()[:2] == [trials, best]


def test_a_trial_that_was_cut_off_between_record_and_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", diverged_outcome)
    with monkeypatch.context() as patch:
        patch.setattr("optuna.Study.tell", raiser(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(1)
    study = run(1)  # records the outcome once more
    assert study.trials()[0].constraints == {"diverged": 1.0}
    assert study.status().states["complete"] == 1


def test_a_member_that_fails_is_recorded_and_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SearchSpace.member

    def member(self: SearchSpace, drawn: dict[str, Any]) -> Member:
        if drawn["count"] == 2:
            raise BudgetError("too dear")
        return whole(self, drawn)

    seen: list[object] = []
    monkeypatch.setattr(SearchSpace, "member", member)
    monkeypatch.setattr(SearchSpace, "check", lambda self: None)
    study = run(0)
    study.run(8, progress=Progress(trial_ended=lambda number, outcome: seen.append(outcome)))
    failed = [trial for trial in study.trials() if trial.params["count"] == 2]
    assert 0 < len(failed) < 8
    assert seen.count("too dear") == len(failed)
    for trial in study.trials():
        assert trial.state.name == "COMPLETE"
        assert trial.user_attrs.get("reason") == ("too dear" if trial in failed else None)
        assert trial.constraints == ({"failed": 1.0} if trial in failed else {})
    assert {tuple(trial.values) for trial in failed} == {
        (1.0, 200_000.0)
    }  # the worst: error, greatest budget
    status = study.status()
    assert status.states == {"complete": 8 - len(failed), "failed": len(failed), "pruned": 0, "unfinished": 0}
    assert status.reasons == {"too dear": len(failed)}
    assert str(status).splitlines()[-1] == f"reasons  {len(failed)} x too dear"
    assert set(study.pareto_front().trials["trial"]) == {t.number for t in study.trials()} - {
        t.number for t in failed
    }
    assert study.run(8) == 0


def no_memory(*args: object, **kwargs: object) -> Any:
    return torch.empty(2**60)


def test_a_trial_without_enough_memory_fails_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.from_config(tmp_path, make_config())
    for number, place in enumerate(("connsearch.nn.build", "connsearch.train.train")):
        with monkeypatch.context() as patch:
            patch.setattr(place, no_memory)
            assert study.run(number + 1) == 1
    assert study.run(3) == 1
    assert study.status().states == {"complete": 1, "failed": 2, "pruned": 0, "unfinished": 0}
    assert study.status().reasons == {"out of memory on cpu": 2}
    for trial in study.trials()[:2]:
        assert re.fullmatch(
            r"out of memory on cpu: .*can't allocate memory: you tried .*", trial.user_attrs["error"]
        )
        assert trial.values == [1.0, trial.user_attrs["cost"]["macs"]]  # what is known is told as it is


def test_memory_is_predicted_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.from_config(tmp_path, make_config())
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.search.memory.free_bytes", lambda device: 100_000)
        patch.setattr("connsearch.nn.build", raiser(AssertionError))
        assert study.run(2) == 2
    assert study.status().reasons == {"out of memory on cpu, predicted": 2}
    assert re.fullmatch(
        r"out of memory on cpu, predicted: \d+ kB at least for parameters and 16 images, 100 kB are free",
        study.trials()[0].user_attrs["error"],
    )


def test_a_checkpoint_of_another_version_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, study = (Study.from_config(tmp_path / name, make_config()) for name in ("plain", "study"))
    plain.run(1)
    notes: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.train.identity.__version__", "0.0.1")
        with pytest.raises(KeyboardInterrupt):
            study.run(1, progress=Progress(epoch_ended=raiser(KeyboardInterrupt)))
    assert (study.directory / "checkpoints/trial-0").exists()
    assert study.run(1, progress=Progress(note=notes.append)) == 1
    assert notes == ["trial 0: starts over, as its checkpoint differs in machine.connsearch"]
    assert values(study) == values(plain)


def test_a_damaged_checkpoint_is_told_and_starts_over(tmp_path: Path) -> None:
    plain, study = (Study.from_config(tmp_path / name, make_config()) for name in ("plain", "study"))
    plain.run(1)
    with pytest.raises(KeyboardInterrupt):
        study.run(1, progress=Progress(epoch_ended=raiser(KeyboardInterrupt)))
    file = study.directory / "checkpoints/trial-0"
    file.write_bytes(file.read_bytes()[:-100])
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default", CheckpointWarning)
        assert study.run(1, progress=Progress(note=notes.append)) == 1
    assert len(notes) == 1
    assert re.match(f"{file}: the checkpoint is damaged, .*: training starts over from epoch 1", notes[0])
    assert values(study) == values(plain)


def test_checkpoints_of_finished_trials_are_removed(run: Run) -> None:
    study = run(1)
    checkpoints = study.directory / "checkpoints"
    assert not checkpoints.exists()
    checkpoints.mkdir()
    for name in ("trial-0", ".trial-0.123.tmp", "trial-7", "mine"):
        (checkpoints / name).touch()
    study.run(1)
    assert files(checkpoints) == {"trial-7", "mine"}


def test_a_checkpoint_that_cannot_be_used_ends_the_run(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path, make_config())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/trial-0").write_text("mine")
    with pytest.raises(StudyError, match=r"checkpoints/trial-0: is no checkpoint of a training: "):
        study.run(1)
    assert study.status().states["unfinished"] == 1
    (tmp_path / "checkpoints/trial-0").unlink()
    assert study.run(1) == 1


def test_an_error_of_a_users_own_code_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.from_config(tmp_path, make_config())
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.nn.build", raiser(ZeroDivisionError("by a unit\nof mine")))
        assert study.run(2) == 2
    assert study.run(4) == 2
    assert study.status().reasons == {"ZeroDivisionError: by a unit": 2}
    assert study.status().states["failed"] == 2
    assert "Traceback (most recent call last):" in study.trials()[0].user_attrs["error"]
    assert study.pareto_front().trials["trial"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried\nat 0x0"),
         "out of memory on cuda:1: [enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
         "out of memory on cuda:1: CUDA out of memory. Tried to allocate 9 GiB."),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"),
         "out of memory on cuda:1: CUDA error: out of memory"),
        (MemoryError(), "out of memory on cuda:1: no more is there"),
    ],
)  # fmt: skip
def test_every_way_of_running_out_of_memory_is_named(error: Exception, message: str) -> None:
    with pytest.raises(TrainError, match=f"^{re.escape(message)}$"), enough_memory("cuda:1"):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), RuntimeError(), ValueError("out of memory")]
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=f"^{error}$") as caught, enough_memory("cpu"):
        raise error
    assert caught.value is error


def test_a_network_that_fits_no_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.search.memory.free_bytes", lambda device: None)
    spec = NetworkSpec(blocks=[{"n_layers": 1, "width": 2**21}])
    with pytest.raises(TrainError, match=r"^out of memory on cpu: .*can't allocate memory"):
        evaluate_network(spec, make_config().train, study_seed=0, trial=0, device="cpu")


def test_a_plan_names_what_does_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connsearch.nn.build", no_memory)
    with pytest.raises(TrainError, match=r"^out of memory on cpu: .*can't allocate memory"):
        plan_of(make_config(), tmp_path / "study")


def test_the_environment_names_the_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: f"GPU of {device}")
    assert environment("cuda:1", 1)["device"] == "GPU of cuda:1"
    assert not environment("cpu", 1)["device"].startswith("GPU")


def raiser(error: type[BaseException] | BaseException) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [KeyboardInterrupt, StudyError])
def test_an_interrupted_study_goes_on_with_the_same_trial(
    tmp_path: Path, made_up: None, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    unbroken = Study.from_config(tmp_path / "unbroken", make_config())
    unbroken.run(4)
    study = Study.from_config(tmp_path / "broken", make_config())
    study.run(2)
    with monkeypatch.context() as patch:
        patch.setattr("connsearch.search.attempt.evaluate_network", raiser(error))
        with pytest.raises(error):
            study.run(4)
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert study.status().states["unfinished"] == 1
    again = Study.load(tmp_path / "broken")
    assert again.run(4) == 2
    assert values(again) == values(unbroken)
    assert [trial.number for trial in again.trials()] == [0, 1, 2, 3]


def test_a_device_that_is_not_there(tmp_path: Path, made_up: None) -> None:
    assert training_device("cpu") == "cpu"
    study = Study.from_config(tmp_path, make_config())
    with pytest.raises(TrainError, match=r"^unknown device 'gpu': use 'cpu', 'cuda' or 'cuda:<number>'$"):
        study.run(device="gpu")
    assert study.trials() == []


# ---- after a kill --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 0.5, -1])
def test_a_last_line_that_was_cut_off_is_dropped(run: Run, tmp_path: Path, kept: float) -> None:
    """Cut the journal within every line of the last two trials; each time it must go on as before."""
    study = run(4)
    whole, expected = lines(study), values(study)
    first = next(n for n, line in enumerate(whole) if b'"op_code":4' in line and n > len(whole) // 2)
    for n in range(first, len(whole), 2 if kept == 0.5 else 5):
        part = whole[n][: int(kept if isinstance(kept, int) else kept * len(whole[n]))]
        (study.directory / JOURNAL).write_bytes(b"".join(whole[:n]) + part)
        again = Study.load(study.directory)
        assert again.run(4) > 0
        assert values(again) == expected
        assert values(Study.load(study.directory)) == expected


def test_optunas_lock_of_a_killed_process_does_not_hold_up(run: Run) -> None:
    study = run(1)
    (study.directory / f"{JOURNAL}.lock").symlink_to(study.directory / JOURNAL)
    start = time.monotonic()
    assert study.run(2) == 1  # Optuna itself would wait half a minute
    assert time.monotonic() - start < 10


# ---- reading -------------------------------------------------------------------------------------------


def test_the_front_is_measured_from_error_one_and_the_greatest_budget(run: Run) -> None:
    front = run(4).pareto_front()
    assert front.reference == {"val_error": 1.0, "macs": 200_000.0}
    assert 0 < front.hypervolume < 200_000
    assert front.trials["trial"].tolist() == [0, 1, 2, 3]
    assert set(front.trials.columns) >= {
        "macs", "params", "val_error", "topology", "aggregation", "n_layers", "widths", "depths",
        "budget_macs", "seconds",
    }  # fmt: skip
    assert set(front.trials["topology"]) <= {"chain", "dense", "sparse(base=3)"}


def test_the_front_names_connections_as_references_do() -> None:
    refs = [
        TOPOLOGIES.ref("sparse", base=3),
        UNITS.ref("basic"),
        *(registry.ref(name, **{key: not value}) for registry in REGISTRIES for name in registry
          for key, value in registry.parameters(name).items() if isinstance(value, bool)),
    ]  # fmt: skip
    assert len(refs) > 2
    for ref in refs:
        assert _common([ref.to_data(), ref.to_data()]) == ref.label
    assert _common([ref.to_data() for ref in refs]) == "mixed"


@pytest.mark.parametrize(
    ("objectives", "params", "reference"),
    [
        ({"val_error": "minimize"}, 0, {"val_error": 1.0}),
        ({"params": "minimize", "val_error": "minimize"}, 5000, {"params": 5000.0, "val_error": 1.0}),
        ({"params": "minimize"}, 0, None),
        ({"val_error": "maximize"}, 0, None),
        ({"training_bytes": "minimize", "macs": "minimize"}, 0, None),
    ],
)
def test_a_reference_that_is_not_known_is_the_worst_seen(
    run: Run, objectives: dict[str, str], params: int, reference: dict[str, float] | None
) -> None:
    space = {**SPACE, "budget": {**SPACE["budget"], "params": params}}
    front = run(3, objectives=objectives, space=space).pareto_front()
    worst = {n: max(front.trials[n]) if way == "minimize" else min(front.trials[n])
             for n, way in objectives.items()}  # fmt: skip
    assert front.reference == (reference or worst)


def test_a_study_without_trials_can_be_read(run: Run) -> None:
    study = run(0)
    assert str(study.pareto_front()) == "Pareto front: no trial yet that can be ranked"
    assert str(study.status()) == "trials   0 of 0 finished: 0 complete, 0 failed, 0 pruned, 0 unfinished"


def test_the_status_says_how_far_a_study_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    study = run(3)
    study._study.set_user_attr("n_trials", 8)
    status = study.status()
    best = min(study.trials(), key=lambda trial: trial.values[0])
    assert (status.asked, status.finished) == (8, 3)
    assert status.best == {"trial": best.number, "val_error": best.values[0], "macs": best.values[1]}
    assert 0 < status.seconds_per_trial < 5
    states = {**status.states, "unfinished": 1}
    best_of_all = {"trial": 2, "val_error": 0.25, "macs": 54_321.0}
    pace = Pace(trials_per_hour=40.0, worker_seconds=90.0, seconds_left=450.0, seconds_since_last=3.0)
    text = str(Status(8, states, best_of_all, 90.0, {"diverged": 1}, pace=pace))
    assert text == (
        "trials   3 of 8 finished: 3 complete, 0 failed, 0 pruned, 1 unfinished\n"
        "best     trial 2: val_error 25.0 %, macs 54.3 k\n"
        "rate     40 trials an hour lately, 1 min 30 s a trial; about 7 min 30 s left with 0 workers\n"
        "last     a trial ended 3 s ago\n"
        "reasons  1 x diverged"
    )


def test_nothing_is_left_when_more_is_finished_than_asked(run: Run) -> None:
    study = run(3)
    study.run(2)
    assert str(study.status()).splitlines()[0].startswith("trials   3 of 3 finished")
    assert any(line.endswith("; nothing left") for line in str(study.status()).splitlines())


def test_the_best_trial_follows_the_direction(run: Run) -> None:
    study = run(4, objectives={"params": "maximize", "val_error": "minimize"})
    assert study.status().best is not None
    assert study.status().best["params"] == max(trial.values[0] for trial in study.trials())
