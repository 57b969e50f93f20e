"""How well a model does on a split, leaving the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data.dataset import Split
from connsearch.errors import TrainError


def evaluate(
    model: nn.Module, split: Split, *, batch_size: int = 512, device: str | torch.device = "cpu"
) -> tuple[float, float]:
    """Return (loss, error): mean cross entropy in nats, and the wrongly classified share in [0, 1].

    In evaluation mode and float32; each submodule gets its mode back. Model and split are moved to
    the device, a split that would fill it batch by batch.

    Raises:
        TrainError: if the model does not return one number per image and class.
    """
    model.to(device)
    split = split.near(device)
    n_classes = int(split.labels.max()) + 1  # at least; a split need not show them all
    loss = torch.zeros((), dtype=torch.float64, device=device)
    wrong = torch.zeros((), dtype=torch.int64, device=device)
    with restored_modes(model), torch.inference_mode():
        model.eval()
        parts = (torch.split(x, batch_size) for x in (split.images, split.labels))
        for images_BCHW, labels_B in zip(*parts, strict=True):
            images_BCHW, labels_B = images_BCHW.to(device), labels_B.to(device)
            logits_BK = model(split.inputs(images_BCHW))
            check_logits(logits_BK, len(labels_B), n_classes)
            loss += F.cross_entropy(logits_BK, labels_B, reduction="sum")
            wrong += (logits_BK.argmax(1) != labels_B).sum()
    return loss.item() / len(split), wrong.item() / len(split)


def check_logits(logits: Tensor, n_images: int, n_classes: int) -> None:
    """Check that a model's output is B K with K at least `n_classes`.

    Raises:
        TrainError: if it is not.
    """
    if logits.ndim != 2 or len(logits) != n_images or logits.shape[1] < n_classes:
        raise TrainError(
            f"the model returns shape {tuple(logits.shape)} for {n_images} images of {n_classes} classes: "
            "it must return one number per image and class"
        )


@contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Give every submodule its training or evaluation mode back at the end."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
