"""What came of a training: its curve, and whether it stayed finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from connsearch.errors import TrainError


class StopTraining(Exception):  # noqa: N818  # nothing has gone wrong
    """Raised by `on_epoch` to end a training after that epoch; the result is of the epochs so far."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. All numbers are finite.

    Attributes:
        epoch: Counted from 1.
        lr: Learning rate of the epoch's last step.
        train_loss: Mean over the epoch's images of what was minimised, label smoothing included,
            each image at the weights of its step and after augmentation.
        train_error: Wrongly classified share of the same images, in [0, 1].
        val_loss: Mean cross entropy of the validation images after the epoch, in nats; None without any.
        val_error: Wrongly classified share of the validation images, in [0, 1]; None without any.
        seconds: Wall time of the training steps, evaluation left out.
        val_mean_iou: Mean over classes of intersection over union, in [0, 1]; None where images have one
            label each.

    Where each pixel has a label, all of these count pixels that are not void instead of images.
    """

    epoch: int
    lr: float
    train_loss: float
    train_error: float
    val_loss: float | None
    val_error: float | None
    seconds: float
    val_mean_iou: float | None = None

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields that have a value by name, as JSON holds them."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpochRecord:
        """Return the record that `to_dict` wrote."""
        return cls(**{"val_loss": None, "val_error": None, **data})

    @property
    def validated_error(self) -> float:
        """`val_error`, where there is one.

        Raises:
            TrainError: if there were no validation images.
        """
        if self.val_error is None:
            raise TrainError("there is no validation error: the data set has no validation images")
        return self.val_error


@dataclass(frozen=True)
class TrainResult:
    """A finished, stopped or diverged training.

    Attributes:
        curve: The epochs that were finished; none, if the first one diverged.
        diverged: Whether a training or validation loss was not finite; training stopped there.
        seconds: Wall time of all training steps, those of a diverged epoch included. If training was
            stopped and went on, what it did after its last checkpoint does not count.
    """

    curve: tuple[EpochRecord, ...]
    diverged: bool
    seconds: float

    @property
    def val_error(self) -> float:
        """Error after the last epoch; 1.0, the worst there is, if training diverged.

        >>> TrainResult(curve=(), diverged=True, seconds=0.1).val_error
        1.0

        Raises:
            TrainError: if there were no validation images.
        """
        return 1.0 if self.diverged else self.curve[-1].validated_error

    @property
    def val_iou_error(self) -> float:
        """1 - mean IoU after the last epoch; 1.0 if training diverged.

        Raises:
            TrainError: if the network was trained on labels of images, not of pixels.
        """
        if self.diverged:
            return 1.0
        mean_iou = self.curve[-1].val_mean_iou
        if mean_iou is None:
            raise TrainError("there is no mean IoU: the data set has labels for images, not for pixels")
        return 1.0 - mean_iou
