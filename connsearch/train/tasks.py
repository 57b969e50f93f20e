"""What is a network trained for: the class of each image, or of each pixel?

A task says what a network must return, what is minimised and what counts as wrong. Pixels that are void
belong to no class: they are in no loss and in no error.

Shapes: B images, K classes, H W pixels; N all that has a label, B or B H W.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data.dataset import Dataset, Split
from connsearch.errors import DataError, TrainError

ClassWeights = Literal["none", "median_frequency"]
_AT_ONCE = 1 << 24  # labels that are counted at once


class Task(ABC):
    """What a network is trained for.

    Args:
        n_classes: K; a network may know more.
        void: The label that counts for nothing. It may be -1, which labels of images and files never are.
        weights: Of each class in the loss, K numbers; None for 1.
    """

    def __init__(self, n_classes: int, void: int = -1, weights: Tensor | None = None) -> None:
        self.n_classes, self.void, self.weights = n_classes, void, weights

    @abstractmethod
    def check(self, logits: Tensor, targets: Tensor) -> None:
        """Make sure that a network's output fits the targets.

        Raises:
            TrainError: if it does not, with its shape.
        """

    @abstractmethod
    def rows(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits N K and targets N (or shares of the classes, N K)."""

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross entropy, a weighted mean where classes have weights, in float32.

        Times `amount` it is a sum: parts of a batch add up, and so do those of several processes.
        """
        logits_NK, targets_N = self.rows(logits.float(), targets)
        total = F.cross_entropy(
            logits_NK,
            targets_N,
            weight=self.weights,
            ignore_index=self.void,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        amount = self.amount(targets)
        return total / (amount.clamp(min=1e-6) if isinstance(amount, Tensor) else amount)

    def amount(self, targets: Tensor) -> Tensor | int:
        """Return what the sum of losses is divided by: how much is labelled, weighted as the loss is."""
        if self.weights is None or targets.is_floating_point():
            return self.count(targets)
        known = targets != self.void
        return (self.weights[targets.clamp(min=0, max=len(self.weights) - 1)] * known).sum()

    def count(self, targets: Tensor) -> Tensor | int:
        """Return how much has a label that counts: images, or pixels."""
        return (targets != self.void).sum()

    def wrong(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return how much of what counts has another class than the largest logit, an integer."""
        logits_NK, labels_N = self.rows(logits, labels)
        return ((logits_NK.argmax(1) != labels_N) & (labels_N != self.void)).sum()

    def confusion(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return how often each true class (row) is predicted as each (column): K K int64, K the logits'."""
        logits_NK, labels_N = self.rows(logits, labels)
        size, known = logits_NK.shape[1], labels_N != self.void
        pairs = labels_N[known].long() * size + logits_NK.argmax(1)[known]
        return torch.bincount(pairs, minlength=size * size).reshape(size, size)


class Classification(Task):
    """A class for each image: logits B K."""

    def check(self, logits: Tensor, targets: Tensor) -> None:
        """Make sure that logits are B K, with K at least `n_classes`."""
        if logits.ndim != 2 or len(logits) != len(targets) or logits.shape[1] < self.n_classes:
            raise TrainError(
                f"the model returns shape {tuple(logits.shape)} for {len(targets)} images of "
                f"{self.n_classes} classes: it must return one number per image and class"
            )

    def rows(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return them as they are."""
        return logits, targets

    def count(self, targets: Tensor) -> int:
        """Return how many images there are."""
        return len(targets)


class Segmentation(Task):
    """A class for each pixel: logits B K H W. Void pixels count for nothing."""

    def check(self, logits: Tensor, targets: Tensor) -> None:
        """Make sure that logits are B K H W, with K at least `n_classes`."""
        expected = (len(targets), *targets.shape[1:])
        if (
            logits.ndim != 4
            or (len(logits), *logits.shape[2:]) != expected
            or logits.shape[1] < self.n_classes
        ):
            size = " x ".join(map(str, targets.shape[1:]))
            raise TrainError(
                f"the model returns shape {tuple(logits.shape)} for {len(targets)} label maps of {size} "
                f"pixels and {self.n_classes} classes: it must return one number per image, class and pixel"
            )

    def rows(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return a row for each pixel; logits at another resolution are brought to that of the targets."""
        if logits.shape[2:] != targets.shape[1:]:
            logits = F.interpolate(logits, targets.shape[1:], mode="bilinear")
        # rows of pixels, as torch has no repeatable gradient of a loss of maps on a GPU
        return logits.permute(0, 2, 3, 1).flatten(0, 2), targets.flatten()


def task_of(
    dataset: Dataset, class_weights: ClassWeights = "none", device: torch.device | str = "cpu"
) -> Task:
    """Return the task that a data set is for.

    Args:
        dataset: The data set; its training labels give the weights.
        class_weights: "none", or "median_frequency", as `median_frequency` says.
        device: Where logits and targets are.

    Raises:
        DataError: if no training pixel has a class.
    """
    train = dataset.train
    weights = None
    if class_weights == "median_frequency":
        weights = median_frequency(train, dataset.n_classes, dataset.void).to(device)
    if train.dense and dataset.void >= 0 and not _any_label(train, dataset.void):
        raise DataError(f"dataset {dataset.name!r}: every training pixel is void ({dataset.void})")
    kind = Segmentation if train.dense else Classification
    return kind(dataset.n_classes, dataset.void if train.dense else -1, weights)


def task_of_split(split: Split, void: int = -1) -> Task:
    """Return the task that a split's labels are of; it need not show all classes."""
    if not split.dense:
        return Classification(int(split.labels.max()) + 1)
    return Segmentation(split.largest_label(void) + 1, void)


def median_frequency(split: Split, n_classes: int, void: int = -1) -> Tensor:
    """Return a weight for each class: the median of the classes' frequencies over its own, K.

    The frequency of a class in label maps is its share of the pixels of the images where it occurs (Eigen and
    Fergus, arXiv 1411.4734, section 6.3.2); among images with one label, its share of the images. A class
    that does not occur weighs 0.
    """
    count_K, among_K = torch.zeros(2, n_classes, dtype=torch.float64)
    if not split.dense:
        count_K += torch.bincount(split.labels.cpu(), minlength=n_classes)
        among_K += len(split)
    step = max(1, _AT_ONCE // split.labels[0].numel())
    for labels_BHW in torch.split(split.labels, step) if split.dense else ():
        for labels_HW in labels_BHW.cpu():
            labels_HW = labels_HW.short()  # of 8 bits, 255 would be -1
            found_K = torch.bincount(labels_HW[labels_HW != void].long(), minlength=n_classes)[:n_classes]
            count_K += found_K
            among_K += found_K.sum() * (found_K > 0)
    seen = count_K > 0
    frequency = count_K[seen] / among_K[seen]
    weights_K = torch.zeros(n_classes, dtype=torch.float64)
    weights_K[seen] = frequency.quantile(0.5) / frequency
    return weights_K.float()


def _any_label(split: Split, void: int) -> bool:
    return any(bool((labels != void).any()) for labels in torch.split(split.labels, 256))
