"""How an image and its label map become pixels of one size, each pixel with its label.

Shapes: C channels, H W pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from connsearch.data.decode import UNREADABLE, Decoder, Pixels, as_pixels, reason_of
from connsearch.data.found import Pair, Picture
from connsearch.errors import DataError

NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
"""Pillow's modes in which a pixel is one number."""


@dataclass(frozen=True)
class PairDecoder:
    """Makes pixels and labels of an image and its label map.

    Images are scaled bilinearly, label maps by their nearest pixels, over the same window.

    Attributes:
        image: Makes pixels of images; its size and fit are those of label maps too.
        void: The label that stands for nothing.
        n_classes: How many classes there are; 0 if that is not known.
    """

    image: Decoder
    void: int
    n_classes: int = 0

    def __call__(self, pair: Picture | Pair) -> Pixels:
        """Return C + 1 H W: the image, and as its last channel the labels.

        Raises:
            DataError: if one of the two is damaged or is not what it should be.
        """
        assert isinstance(pair, tuple)
        image, labels = self.image.opened(pair[0]), _labels(pair[1])
        if labels.shape != (image.height, image.width):
            sizes = [f"{height} x {width}" for height, width in (labels.shape, (image.height, image.width))]
            raise DataError(f"its label map is {sizes[0]} pixels, the image {sizes[1]}: they must be alike")
        self._check(labels)
        image = self.image.fitted(image, Image.Resampling.BILINEAR)
        scaled = self.image.fitted(Image.fromarray(labels), Image.Resampling.NEAREST)
        return np.concatenate([as_pixels(image), as_pixels(scaled)])

    def _check(self, labels: Pixels) -> None:
        strange = labels[(labels != self.void) & (labels >= self.n_classes)] if self.n_classes else labels[:0]
        if strange.size:
            raise DataError(
                f"its label map holds {strange.flat[0]}, labels of {self.n_classes} classes are 0 to "
                f"{self.n_classes - 1}, and {self.void} for none: set classes and void of the data set"
            )


def _labels(mask: bytes) -> Pixels:
    """Return the numbers that a label map holds, H W."""
    try:
        opened = Image.open(io.BytesIO(mask))
        opened.load()
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(f"its label map cannot be read: {reason_of(error)}") from None
    if opened.format == "JPEG":
        raise DataError("its label map is a JPEG, which changes labels: store label maps as PNG")
    if opened.mode not in NUMBERS:
        raise DataError(
            f"its label map is in colour ({opened.mode}): a label map has one number for each pixel, "
            "the class: convert colours to numbers"
        )
    numbers = np.asarray(opened)
    if numbers.dtype != np.uint8 and numbers.size and not 0 <= numbers.min() <= numbers.max() < 256:
        raise DataError(f"its label map holds {numbers.max()}, labels are 0 to 255")
    return numbers.astype(np.uint8)


def numbers_of(maps_NHW: Pixels, void: int) -> tuple[str, ...]:
    """Return names for the classes of label maps that nobody named: 0 up to the largest label, as words."""
    largest = max((int(labels[labels != void].max(initial=0)) for labels in maps_NHW), default=0)
    return tuple(str(label) for label in range(largest + 1))
