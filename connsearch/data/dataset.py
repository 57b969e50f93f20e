"""What a data set is: three splits of normalised images, and which random changes keep a label true.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from connsearch.errors import DataError


@dataclass(frozen=True)
class Augment:
    """Random changes under which an image keeps its label.

    Attributes:
        flip: Whether its mirror image (left and right swapped) has the same label.
        shift: Pixels it may move by in each direction, horizontally and vertically.
    """

    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise DataError(f"augment: shift is a number of pixels, 0 or more, got {self.shift}")


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Images and their labels; equal only to itself.

    Attributes:
        images: N C H W, float32, finite.
        labels: N, int64, 0 or more.

    Raises:
        DataError: if the tensors are not that, if their lengths differ, or if there are no images.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        _check_tensor("images", self.images, ndim=4, dtype=torch.float32)
        _check_tensor("labels", self.labels, ndim=1, dtype=torch.int64)
        if len(self.images) != len(self.labels):
            raise DataError(f"a split needs a label per image, got {len(self.images)} and {len(self.labels)}")
        if self.images.numel() == 0:
            raise DataError(f"a split needs images with pixels, got shape {tuple(self.images.shape)}")
        if not torch.isfinite(self.images).all():
            raise DataError("images must be finite, got nan or inf")
        if self.labels.min() < 0:
            raise DataError(f"labels must be 0 or more, got {int(self.labels.min())}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {_shape(self.images)})"

    def to(self, device: torch.device | str) -> Split:
        """Return the split with its tensors on a device; itself if they are there."""
        images, labels = self.images.to(device), self.labels.to(device)
        return self if images is self.images and labels is self.labels else Split(images, labels)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A classification data set; equal only to itself.

    Images are normalised per channel with the mean and the standard deviation of the training
    split: `(raw - mean) / std`, the same for all three splits. `Dataset.normalised` does it.
    Training reads `train`; designs are chosen by `val`; `test` is for the chosen ones only.

    Attributes:
        name: How messages and reports call it.
        class_names: One word per class, in the order of the labels.
        augment: Random changes that keep a label true.
        mean: Raw mean of the training split, C numbers; empty for images taken as they are.
        std: Raw standard deviation of the training split, C numbers; empty likewise.

    Raises:
        DataError: if the splits differ in C, H or W, a label has no class, or a shift is too far.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    augment: Augment = field(default_factory=Augment)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for split_name, split in self._splits().items():
            place = f"dataset {self.name!r}: {split_name}"
            if split.images.shape[1:] != self.train.images.shape[1:]:
                got, expected = _shape(split.images), _shape(self.train.images)
                raise DataError(f"{place}: images are {got}, those of train {expected}")
            if split.labels.max() >= self.n_classes:
                label = int(split.labels.max())
                raise DataError(f"{place}: label {label} has no name, there are {self.n_classes} classes")
        if self.augment.shift >= min(self.height, self.width):
            size = f"{self.height} x {self.width}"
            raise DataError(f"dataset {self.name!r}: cannot shift {size} pixels by {self.augment.shift}")
        if {len(self.mean), len(self.std)} not in ({0}, {self.channels}):
            raise DataError(f"dataset {self.name!r}: mean and std need {self.channels} numbers each")

    @classmethod
    def normalised(
        cls,
        name: str,
        class_names: Sequence[str],
        *,
        train: tuple[Tensor, Tensor],
        val: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        augment: Augment,
    ) -> Dataset:
        """Return the data set of raw images (N C H W, any number type) and labels (N, integers).

        Raises:
            DataError: if a channel of the training images is constant, and as the class does.
        """
        raw_NCHW = train[0].double().numpy()  # whose sums do not depend on the number of threads
        mean_C = torch.from_numpy(raw_NCHW.mean((0, 2, 3)))
        std_C = torch.from_numpy(raw_NCHW.std((0, 2, 3)))
        if not (std_C > 0).all():
            raise DataError(f"dataset {name!r}: a channel of the training images is constant or not finite")

        def split(images: Tensor, labels: Tensor) -> Split:
            scaled = (images.double() - mean_C[:, None, None]) / std_C[:, None, None]
            return Split(scaled.float().contiguous(), labels.long())

        return cls(
            name,
            tuple(class_names),
            split(*train),
            split(*val),
            split(*test),
            augment,
            tuple(mean_C.tolist()),
            tuple(std_C.tolist()),
        )

    @property
    def n_classes(self) -> int:
        """How many classes there are, whether or not a split shows all of them."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """C."""
        return self.train.images.shape[1]

    @property
    def height(self) -> int:
        """H, in pixels."""
        return self.train.images.shape[2]

    @property
    def width(self) -> int:
        """W, in pixels."""
        return self.train.images.shape[3]

    @property
    def black(self) -> tuple[float, ...]:
        """What a raw pixel of 0 is after normalisation, C numbers: it fills what a shift uncovers."""
        if not self.mean:
            return (0.0,) * self.channels
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    def __repr__(self) -> str:
        sizes = " / ".join(f"{len(split)} {name}" for name, split in self._splits().items())
        return f"Dataset({self.name}: {_shape(self.train.images)}, {self.n_classes} classes, {sizes})"

    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "val": self.val, "test": self.test}


def check_matches(dataset: Dataset, *, channels: int, height: int, width: int, n_classes: int) -> None:
    """Check that a network can take a data set's images and name its classes.

    Raises:
        DataError: if it cannot, with both sides and what to change.
    """
    has = (dataset.channels, dataset.height, dataset.width, dataset.n_classes)
    if has == (channels, height, width, n_classes):
        return
    raise DataError(
        f"dataset {dataset.name!r} holds {_shape(dataset.train.images)} images of {dataset.n_classes} "
        f"classes, the network takes {channels} x {height} x {width} images and knows {n_classes} classes: "
        f"set input = {{ channels = {has[0]}, height = {has[1]}, width = {has[2]} }} and n_classes = {has[3]}"
    )


def _check_tensor(name: str, value: Tensor, *, ndim: int, dtype: torch.dtype) -> None:
    if value.ndim != ndim or value.dtype != dtype:
        got = f"{value.dtype} of shape {tuple(value.shape)}"
        raise DataError(f"{name} must be {dtype} with {ndim} dimensions, got {got}")


def _shape(images: Tensor) -> str:
    return " x ".join(str(size) for size in images.shape[1:])
