"""How a file's bytes become pixels: one size, one number of channels, 8 bits each.

Shapes: C channels, H W pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from connsearch.data.found import Picture
from connsearch.errors import DataError

Pixels = npt.NDArray[np.uint8]
GREY = ("1", "L", "LA", "La")
COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises on damaged files, by format."""


@dataclass(frozen=True)
class Decoder:
    """Makes pixels of pictures.

    Attributes:
        channels: 1, 3, or 0 for what a picture has.
        size: Height and width to bring it to; None for as it is.
        fit: "crop" or "stretch", as `Options` says.
        keep_colour: Whether a picture in colour is an error where `channels` is 1.
    """

    channels: int
    size: tuple[int, int] | None
    fit: str
    keep_colour: bool = False

    def __call__(self, picture: Picture) -> Pixels:
        """Return C H W.

        Raises:
            DataError: if it is damaged, no image, or not of 8 bits.
        """
        if not isinstance(picture, bytes) and self._as_it_is(picture):
            return np.ascontiguousarray(picture.transpose(2, 0, 1))
        return as_pixels(self.fitted(self.opened(picture), Image.Resampling.BICUBIC))

    def opened(self, picture: Picture) -> Image.Image:
        """Return a picture in the channels that are wanted, of the size that it has.

        Raises:
            DataError: as a call.
        """
        try:
            return self._opened(picture)
        except (*UNREADABLE, Image.DecompressionBombError) as error:
            raise DataError(f"cannot be read: {reason_of(error)}") from None

    def _as_it_is(self, pixels: Pixels) -> bool:
        """Say whether pixels need no change."""
        return self.channels in (0, pixels.shape[2]) and self.size in (None, pixels.shape[:2])

    def _opened(self, picture: Picture) -> Image.Image:
        if isinstance(picture, bytes):
            opened = Image.open(io.BytesIO(picture))
            opened.load()
            image: Image.Image = ImageOps.exif_transpose(opened)
        else:
            image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
        if image.mode not in GREY + COLOUR:
            raise DataError(
                f"has pixels of mode {image.mode}, not of 8 bits: convert it to 8 bits per channel"
            )
        if self.keep_colour and self.channels == 1 and image.mode not in GREY:
            raise DataError("is in colour, the first training image is grey: set channels = 3, or 1 for grey")
        channels = self.channels or (1 if image.mode in GREY else 3)
        if image.mode in ("P", "PA") and "transparency" in image.info:
            image = image.convert("RGBA")  # whose conversion knows what is transparent
        return image.convert("L" if channels == 1 else "RGB")

    def fitted(self, image: Image.Image, how: Image.Resampling) -> Image.Image:
        """Return a picture brought to `size`."""
        if self.size is None or self.size == (image.height, image.width):
            return image
        height, width = self.size
        if self.fit == "stretch":
            return image.resize((width, height), how)
        return ImageOps.fit(image, (width, height), how)


def as_pixels(image: Image.Image) -> Pixels:
    """Return C H W."""
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def reason_of(error: Exception) -> str:
    """Return why Pillow cannot read a file, for a message."""
    return "no image" if isinstance(error, UnidentifiedImageError) else str(error)
