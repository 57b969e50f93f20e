"""How a network is trained: the `[train]` table of a study, checked without importing torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from connsearch.config import Config
from connsearch.data.registry import DATASETS
from connsearch.errors import SpecError
from connsearch.registry import Ref, ref_field
from connsearch.train.recipes import filled

if TYPE_CHECKING:
    DatasetRef = Ref
else:
    DatasetRef = ref_field(DATASETS)

Fraction = Annotated[float, Field(gt=0, lt=1)]


class TrainConfig(Config):
    """Everything about training but the network and the seed.

    Attributes:
        dataset: A data set's name, or a table with its name and parameters.
        recipe: Its values fill what is not given; `connsearch list recipes` shows them all.
        filled_from: The recipe, once it has filled what was not given; connsearch writes it into records,
            where nothing is filled again.
        epochs: Passes over the training split.
        batch_size: Images per step, at most; an epoch's batches differ by at most one image. At
            least 2: batch normalisation learns nothing from one value.
        accumulate: Parts of a batch that go through the network one after the other, for what a whole batch
            needs too much memory for; one step follows from all. Norms of batches see a part each.
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw".
        lr: Highest learning rate.
        momentum: Nesterov momentum; beta_1 of Adam.
        weight_decay: L2 penalty; for "adamw" decoupled from the gradient.
        decay_norms: Whether all parameters decay, or only the weights of convolutions and linear layers.
        schedule: "constant", "step" (times `gamma` at each milestone), "cosine" (towards 0) or "one_cycle"
            (a straight line up to `lr`, another one down towards 0).
        milestones: When "step" acts, as fractions of all steps, ascending.
        gamma: What "step" multiplies by.
        peak: When "one_cycle" reaches `lr`, as a fraction of all steps.
        warmup_epochs: Linear rise from 0 before the schedule; may be fractional.
        label_smoothing: Share of the target spread evenly over all classes.
        class_weights: "none", or "median_frequency": the loss of a class weighs the more the rarer it is.
        head_weight: Weight of the loss of each further head, for networks that supervise earlier layers.
        grad_clip: Largest norm of a step's whole gradient; 0 for no limit.
        sync_norms: Whether, where several processes train together, norms of batches see the images of all of
            them; else each process's norms see its own images, and running statistics are the first one's.
        ema: How much of the moving average of the weights a step keeps, such as 0.999, less in the first
            steps; 0 for no average. It is the average that is evaluated, and that remains in the end.
        augment: Whether to make the random changes that the data set allows (mirroring, shifting).
        cutout: Side in pixels of a square that is blanked, set to the mean, somewhere in each image; 0 for
            none. The middle of the square lies in the image, a part of it may not.
        mixup: Each image and its label are mixed with another's, the share drawn from Beta(mixup, mixup);
            0 for not at all. Usual: 0.1 to 1. The training error then counts the label with the most.
        precision: In what convolutions and products of matrices are computed while training: "float32",
            "bfloat16", or "auto": bfloat16 on CUDA, float32 on a CPU. Weights, sums of losses and evaluation
            are in float32 always.
        layout: How maps lie in memory: "channels_first", "channels_last", or "auto": channels last with
            bfloat16.
        pipeline: How networks are compiled: "fused", "default", or "none", as they are defined. It makes
            large networks faster and smaller in memory, and those whose steps take milliseconds slower.
        threads: CPU threads that torch may use; 0 for torch's own choice. One is best for the small
            networks of a search, and lets several trials share a machine; curves are equal, bit for
            bit, only at equal numbers of threads.

    >>> TrainConfig.from_dict({"dataset": "digits", "epochs": 3}).epochs
    3
    """

    dataset: DatasetRef
    recipe: str = ""
    filled_from: str = ""
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(64, ge=2)
    accumulate: int = Field(1, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    decay_norms: bool = True
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: float = Field(0.1, gt=0, le=1)
    peak: Fraction = 0.25
    warmup_epochs: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "median_frequency"] = "none"
    head_weight: float = Field(0.3, ge=0)
    grad_clip: float = Field(0.0, ge=0)
    sync_norms: bool = False
    ema: float = Field(0.0, ge=0, lt=1)
    augment: bool = True
    cutout: int = Field(0, ge=0)
    mixup: float = Field(0.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    layout: Literal["auto", "channels_first", "channels_last"] = "auto"
    pipeline: Literal["none", "default", "fused"] = "none"
    threads: int = Field(1, ge=0)

    @property
    def micro_batch_size(self) -> int:
        """Images that go through the network at once, at most; 3, not 2, where one would be left over."""
        return -(-self.batch_size // self.accumulate)

    def in_bfloat16(self, device: str) -> bool:
        """Return whether a device, "cpu" or "cuda...", trains in bfloat16."""
        return self.precision == "bfloat16" or (self.precision == "auto" and device.startswith("cuda"))

    def in_channels_last(self, device: str) -> bool:
        """Return whether maps have their channels last there."""
        return self.layout == "channels_last" or (self.layout == "auto" and self.in_bfloat16(device))

    def identity(self) -> dict[str, Any]:
        """Return what decides a curve, as plain data: all but where the values are from."""
        return self.model_dump(mode="json", by_alias=True, exclude={"recipe", "filled_from"})

    @model_validator(mode="wrap")
    @classmethod
    def _fill(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill from the recipe; a copy with another recipe is filled from that one, as if made anew."""
        if not isinstance(data, dict):
            return handler(data)
        config = handler(whole := filled(data))
        config.model_fields_set.difference_update(whole.keys() - data.keys())
        return config

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise SpecError(f"warmup_epochs = {self.warmup_epochs} must be below epochs = {self.epochs}")
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise SpecError(f"milestones must ascend, got {list(self.milestones)}")
        if self.schedule == "one_cycle" and self.warmup_epochs:
            raise SpecError(
                f"warmup_epochs = {self.warmup_epochs} is not for 'one_cycle', which rises by itself: "
                "set peak, and warmup_epochs = 0"
            )
        if self.accumulate > self.batch_size // 2:
            raise SpecError(
                f"accumulate = {self.accumulate} leaves less than 2 of batch_size = {self.batch_size} images "
                f"at once: set at most {self.batch_size // 2}"
            )
        return self
