"""One network, a data set, a configuration and seeds: trained into a directory, whatever interrupts it.

The same call goes on where the last one stopped, after Ctrl-C or a kill: a seed that is done is not trained
again, one that was cut off goes on after its last epoch. Seeds may be added. The test images are looked at
once for each seed, when its training is done; nothing is chosen by them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import nn

from connsearch.cost import network_cost
from connsearch.data.dataset import Dataset, check_matches
from connsearch.data.joining import joined
from connsearch.data.registry import load_dataset
from connsearch.files import write_whole
from connsearch.memory import release
from connsearch.nn import Network, build
from connsearch.spec.ends import predicts_pixels
from connsearch.spec.network import NetworkSpec
from connsearch.train.checkpoint import checkpoint_warnings_told
from connsearch.train.config import TrainConfig
from connsearch.train.confusion import Confusion, confusion
from connsearch.train.distributed import joined as joined_processes
from connsearch.train.evaluation import Scores, scores
from connsearch.train.finished import RESULT, WEIGHTS, SeedResult, Summary, read_result, to_csv, to_json
from connsearch.train.holding import alone, check_same, make_directory
from connsearch.train.identity import data_identity, machine_identity
from connsearch.train.loop import train
from connsearch.train.processes import Processes
from connsearch.train.result import EpochRecord, TrainResult
from connsearch.train.seeds import checked_seeds
from connsearch.train.surroundings import limited_threads, torch_device
from connsearch.train.tasks import task_of
from connsearch.train.trained import Trained, save_trained
from connsearch.train.watching import Watcher

IDENTITY = "session.json"
_FORMAT = 1


@dataclass(frozen=True)
class Session:
    """What is trained.

    Attributes:
        spec: The network.
        config: How; `config.dataset` is loaded.
        join: Whether the validation images train too; nothing is watched while training then.
    """

    spec: NetworkSpec
    config: TrainConfig
    join: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Whose images train."""
        return ("train", "val") if self.join else ("train",)

    def dataset(self) -> Dataset:
        """Return the images, if the network takes them.

        Raises:
            DataError: if they are missing or damaged, or do not fit the network.
        """
        dataset, size = load_dataset(self.config.dataset), self.spec.input
        check_matches(
            dataset,
            channels=size.channels,
            height=size.height,
            width=size.width,
            n_classes=self.spec.n_classes,
            dense=predicts_pixels(self.spec.head),
        )
        return joined(dataset) if self.join else dataset

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        """Return what all trainings of a directory have in common."""
        network = {k: v for k, v in self.spec.to_full_dict().items() if k != "name"}
        return {
            "format": _FORMAT,
            "splits": list(self.splits),
            "train": self.config.identity(),
            "network": network,
            "data": data_identity(dataset),
        }


def train_seeds(
    directory: str | os.PathLike[str],
    session: Session,
    seeds: Sequence[int],
    *,
    device: str = "cpu",
    watcher: Watcher | None = None,
) -> Summary:
    """Train a network once with each seed, test what comes of it, and write all of it.

    A seed decides everything: `torch.manual_seed(seed)`, then `build(spec, pipeline=config.pipeline)`, then
    `train(..., seed=seed)`.

    Args:
        directory: Where to; made if it is not there. What it holds then: `connsearch.train.finished`.
        session: What is trained.
        seeds: Each 0 or more. Those of earlier calls stay, and count in the summary.
        device: As `connsearch.train.train` takes it.
        watcher: Whom to tell.

    Returns:
        What all seeds in the directory reached.

    Raises:
        TrainError: if the directory is of another session, in use by another process, or cannot be written;
            and as `connsearch.train.train`.
        DataError: if the images are missing, damaged or do not fit the network.
        SpecError: if there is no seed, or one is out of range.
    """
    chosen, target = checked_seeds(seeds), Path(directory)
    with joined_processes(device) as processes, ExitStack() as held:
        torch_device(processes.device(device))
        dataset = session.dataset()
        processes.from_first(lambda: make_directory(target))
        processes.from_first(lambda: held.enter_context(alone(target)))
        processes.from_first(lambda: check_same(target / IDENTITY, session.identity(dataset)))
        run = _Session(target, session, dataset, device, processes, watcher or Watcher())
        for seed in chosen:
            run.train(seed)
            release()
        return processes.from_first(run.summary)


