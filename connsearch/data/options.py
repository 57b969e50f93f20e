"""What a user may ask of images on disk, whatever their format; checked without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from connsearch.errors import DataError, did_you_mean

FITS = ("crop", "stretch")


@dataclass(frozen=True)
class Options:
    """How images on disk become a data set.

    Attributes:
        val: Share of the training images, of each class alike, that validates where no split does.
        split_seed: Which ones.
        height: Pixels that images are brought to; 0 for as they are, which then must be alike.
        width: Likewise; 0 for `height`.
        fit: "crop" scales an image until it covers height x width and cuts off what lies outside,
            "stretch" scales both sides by themselves.
        channels: 1 (grey), 3 (colour), or 0 for what the first training image has.
        flip: Whether an image's mirror image has the same label.
        shift: Pixels that an image may be moved by; -1 for an eighth of its shorter side.

    Raises:
        DataError: if one is out of its range, naming it.
    """

    val: float = 0.1
    split_seed: int = 0
    height: int = 0
    width: int = 0
    fit: str = "crop"
    channels: int = 0
    flip: bool = True
    shift: int = -1

    def __post_init__(self) -> None:
        if not 0 < self.val < 1:
            raise DataError(f"val is a share of the training images, above 0 and below 1, got {self.val:g}")
        for name in ("split_seed", "height", "width"):
            if (value := getattr(self, name)) < 0:
                raise DataError(f"{name} must be 0 or more, got {value}")
        if self.width and not self.height:
            raise DataError(f"width = {self.width} needs a height: set height")
        if self.fit not in FITS:
            raise DataError(f"unknown fit {self.fit!r}. {did_you_mean(self.fit, FITS)}")
        if self.channels not in (0, 1, 3):
            raise DataError(f"channels must be 1, 3, or 0 for those of the images, got {self.channels}")
        if self.shift < -1:
            raise DataError(
                f"shift is a number of pixels, or -1 for an eighth of the image, got {self.shift}"
            )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that images are brought to; None for as they are."""
        return (self.height, self.width or self.height) if self.height else None

    def decoding(self) -> dict[str, Any]:
        """Return what decides the content of a cache."""
        return {name: value for name, value in asdict(self).items() if name not in ("flip", "shift")}
