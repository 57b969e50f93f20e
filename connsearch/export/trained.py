"""The weights of a trial: what it was retrained to, or else what the study had trained it to.

A study keeps no weights, so the trial is trained again, and compared with its record. The checkpoint of that
training stays in the study's directory: an export that was interrupted goes on from it, and the next export
of the trial takes its weights from there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from connsearch.errors import ConnsearchError, StudyError
from connsearch.search.retrain import retrain_exactly
from connsearch.search.retrain_full import FOLDER
from connsearch.search.study import Study
from connsearch.spec.network import NetworkSpec
from connsearch.train.finished import WEIGHTS, percent, read_summary
from connsearch.train.result import EpochRecord

State = dict[str, Tensor]
MODEL = "model/"  # what the names of a model's tensors begin with in a checkpoint


class Trial(NamedTuple):
    """A trial of a study.

    Attributes:
        spec: Its network.
        about: What it reached, in words.
    """

    spec: NetworkSpec
    about: str


def trial_of(study: Study, number: int) -> Trial:
    """Return a trial's network.

    Raises:
        StudyError: if there is no such trial, or it has no network yet.
    """
    trials = study.trials()
    if not 0 <= number < len(trials):
        raise StudyError(f"{study.directory}: no trial {number}: it has {len(trials)}, counted from 0")
    attrs = trials[number].user_attrs
    if "network" not in attrs:
        raise StudyError(f"{study.directory}: trial {number} has no network: it failed, or did not start")
    spec = NetworkSpec.from_dict(attrs["network"])
    curve = attrs.get("curve") or ()
    reached = f", validation error {curve[-1]['val_error']:.4f} after {len(curve)} epochs" if curve else ""
    return Trial(spec, f"trial {number} of {study.directory}{reached}")


class TrialWeights(NamedTuple):
    """Weights of a trial that was trained again with its own seeds.

    Attributes:
        state: Its state dict.
        difference: Where its curve parts from the recorded one, in words; empty if they are equal.
    """

    state: State
    difference: str


def trial_weights(
    study: Study,
    number: int,
    *,
    device: str | None = None,
    inexact: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrialWeights:
    """Return the weights of a finished trial, trained again with its own seeds.

    Args:
        study: The study.
        number: The trial's number.
        device: Where to train; by default the kind of device that the record names.
        inexact: Whether weights are taken whose curve is not the recorded one.
        on_epoch: Called after each epoch.

    Raises:
        StudyError: if the trial has no curve, or its curve is another one here.
        TrainError, DataError: as `connsearch.search.objective.evaluate_network`.
    """
    path = study.directory / "exports" / f"trial{number}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = retrain_exactly(study, number, device=device, on_epoch=on_epoch, checkpoint=path)
    if not found.equal and not inexact:
        changed = "".join(f"; {name}: {old} then, {new} here" for name, (old, new) in found.changed.items())
        raise StudyError(
            f"{study.directory}: trial {number} is another network when it is trained here: "
            f"{found.difference}{changed}. Export it where it was trained, or give --inexact to take "
            "these weights"
        )
    if not path.exists():
        raise StudyError(
            f"{study.directory}: trial {number} diverged in its first epoch: there are no weights"
        )
    return TrialWeights(model_state(path), found.difference)


class RetrainedWeights(NamedTuple):
    """Weights of a trial that was trained in full.

    Attributes:
        state: Its state dict.
        about: Which they are, in words.
    """

    state: State
    about: str


def retrained_weights(study: Study, number: int) -> RetrainedWeights | None:
    """Return what `connsearch retrain` made of a trial, with the lowest of its seeds; None if it did not.

    Not with the best one on the test images, which choose nothing.

    Raises:
        ConnsearchError: if a file is damaged.
    """
    folder = study.directory / FOLDER / f"trial-{number}"
    summary = read_summary(folder)
    trained = [] if summary is None else [result for result in summary.results if not result.diverged]
    if summary is None or not trained:
        return None
    result = trained[0]
    path = folder / f"seed-{result.seed}" / WEIGHTS
    images = " + ".join({"train": "training", "val": "validation"}[split] for split in summary.splits)
    about = (
        f"retrained for {result.epochs} epochs on {images} images, seed {result.seed}, "
        f"test error {percent(result.test_error)} ({path})"
    )
    return RetrainedWeights(model_state(path), about)


def read_tensors(path: Path) -> State:
    """Return the tensors of a safetensors file; of a training's checkpoint, its model's.

    Raises:
        ConnsearchError: if it cannot be read or is no such file.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConnsearchError(f"{path}: no weights can be read: {reason}") from None
    return tensors


def model_state(path: Path) -> State:
    """Return a state dict from a safetensors file, be it that of a model or a checkpoint of a training.

    Raises:
        ConnsearchError: if it cannot be read or is no such file.
    """
    tensors = read_tensors(path)
    if any(key.startswith(MODEL) for key in tensors):
        return {key.removeprefix(MODEL): value for key, value in tensors.items() if key.startswith(MODEL)}
    return tensors
