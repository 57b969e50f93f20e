"""What a data set is: three splits of images, and which random changes keep a label true.

Images are either normalised already (float32) or raw (uint8, perhaps mapped from a file larger than the
memory) and normalised batch by batch, where they are used.

Shapes: N images, B of them, C channels, H W pixels.
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
        images: N C H W: float32, finite, as networks take them; or uint8, as `inputs` normalises them.
        labels: N, int64, 0 or more; or a class for each pixel: N H W, uint8.
        mean: What `inputs` takes from each channel of uint8 images, C numbers; empty for float32.
        std: What it divides by then, C numbers above 0; empty for float32.
        digest: What a hash of images and labels would tell, where it is known; empty elsewhere.

    Raises:
        DataError: if the tensors are not that, if their lengths differ, or if there are no images.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    digest: str = ""

    def __post_init__(self) -> None:
        self._check_images()
        self._check_labels()
        if len(self.images) != len(self.labels):
            raise DataError(f"a split needs a label per image, got {len(self.images)} and {len(self.labels)}")
        if self.images.numel() == 0:
            raise DataError(f"a split needs images with pixels, got shape {tuple(self.images.shape)}")
        if not self.raw and not torch.isfinite(self.images).all():
            raise DataError("images must be finite, got nan or inf")
        if not self.dense and self.labels.min() < 0:
            raise DataError(f"labels must be 0 or more, got {int(self.labels.min())}")

    def _check_images(self) -> None:
        dtype = torch.uint8 if self.raw else torch.float32
        _check_tensor("images", self.images, ndim=4, dtype=dtype)
        expected = self.images.shape[1] if self.raw else 0
        if not len(self.mean) == len(self.std) == expected:
            kind = "uint8" if self.raw else "float32"
            got = f"{len(self.mean)} and {len(self.std)}"
            raise DataError(f"a split of {kind} images needs {expected} numbers in mean and std, got {got}")
        if not all(std > 0 for std in self.std):
            raise DataError(f"std must be above 0, got {self.std}")

    def _check_labels(self) -> None:
        if not self.dense:
            _check_tensor("labels", self.labels, ndim=1, dtype=torch.int64)
            return
        _check_tensor("label maps", self.labels, ndim=3, dtype=torch.uint8)
        if self.labels.shape[1:] != self.images.shape[2:]:
            got, expected = tuple(self.labels.shape[1:]), tuple(self.images.shape[2:])
            raise DataError(f"label maps must be of the images' height and width {expected}, got {got}")

    @property
    def raw(self) -> bool:
        """Whether images are uint8, to be normalised by `inputs`."""
        return self.images.dtype == torch.uint8

    @property
    def dense(self) -> bool:
        """Whether each pixel has a label, not each image."""
        return self.labels.ndim == 3

    def largest_label(self, void: int = -1) -> int:
        """Return the largest label but `void`; -1 if all labels are."""
        if not self.dense:
            return int(self.labels.max())
        parts = torch.split(self.labels, 256)  # of maps that may not fit into memory at once
        return max(int(x.masked_fill(x == void, -1).max()) for x in (part.short() for part in parts))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {_shape(self.images)})"

    def inputs(self, images_BCHW: Tensor) -> Tensor:
        """Return images of this split as networks take them, float32; on the device where they are."""
        if not self.raw:
            return images_BCHW
        mean_C11, std_C11 = (
            torch.tensor(x, device=images_BCHW.device)[:, None, None] for x in (self.mean, self.std)
        )
        return images_BCHW.float().sub_(mean_C11).div_(std_C11)

    def first(self, count: int) -> Split:
        """Return the first images, at most `count`, without copying them."""
        return Split(self.images[:count], self.labels[:count], self.mean, self.std)

    def to(self, device: torch.device | str) -> Split:
        """Return the split with its tensors on a device; itself if they are there."""
        images, labels = self.images.to(device), self.labels.to(device)
        if images is self.images and labels is self.labels:
            return self
        return Split(images, labels, self.mean, self.std, self.digest)

    def near(self, device: torch.device | str) -> Split:
        """Return the split on a device if it fills at most a quarter of what is free there, else itself."""
        device = torch.device(device)
        if device.type == "cuda" and self.images.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
            return self
        return self.to(device)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set: each image has a label, or each of its pixels; equal only to itself.

    Images are normalised per channel with the mean and the standard deviation of the training
    split: `(raw - mean) / std`, the same for all three splits. `Dataset.normalised` does it at once,
    `Split.inputs` to a batch of raw images.
    Training reads `train`; designs are chosen by `val`; `test` is for the chosen ones only. Without `val`,
    as `connsearch.data.joined` returns it, nothing is chosen any more: all images but the test's train.

    Attributes:
        name: How messages and reports call it.
        class_names: One word per class, in the order of the labels.
        augment: Random changes that keep a label true.
        mean: Raw mean of the training split, C numbers; empty for images taken as they are.
        std: Raw standard deviation of the training split, C numbers; empty likewise.
        void: The label of pixels that belong to no class, in label maps; -1 for none.
        way_out: How images of another size may be had, for messages; empty if they may not.

    Raises:
        DataError: if the splits differ in C, H, W or kind, a label has no class, or a shift is too far.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    test: Split
    augment: Augment = field(default_factory=Augment)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    void: int = -1
    way_out: str = ""

    def __post_init__(self) -> None:
        for split_name, split in self._splits().items():
            place = f"dataset {self.name!r}: {split_name}"
            if split.images.shape[1:] != self.train.images.shape[1:]:
                got, expected = _shape(split.images), _shape(self.train.images)
                raise DataError(f"{place}: images are {got}, those of train {expected}")
            if (split.dense, split.mean, split.std) != (self.train.dense, self.train.mean, self.train.std):
                raise DataError(f"{place}: kind of labels or normalisation differ from those of train")
            if (label := split.largest_label(self.void)) >= self.n_classes:
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
    def dense(self) -> bool:
        """Whether each pixel has a label, not each image."""
        return self.train.dense

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
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}


def check_matches(
    dataset: Dataset, *, channels: int, height: int, width: int, n_classes: int, dense: bool = False
) -> None:
    """Check that a network can take a data set's images and name its classes.

    Args:
        dataset: The data set.
        channels, height, width: Of the images that the network takes.
        n_classes: How many classes it knows.
        dense: Whether it names the class of each pixel, not of each image.

    Raises:
        DataError: if it cannot, with both sides and what to change.
    """
    if dense != dataset.dense:
        raise DataError(_other_task(dataset))
    has = (dataset.channels, dataset.height, dataset.width, dataset.n_classes)
    if has == (channels, height, width, n_classes):
        return
    raise DataError(
        f"dataset {dataset.name!r} holds {_shape(dataset.train.images)} images of {dataset.n_classes} "
        f"classes, the network takes {channels} x {height} x {width} images and knows {n_classes} classes: "
        f"set input = {{ channels = {has[0]}, height = {has[1]}, width = {has[2]} }} and n_classes = {has[3]}"
        f"{dataset.way_out and '; ' + dataset.way_out}"
    )


def _other_task(dataset: Dataset) -> str:
    if dataset.dense:
        return (
            f"dataset {dataset.name!r} has a label for each pixel, the network gives one answer for each "
            'image: take a network for dense prediction, head = "pixels"'
        )
    return (
        f"dataset {dataset.name!r} has a label for each image, the network answers for each pixel: "
        'take a data set with label maps, or a network with another head than "pixels"'
    )


def _check_tensor(name: str, value: Tensor, *, ndim: int, dtype: torch.dtype) -> None:
    if value.ndim != ndim or value.dtype != dtype:
        got = f"{value.dtype} of shape {tuple(value.shape)}"
        raise DataError(f"{name} must be {dtype} with {ndim} dimensions, got {got}")


def _shape(images: Tensor) -> str:
    return " x ".join(str(size) for size in images.shape[1:])
