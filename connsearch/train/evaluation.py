"""How well a model does on a split, leaving the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from connsearch.data.dataset import Split
from connsearch.errors import TrainError
from connsearch.train.processes import ALONE, Processes
from connsearch.train.tasks import Task, task_of_split

PIXELS_AT_ONCE = 1 << 19
"""Of images whose every pixel is predicted, so many pixels are evaluated at once, at most."""


class Scores(NamedTuple):
    """How well a model does.

    Attributes:
        loss: Mean cross entropy in nats.
        error: Wrongly classified share, in [0, 1]; of pixels that are not void, where these have labels.
        mean_iou: Mean of intersection over union over the classes that occur; None for labels of images.
    """

    loss: float
    error: float
    mean_iou: float | None = None


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    batch_size: int = 512,
    device: str | torch.device = "cpu",
    void: int = -1,
) -> tuple[float, float]:
    """Return (loss, error): mean cross entropy in nats, and the wrongly classified share in [0, 1].

    In evaluation mode and float32; each submodule gets its mode back. Model and split are moved to
    the device, a split that would fill it batch by batch.

    Args:
        model: Takes B C H W, returns B K; where pixels have labels B K H W.
        split: Images and labels.
        batch_size: Images at once, at most.
        device: Where.
        void: Label of pixels that count for nothing; -1 for none.

    Raises:
        TrainError: if the model does not return one number per image (or pixel) and class, or nothing has
            a label.
    """
    return scores(model, split, task_of_split(split, void), batch_size=batch_size, device=device)[:2]


def scores(
    model: nn.Module,
    split: Split,
    task: Task,
    *,
    batch_size: int = 512,
    device: str | torch.device = "cpu",
    processes: Processes = ALONE,
) -> Scores:
    """Return how well a model does; as `evaluate`, which also says what it raises.

    Several processes share the images out, and each returns what all found together.
    """
    among = processes if len(split) >= processes.size else ALONE
    split = among.own_part(split)
    total, count, wrong = torch.zeros(3, dtype=torch.float64, device=device)
    confusion_KK: Tensor | None = None
    plain = type(task)(task.n_classes, task.void)  # classes weigh alike
    for logits, labels in predictions(model, split, plain, batch_size=batch_size, device=device):
        n = plain.count(labels)
        total += plain.loss(logits, labels) * n
        count += n
        wrong += plain.wrong(logits, labels)
        if split.dense:
            found = plain.confusion(logits, labels)
            confusion_KK = found if confusion_KK is None else confusion_KK + found
    total, count, wrong = among.summed(total, count, wrong)
    if confusion_KK is not None:
        (confusion_KK,) = among.summed(confusion_KK)
    if not count:
        raise TrainError(f"{split}: every pixel is void ({task.void}): nothing can be evaluated")
    mean_iou = None if confusion_KK is None else mean_iou_of(confusion_KK)
    return Scores((total / count).item(), (wrong / count).item(), mean_iou)


def predictions(
    model: nn.Module, split: Split, task: Task, *, batch_size: int, device: str | torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and labels of a split, batch by batch, in order, on the device.

    In evaluation mode, float32 and without gradients; each submodule gets its mode back.

    Raises:
        TrainError: if the model returns something else than the task needs.
    """
    model.to(device)
    split = split.near(device)
    if split.dense:
        batch_size = max(1, min(batch_size, PIXELS_AT_ONCE // split.labels[0].numel()))
    with restored_modes(model):
        for images, labels in zip(
            *(torch.split(x, batch_size) for x in (split.images, split.labels)), strict=True
        ):
            model.eval()
            with torch.inference_mode():
                labels = labels.to(device).long()
                logits = model(split.inputs(images.to(device)))
                task.check(logits, labels)
            yield logits, labels


def mean_iou_of(confusion_KK: Tensor) -> float:
    """Return the mean of intersection over union over the classes that occur, as truth or prediction."""
    hit_K = confusion_KK.diagonal().double()
    union_K = confusion_KK.sum(0) + confusion_KK.sum(1) - hit_K
    return (hit_K / union_K)[union_K > 0].mean().item()


@contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Give every submodule its training or evaluation mode back at the end."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
