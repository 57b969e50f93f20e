"""The training loop: small networks, data that fit on the device, the same curve for the same seed.

By default one CPU thread: threads that share cores with other work wait for each other at every
operation, for these networks ten times longer than they compute.

Shapes: B images of a batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from connsearch.data.dataset import Dataset
from connsearch.errors import TrainError
from connsearch.train.averaging import WeightAverage
from connsearch.train.batches import Batches, hard_labels
from connsearch.train.checkpoint import Checkpoint
from connsearch.train.config import TrainConfig
from connsearch.train.distributed import joined
from connsearch.train.evaluation import restored_modes, scores
from connsearch.train.identity import identity
from connsearch.train.optim import make_optimizer
from connsearch.train.parallel import OwnPart
from connsearch.train.processes import ALONE, Processes
from connsearch.train.result import EpochRecord, StopTraining, TrainResult
from connsearch.train.schedule import learning_rate
from connsearch.train.state import capture, restore
from connsearch.train.stepping import Numerics
from connsearch.train.surroundings import (
    global_generators,
    kept_random_state,
    limited_threads,
    repeatable,
    seeded,
    torch_device,
)
from connsearch.train.tasks import task_of

STEPS_BETWEEN_CHECKS = {"cpu": 1}
"""After how many steps the loss is looked at; elsewhere than on a CPU looking waits for the device."""


class _DivergenceError(Exception):
    """A loss was not finite."""


class _StoppedError(Exception):
    """The caller wants no more epochs than so many."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


def train(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> TrainResult:
    """Train a model in place and return its curve.

    The seed decides the order of the images, their random changes and what the model draws while
    training (dropout); the model's initial weights are the caller's. Equal seeds and weights give
    bit-identical curves, on a CPU at equal thread counts, on a GPU with the kernels that repeat
    themselves; an operation that has none there warns. The caller's random state and choice of kernels
    are left alone, and each submodule gets its mode back. `dataset.test` is not read.

    With a checkpoint, training may be stopped at any moment, also by a kill or a loss of power: called
    again with the same arguments it goes on after the last finished epoch, and the curve, but for
    seconds, is bit for bit that of a training that never stopped. A finished training gives its result
    again. The file stays; delete it when the result is kept elsewhere.

    Args:
        model: Takes B C H W, returns B K, or where each pixel has a label B K H W. Moved to the device.
        dataset: What to train on; `config.dataset` is its name and is not looked at.
        config: How.
        seed: 0 or more.
        device: "cpu", "cuda", "cuda:1", ...
        on_epoch: Called after each finished epoch, when the checkpoint holds it. `StopTraining` ends the
            training there, with a result; what else it raises ends it without one. Random numbers that it
            draws change nothing. A training that goes on calls it first for the epochs that the checkpoint
            holds, so it sees the whole curve every time.
        checkpoint: A file, in the format safetensors, to which the state is written after each epoch, and
            from which training goes on if it is there. A damaged one, and one that cannot be written
            because the disk is full, is a `CheckpointWarning`, and training starts over or goes on without.

    Returns:
        The curve; with `diverged` set if a loss was not finite, where training stops at once.

    Raises:
        TrainError: if the seed is negative, the device is not there, there is nothing to train, the model
            does not return a number per image (or pixel) and class, or the checkpoint cannot be read, is
            some other file, or lies where nothing can be written.
        CheckpointError: a `TrainError`: if the checkpoint is of another training: another configuration,
            seed, data set, model, device, number of threads or version.
    """
    if seed < 0:
        raise TrainError(f"seed must be 0 or more, got {seed}")
    if len(dataset.train) < 2:
        raise TrainError(f"dataset {dataset.name!r} has 1 training image: at least 2 are needed")
    order, changes, layers = (int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64))
    with joined(device) as processes:
        own = torch_device(processes.device(device))
        which = None
        if checkpoint is not None or processes.size > 1:
            which = identity(model, dataset, config, seed=seed, device=own, processes=processes.size)
            processes.agree({key: value for key, value in which.items() if key != "machine"})
        run = _Run(model, dataset, config, own, seeds=(order, changes), processes=processes)
        with (
            closing(run.own),
            seeded(processes.own_seed(seed, layers), own),
            restored_modes(model),
            limited_threads(config.threads),
            repeatable(own),
        ):
            if checkpoint is None or which is None:
                return run.result(None, on_epoch)
            return run.result(processes.from_first(lambda: Checkpoint(checkpoint, which)), on_epoch)


def training_step(
    model: nn.Module, dataset: Dataset, config: TrainConfig, *, device: str = "cpu"
) -> Callable[[], None]:
    """Return a function that trains a model for one step as `train` does, on the same batch every time.

    For measuring: nothing is evaluated, and the learning rate stays that of the first step.

    Args:
        model: As `train` takes it.
        dataset: Where the batch is from.
        config: How.
        device: Where.

    Raises:
        TrainError: if the device is not there, or there is nothing to train.
    """
    run = _Run(model, dataset, config, torch_device(device), seeds=(0, 0))
    batch = next(iter(run.batches.epoch()))

    def step() -> None:
        run.step = 0
        run.model.train()
        for images_BCHW, targets, share in run.own.parts(*batch, run.task):
            run._backward(run._forward(images_BCHW, targets)[1] * share)
        run._update()

    return step


