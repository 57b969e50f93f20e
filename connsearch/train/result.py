"""What came of a training: its curve, and whether it stayed finite."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
        val_loss: Mean cross entropy of the validation images after the epoch, in nats.
        val_error: Wrongly classified share of the validation images, in [0, 1].
        seconds: Wall time of the training steps, evaluation left out.
    """

    epoch: int
    lr: float
    train_loss: float
    train_error: float
    val_loss: float
    val_error: float
    seconds: float

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields by name, as JSON holds them."""
        return asdict(self)


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
        """
        return 1.0 if self.diverged else self.curve[-1].val_error
