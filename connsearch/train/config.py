"""How a network is trained: the `[train]` table of a study, checked without importing torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from connsearch.config import Config
from connsearch.data.registry import DATASETS
from connsearch.errors import SpecError
from connsearch.registry import Ref, ref_field

if TYPE_CHECKING:
    DatasetRef = Ref
else:
    DatasetRef = ref_field(DATASETS)

Fraction = Annotated[float, Field(gt=0, lt=1)]


class TrainConfig(Config):
    """Everything about training but the network and the seed.

    Attributes:
        dataset: A data set's name, or a table with its name and parameters.
        epochs: Passes over the training split.
        batch_size: Images per step, at most; an epoch's batches differ by at most one image. At
            least 2: batch normalisation learns nothing from one value.
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw".
        lr: Highest learning rate.
        momentum: Nesterov momentum; beta_1 of Adam.
        weight_decay: L2 penalty; for "adamw" decoupled from the gradient.
        decay_norms: Whether all parameters decay, or only the weights of convolutions and linear layers.
        schedule: "constant", "step" (times `gamma` at each milestone) or "cosine" (towards 0).
        milestones: When "step" acts, as fractions of all steps, ascending.
        gamma: What "step" multiplies by.
        warmup_epochs: Linear rise from 0 before the schedule; may be fractional.
        label_smoothing: Share of the target spread evenly over all classes.
        head_weight: Weight of the loss of each further head, for networks that supervise earlier layers.
        grad_clip: Largest norm of the whole gradient; 0 for no limit.
        augment: Whether to make the random changes that the data set allows (mirroring, shifting).
        cutout: Side in pixels of a square that is blanked, set to the mean, somewhere in each image; 0 for
            none. The middle of the square lies in the image, a part of it may not.
        mixup: Each image and its label are mixed with another's, the share drawn from Beta(mixup, mixup);
            0 for not at all. Usual: 0.1 to 1. The training error then counts the label with the most.
        amp: Whether to train in bfloat16 with channels-last maps where that pays: on CUDA. On a CPU
            it changes nothing. Evaluation is in float32 always.
        pipeline: How networks are compiled: "fused", "default", or "none", as they are defined. It makes
            large networks faster and smaller in memory, and those whose steps take milliseconds slower.
        threads: CPU threads that torch may use; 0 for torch's own choice. One is best for the small
            networks of a search, and lets several trials share a machine; curves are equal, bit for
            bit, only at equal numbers of threads.

    >>> TrainConfig.from_dict({"dataset": "digits", "epochs": 3}).epochs
    3
    """

    dataset: DatasetRef
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(64, ge=2)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    decay_norms: bool = True
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_epochs: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    head_weight: float = Field(0.3, ge=0)
    grad_clip: float = Field(0.0, ge=0)
    augment: bool = True
    cutout: int = Field(0, ge=0)
    mixup: float = Field(0.0, ge=0)
    amp: bool = True
    pipeline: Literal["none", "default", "fused"] = "none"
    threads: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise SpecError(f"warmup_epochs = {self.warmup_epochs} must be below epochs = {self.epochs}")
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise SpecError(f"milestones must ascend, got {list(self.milestones)}")
        return self