class _Run:
    """A training under way: everything that lives longer than an epoch."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device,
        *,
        seeds: tuple[int, int],
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.config, self.device = model.to(device), config, device
        self.processes = processes
        self.numerics = Numerics(config, device)
        self.numerics.lay_out(model)
        self.task = task_of(dataset, config.class_weights, device)
        self.val = None if dataset.val is None else dataset.val.near(device)
        self.batches = Batches(
            dataset,
            batch_size=config.batch_size,
            augment=config.augment,
            device=device,
            seeds=seeds,
            cutout=config.cutout,
            mixup=config.mixup,
            part=(processes.rank, processes.size),
        )
        self.optimizer = make_optimizer(model, config, device)
        self.own = OwnPart(model, config, processes, self.batches.least_images)
        self.average = WeightAverage(model, config.ema)  # of weights that all processes share by now
        self.optimizer.zero_grad(set_to_none=True)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.check_every = STEPS_BETWEEN_CHECKS.get(device.type, 32)
        self.generators = {
            "order": self.batches.order,
            "changes": self.batches.changes,
            **processes.named(global_generators(device)),
        }
        self.curve: list[EpochRecord] = []
        self.step = 0
        self.seconds = 0.0

    def result(
        self, checkpoint: Checkpoint | None, on_epoch: Callable[[EpochRecord], None] | None
    ) -> TrainResult:
        """Train from the start, or from what the checkpoint holds, to the end."""
        if checkpoint is not None:
            self._resume(checkpoint)
        try:
            for record in self.curve:
                self._tell(record, on_epoch)
            while len(self.curve) < self.config.epochs:
                self.curve.append(self.epoch(len(self.curve) + 1))
                if checkpoint is not None:
                    self._save(checkpoint)
                self._tell(self.curve[-1], on_epoch)
        except _DivergenceError:
            return self._result(diverged=True)
        except _StoppedError as stopped:
            self.curve = self.curve[: stopped.epoch]
        return self._result(diverged=False)

    def _result(self, *, diverged: bool) -> TrainResult:
        found = TrainResult(tuple(self.curve), diverged=diverged, seconds=self.seconds)
        return self.processes.from_first(lambda: found)

    def _tell(self, record: EpochRecord, on_epoch: Callable[[EpochRecord], None] | None) -> None:
        if on_epoch is not None:
            with kept_random_state(self.device):
                try:
                    self.processes.from_first(lambda: on_epoch(record))
                except StopTraining:
                    raise _StoppedError(record.epoch) from None

    def _save(self, checkpoint: Checkpoint) -> None:
        curve = [record.to_dict() for record in self.curve]
        metadata = checkpoint.metadata({"curve": curve, "seconds": self.seconds})
        generators = self.processes.gathered(self.generators)
        if not self.processes.first:
            return
        tensors = capture(self.model, self.optimizer, generators) | self.average.capture()
        checkpoint.save(safetensors.torch.save(tensors, metadata))

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Become what the training was when it was saved, if it was."""
        saved = self.processes.from_first(checkpoint.load)
        if saved is None:
            return
        try:
            tensors = safetensors.torch.load(saved.content)
            restore(tensors, self.model, self.optimizer, self.generators)
            self.average.restore(tensors)
            self.curve = [EpochRecord.from_dict(record) for record in saved.header["curve"]]
            self.seconds = saved.header["seconds"]
        except (IndexError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise checkpoint.no_state(error) from error
        self.step = len(self.curve) * self.batches.n_steps

    def epoch(self, epoch: int) -> EpochRecord:
        """Train for an epoch, then evaluate."""
        start = time.perf_counter()
        try:
            with self.average.moving(), self.own.norms():
                train_loss, train_error = self._train()
                self.processes.same_buffers(self.model)
        finally:
            seconds = time.perf_counter() - start
            self.seconds += seconds
        self.processes.same_buffers(self.model)  # those of the average
        val_loss, val_error, val_mean_iou = self._validated()
        lr = self.optimizer.param_groups[0]["lr"]
        return EpochRecord(epoch, lr, train_loss, train_error, val_loss, val_error, seconds, val_mean_iou)

    def _validated(self) -> tuple[float | None, float | None, float | None]:
        """Return loss, error and mean IoU of the validation split; nothing if there is none."""
        if self.val is None:
            return None, None, None
        found = scores(self.model, self.val, self.task, device=self.device, processes=self.processes)
        _check_finite(found.loss)
        return found

    def _train(self) -> tuple[float, float]:
        """Return mean loss and error of an epoch's steps; the sums stay on the device until its end."""
        self.model.train()
        loss_sum, amount, count = torch.zeros(3, device=self.device, dtype=torch.float64)
        wrong = torch.zeros((), dtype=torch.int64, device=self.device)
        for batch in self.batches.epoch():
            weight = self.processes.weight(self.task.amount(batch[1]), self.device)
            for images_BCHW, targets, share in self.own.parts(*batch, self.task):
                logits, loss = self._forward(images_BCHW, targets)
                labels = hard_labels(targets)
                loss_sum += loss.detach() * self.task.amount(targets)
                amount += self.task.amount(targets)
                wrong += self.task.wrong(logits.detach(), labels)
                count += self.task.count(labels)
                self._backward(loss * (share * weight))
            if self.step % self.check_every == 0:
                _check_finite(self.processes.summed(loss_sum)[0].item())
            self._update()
        loss_sum, amount, wrong, count = self.processes.summed(loss_sum, amount, wrong, count)
        train_loss, train_error = (loss_sum / amount).item(), (wrong / count).item()
        _check_finite(train_loss)
        return train_loss, train_error

    def _forward(self, images_BCHW: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with self.numerics.autocast():
            *others, logits = self.own.heads(self.numerics.images(images_BCHW))
        self.task.check(logits, targets)
        loss = self._loss(logits, targets)
        for other in others:
            loss = loss + self.config.head_weight * self._loss(other, targets)
        return logits, loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(logits, targets, self.config.label_smoothing)

    def _backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here

    def _update(self) -> None:
        """Make a step along the gradients of all parts of a batch."""
        lr = learning_rate(self.config, self.step, self.batches.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.step)
        self.step += 1


def _check_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise _DivergenceError
