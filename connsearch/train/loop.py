"""The training loop: small networks, data that fit on the device, the same curve for the same seed.

By default one CPU thread: threads that share cores with other work wait for each other at every
operation, for these networks ten times longer than they compute.

Shapes: B images of a batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data.dataset import Dataset
from connsearch.errors import TrainError
from connsearch.nn import CompiledNetwork, Network
from connsearch.train.batches import Batches, hard_labels
from connsearch.train.checkpoint import Checkpoint
from connsearch.train.config import TrainConfig
from connsearch.train.evaluation import check_logits, evaluate, restored_modes
from connsearch.train.identity import identity
from connsearch.train.optim import make_optimizer
from connsearch.train.result import EpochRecord, StopTraining, TrainResult
from connsearch.train.schedule import learning_rate
from connsearch.train.state import capture, restore
from connsearch.train.surroundings import (
    global_generators,
    kept_random_state,
    limited_threads,
    repeatable,
    seeded,
)

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
        model: Takes B C H W, returns B K. Moved to the device.
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
            does not return a number per image and class, or the checkpoint cannot be read, is some other
            file, or lies where nothing can be written.
        CheckpointError: a `TrainError`: if the checkpoint is of another training: another configuration,
            seed, data set, model, device, number of threads or version.
    """
    if seed < 0:
        raise TrainError(f"seed must be 0 or more, got {seed}")
    if len(dataset.train) < 2:
        raise TrainError(f"dataset {dataset.name!r} has 1 training image: at least 2 are needed")
    order, changes, layers = (int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64))
    run = _Run(model, dataset, config, torch_device(device), seeds=(order, changes))
    with (
        seeded(layers, run.device),
        restored_modes(model),
        limited_threads(config.threads),
        repeatable(run.device),
    ):
        if checkpoint is None:
            return run.result(None, on_epoch)
        which = identity(model, dataset, config, seed=seed, device=run.device)
        return run.result(Checkpoint(checkpoint, which), on_epoch)


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
    images_BCHW, labels_B = next(iter(run.batches.epoch()))

    def step() -> None:
        run.step = 0
        run.model.train()
        _, loss = run._forward(images_BCHW, labels_B)
        run._update(loss)

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
    ) -> None:
        self.model, self.config, self.device = model.to(device), config, device
        self.amp = config.amp and device.type == "cuda"
        if self.amp:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs
        self.n_classes = dataset.n_classes
        self.val = dataset.val.near(device)
        self.batches = Batches(
            dataset,
            batch_size=config.batch_size,
            augment=config.augment,
            device=device,
            seeds=seeds,
            cutout=config.cutout,
            mixup=config.mixup,
        )
        self.optimizer = make_optimizer(model, config, device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.check_every = STEPS_BETWEEN_CHECKS.get(device.type, 32)
        self.generators = {
            "order": self.batches.order,
            "changes": self.batches.changes,
            **global_generators(device),
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
            return TrainResult(tuple(self.curve), diverged=True, seconds=self.seconds)
        except _StoppedError as stopped:
            self.curve = self.curve[: stopped.epoch]
        return TrainResult(tuple(self.curve), diverged=False, seconds=self.seconds)

    def _tell(self, record: EpochRecord, on_epoch: Callable[[EpochRecord], None] | None) -> None:
        if on_epoch is not None:
            with kept_random_state(self.device):
                try:
                    on_epoch(record)
                except StopTraining:
                    raise _StoppedError(record.epoch) from None

    def _save(self, checkpoint: Checkpoint) -> None:
        curve = [record.to_dict() for record in self.curve]
        metadata = checkpoint.metadata({"curve": curve, "seconds": self.seconds})
        tensors = capture(self.model, self.optimizer, self.generators)
        checkpoint.save(safetensors.torch.save(tensors, metadata))

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Become what the training was when it was saved, if it was."""
        saved = checkpoint.load()
        if saved is None:
            return
        try:
            tensors = safetensors.torch.load(saved.content)
            restore(tensors, self.model, self.optimizer, self.generators)
            self.curve = [EpochRecord(**record) for record in saved.header["curve"]]
            self.seconds = saved.header["seconds"]
        except (IndexError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise checkpoint.no_state(error) from error
        self.step = len(self.curve) * self.batches.n_steps

    def epoch(self, epoch: int) -> EpochRecord:
        """Train for an epoch, then evaluate."""
        start = time.perf_counter()
        try:
            train_loss, train_error = self._train()
        finally:
            seconds = time.perf_counter() - start
            self.seconds += seconds
        val_loss, val_error = evaluate(self.model, self.val, device=self.device)
        _check_finite(val_loss)
        lr = self.optimizer.param_groups[0]["lr"]
        return EpochRecord(epoch, lr, train_loss, train_error, val_loss, val_error, seconds)

    def _train(self) -> tuple[float, float]:
        """Return mean loss and error of an epoch's steps; the sums stay on the device until its end."""
        self.model.train()
        loss_sum = torch.zeros((), device=self.device)
        wrong_sum = torch.zeros((), dtype=torch.int64, device=self.device)
        for images_BCHW, targets in self.batches.epoch():
            logits_BK, loss = self._forward(images_BCHW, targets)
            loss_sum += loss.detach() * len(targets)
            wrong_sum += (logits_BK.argmax(1) != hard_labels(targets)).sum()
            if self.step % self.check_every == 0:
                _check_finite(loss_sum.item())
            self._update(loss)
        n_images = len(self.batches.labels)
        train_loss, train_error = loss_sum.item() / n_images, wrong_sum.item() / n_images
        _check_finite(train_loss)
        return train_loss, train_error

    def _forward(self, images_BCHW: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.amp:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        with self._precision():
            *others, logits_BK = self._logits(images_BCHW)
        check_logits(logits_BK, len(targets), self.n_classes)
        loss = self._loss(logits_BK, targets)
        for other_BK in others:
            loss = loss + self.config.head_weight * self._loss(other_BK, targets)
        return logits_BK, loss

    def _logits(self, images_BCHW: Tensor) -> Sequence[Tensor]:
        """Return the logits of every head, the model's own last."""
        if isinstance(self.model, Network | CompiledNetwork) and len(self.model.heads) > 1:
            return list(self.model.logits_by_head(images_BCHW).values())
        return [self.model(images_BCHW)]

    def _loss(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits_BK.float(), targets, label_smoothing=self.config.label_smoothing)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.amp else nullcontext()

    def _update(self, loss: Tensor) -> None:
        lr = learning_rate(self.config, self.step, self.batches.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        self.optimizer.step()
        self.step += 1


def torch_device(name: str) -> torch.device:
    """Return a device by name.

    Raises:
        TrainError: if it is neither a CPU nor a CUDA device, or not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise TrainError(f"unknown device {name!r}: use 'cpu', 'cuda' or 'cuda:<number>'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise TrainError(f"device {name!r} is not there, {found} CUDA devices are: use 'cpu' or another one")
    return device


def _check_finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise _DivergenceError
