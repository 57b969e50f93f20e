"""The training loop: small networks, data that fit on the device, the same curve for the same seed.

By default one CPU thread: threads that share cores with other work wait for each other at every
operation, for these networks ten times longer than they compute.

Shapes: B images of a batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data.dataset import Dataset
from connsearch.errors import TrainError
from connsearch.nn import CompiledNetwork, Network
from connsearch.train.batches import Batches
from connsearch.train.config import TrainConfig
from connsearch.train.evaluation import check_logits, evaluate, restored_modes
from connsearch.train.optim import make_optimizer
from connsearch.train.result import EpochRecord, TrainResult
from connsearch.train.schedule import learning_rate

STEPS_BETWEEN_CHECKS = {"cpu": 1}
"""After how many steps the loss is looked at; elsewhere than on a CPU looking waits for the device."""


class _DivergenceError(Exception):
    """A loss was not finite."""


def train(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Train a model in place and return its curve.

    The seed decides the order of the images, their random changes and what the model draws while
    training (dropout); the model's initial weights are the caller's. Equal seeds and weights give
    bit-identical curves, on a CPU at equal thread counts, on a GPU with the kernels that repeat
    themselves; an operation that has none there warns. The caller's random state and choice of kernels
    are left alone, and each submodule gets its mode back. `dataset.test` is not read.

    Args:
        model: Takes B C H W, returns B K. Moved to the device.
        dataset: What to train on; `config.dataset` is its name and is not looked at.
        config: How.
        seed: 0 or more.
        device: "cpu", "cuda", "cuda:1", ...
        on_epoch: Called after each finished epoch. What it raises ends the training.

    Returns:
        The curve; with `diverged` set if a loss was not finite, where training stops at once.

    Raises:
        TrainError: if the seed is negative, the device is not there, there is nothing to train, or
            the model does not return a number per image and class.
    """
    if seed < 0:
        raise TrainError(f"seed must be 0 or more, got {seed}")
    if len(dataset.train) < 2:
        raise TrainError(f"dataset {dataset.name!r} has 1 training image: at least 2 are needed")
    order, changes, layers = (int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64))
    run = _Run(model, dataset, config, torch_device(device), seeds=(order, changes))
    curve: list[EpochRecord] = []
    with (
        _seeded(layers, run.device),
        restored_modes(model),
        _threads(config.threads),
        _repeatable(run.device),
    ):
        try:
            for epoch in range(1, config.epochs + 1):
                curve.append(run.epoch(epoch))
                if on_epoch is not None:
                    on_epoch(curve[-1])
        except _DivergenceError:
            return TrainResult(tuple(curve), diverged=True, seconds=run.seconds)
    return TrainResult(tuple(curve), diverged=False, seconds=run.seconds)


_REPEATABLE: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.cudnn, "deterministic", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.utils.deterministic, "fill_uninitialized_memory", False),  # a debugging aid that costs time
)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On CUDA, use kernels that give the same values every time; a CPU's do. The old choice comes back."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    mode = torch.get_deterministic_debug_mode()
    before = [getattr(home, name) for home, name, _ in _REPEATABLE]
    try:
        torch.set_deterministic_debug_mode(max(mode, 1))  # 1: warn of an operation without such a kernel
        for home, name, value in _REPEATABLE:
            setattr(home, name, value)
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        for (home, name, _), value in zip(_REPEATABLE, before, strict=True):
            setattr(home, name, value)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Let torch use n CPU threads, or its own choice if n is 0; the caller's number comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        self.val = dataset.val.to(device)
        self.batches = Batches(
            dataset, batch_size=config.batch_size, augment=config.augment, device=device, seeds=seeds
        )
        self.optimizer = make_optimizer(model, config, device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.check_every = STEPS_BETWEEN_CHECKS.get(device.type, 32)
        self.step = 0
        self.seconds = 0.0

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
        for images_BCHW, labels_B in self.batches.epoch():
            logits_BK, loss = self._forward(images_BCHW, labels_B)
            loss_sum += loss.detach() * len(labels_B)
            wrong_sum += (logits_BK.argmax(1) != labels_B).sum()
            if self.step % self.check_every == 0:
                _check_finite(loss_sum.item())
            self._update(loss)
        n_images = len(self.batches.labels)
        train_loss, train_error = loss_sum.item() / n_images, wrong_sum.item() / n_images
        _check_finite(train_loss)
        return train_loss, train_error

    def _forward(self, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        if self.amp:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        with self._precision():
            *others, logits_BK = self._logits(images_BCHW)
        check_logits(logits_BK, len(labels_B), self.n_classes)
        loss = self._loss(logits_BK, labels_B)
        for other_BK in others:
            loss = loss + self.config.head_weight * self._loss(other_BK, labels_B)
        return logits_BK, loss

    def _logits(self, images_BCHW: Tensor) -> Sequence[Tensor]:
        """Return the logits of every head, the model's own last."""
        if isinstance(self.model, Network | CompiledNetwork) and len(self.model.heads) > 1:
            return list(self.model.logits_by_head(images_BCHW).values())
        return [self.model(images_BCHW)]

    def _loss(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return F.cross_entropy(logits_BK.float(), labels_B, label_smoothing=self.config.label_smoothing)

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


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random state of the CPU and of the device; put it back at the end."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for used in cuda:
            with torch.cuda.device(used):
                torch.cuda.manual_seed(seed)
        yield