class _Session:
    """Trainings of one network into one directory. Of several processes the first writes and speaks."""

    def __init__(
        self,
        directory: Path,
        session: Session,
        dataset: Dataset,
        asked: str,
        processes: Processes,
        watcher: Watcher,
    ) -> None:
        self.directory, self.session, self.dataset = directory, session, dataset
        self.spec, self.config, self.processes = session.spec, session.config, processes
        self.asked, self.device = asked, torch_device(processes.device(asked))
        self.watcher = watcher if processes.first else Watcher()

    def train(self, seed: int) -> None:
        """Train with a seed, unless that is done."""
        folder = self.directory / f"seed-{seed}"
        result, now = self.processes.from_first(lambda: read_result(folder)), False
        if result is None:
            result, now = self._trained(seed, folder), True
        self.watcher.seed_ended(result, now=now)
        self.processes.from_first(lambda: self.summary().write(self.directory))

    def summary(self) -> Summary:
        """Return what all seeds in the directory reached, those of other calls included."""
        found = dict(self._results())
        cost = network_cost(self.spec)
        return Summary(
            self.spec.name,
            cost.macs,
            cost.params,
            self.config.dataset.label,
            self.session.splits,
            len(self.dataset.train),
            len(self.dataset.test),
            self.config.epochs,
            tuple(found[seed] for seed in sorted(found)),
        )

    def _results(self) -> Iterator[tuple[int, SeedResult]]:
        for folder in self.directory.glob("seed-*"):
            name = folder.name.removeprefix("seed-")
            result = read_result(folder) if name.isdecimal() else None
            if result is not None:
                yield int(name), result

    def _trained(self, seed: int, folder: Path) -> SeedResult:
        self.processes.from_first(lambda: self._begin(folder))
        self.watcher.seed_started(seed, self.config.epochs)
        model = self._initial(seed)
        curve: list[EpochRecord] = []
        before = _lines(folder / "curve.csv")

        def epoch_ended(record: EpochRecord) -> None:
            curve.append(record)
            content = to_csv([each.to_dict() for each in curve])
            again = content.splitlines()[-1] in before
            if not again:
                write_whole(folder / "curve.csv", content)
            self.watcher.epoch_ended(record, again=again)

        with checkpoint_warnings_told(self.watcher.note):
            found = train(
                model,
                self.dataset,
                self.config,
                seed=seed,
                device=self.asked,
                on_epoch=epoch_ended,
                checkpoint=folder / "checkpoint.safetensors",
            )
        return self._finished(seed, folder, model, found)

    def _begin(self, folder: Path) -> None:
        """Write what is known beforehand."""
        make_directory(folder)
        write_whole(folder / "network.toml", self.spec.to_toml().encode())
        write_whole(folder / "train.toml", tomli_w.dumps(self.config.to_full_dict()).encode())

    def _initial(self, seed: int) -> nn.Module:
        """Return the network with the initial weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(self.spec, pipeline=self.config.pipeline)

    def _finished(self, seed: int, folder: Path, model: nn.Module, found: TrainResult) -> SeedResult:
        """Test a trained network, and write what is left of its training; the result comes last."""
        last, test, classes = found.curve[-1] if found.curve else None, None, None
        if not found.diverged:
            test, classes = self._tested(model)
        result = SeedResult(
            seed=seed,
            epochs=len(found.curve),
            diverged=test is None,
            seconds=found.seconds,
            train_error=None if last is None else last.train_error,
            val_error=None if last is None else last.val_error,
            val_mean_iou=None if last is None else last.val_mean_iou,
            test_loss=None if test is None else test.loss,
            test_error=None if test is None else test.error,
            test_mean_iou=None if test is None else test.mean_iou,
        )
        self.processes.from_first(lambda: self._end(folder, model, result, classes))
        return result

    def _tested(self, model: nn.Module) -> tuple[Scores | None, Confusion | None]:
        """Return how well a network does on the test images, and by class; None if a loss is not finite."""
        dataset, device, processes = self.dataset, self.device, self.processes
        with limited_threads(self.config.threads):
            test = scores(model, dataset.test, task_of(dataset), device=device, processes=processes)
            if not math.isfinite(test.loss):
                return None, None
            return test, processes.from_first(lambda: confusion(model, dataset, "test", device=device))

    def _end(self, folder: Path, model: nn.Module, result: SeedResult, classes: Confusion | None) -> None:
        """Write the weights, then the result."""
        record = {
            **result.to_dict(),
            "splits": list(self.session.splits),
            "train_images": len(self.dataset.train),
            "test_images": len(self.dataset.test),
            "machine": machine_identity(self.config, self.device) | {"processes": self.processes.size},
            "test_confusion": None if classes is None else classes.to_dict(),
        }
        if not result.diverged:
            self._save_weights(model, folder / WEIGHTS)
        write_whole(folder / RESULT, to_json(record))

    def _save_weights(self, model: nn.Module, path: Path) -> None:
        with torch.random.fork_rng(devices=[]):  # the first weights are replaced
            network = Network(self.spec)
        network.load_state_dict(model.state_dict())
        save_trained(Trained(network.eval(), self.config.dataset), path)


def _lines(path: Path) -> set[bytes]:
    """Return the lines of a file; none if it is not there."""
    return set(path.read_bytes().splitlines()) if path.exists() else set()
