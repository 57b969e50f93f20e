"""What does a network see in pixels? Images, their label maps and its predictions, side by side."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from connsearch.errors import DataError
from connsearch.plots.legend import EDGE
from connsearch.plots.style import SMALL, Picture, look, text_width

Pixels = npt.NDArray[np.uint8]
Colors = dict[str, tuple[int, int, int]]

CAMVID: Colors = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
"""The colours that pictures of CamVid have had since SegNet."""
_OTHER_WORDS = {"sidewalk": "pavement", "signsymbol": "sign", "column_pole": "pole", "person": "pedestrian"}
VOID = (0, 0, 0)
_ROW, _GAP, _WIDTH = 1.45, 0.06, 7.2  # inches: a row's greatest height, between pictures, of all


def class_colors(class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return a colour for each class, K 3: those that CamVid's classes are known by, else hues far apart.

    >>> class_colors(["road", "car"]).tolist()
    [[128, 64, 128], [64, 0, 128]]
    """
    words = [_OTHER_WORDS.get(name.lower(), name.lower()) for name in class_names]
    if set(words) <= CAMVID.keys() and len(set(words)) == len(words):
        return np.array([CAMVID[word] for word in words], np.uint8)
    return np.array([_far_apart(index) for index in range(len(words))], np.uint8)


def _far_apart(index: int) -> list[int]:
    """Return a colour unlike those of other indices: the golden ratio spreads any number of hues."""
    hue = (0.61803398875 * index) % 1
    saturation, value = (0.85, 0.5)[index // 3 % 2], (0.9, 0.65, 0.45)[index % 3]
    return [round(255 * x) for x in colorsys.hsv_to_rgb(hue, saturation, value)]


def plot_segmentation(
    images: Pixels,
    truth: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    class_names: Sequence[str],
    *,
    void: int = -1,
    title: str | None = None,
) -> Figure:
    """Return a row for each image: the image, its label map, the prediction; classes have a legend.

    Args:
        images: N H W 3, or N H W 1 for grey ones.
        truth: N H W, labels.
        predicted: N H W, classes.
        class_names: K.
        void: The label of pixels that belong to no class: black in both maps.
        title: Written above the picture.

    Raises:
        DataError: if there is no image, or shapes differ.
    """
    if not len(images) or images.shape[:3] != truth.shape or truth.shape != predicted.shape:
        shapes = ", ".join(str(x.shape) for x in (images, truth, predicted))
        raise DataError(f"images N H W C and maps N H W must be of one size, got {shapes}")
    colors = class_colors(class_names)
    is_void = truth == void
    maps = [_painted(labels, is_void, colors) for labels in (truth, predicted)]
    panels = [np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images, *maps]
    occurring = np.union1d(truth[~is_void], predicted[~is_void])
    with look():
        n, height_px, width_px = truth.shape
        wide = min((_WIDTH - 2 * EDGE - 2 * _GAP) / 3, _ROW * width_px / height_px)
        high = wide * height_px / width_px
        width = 3 * wide + 2 * _GAP + 2 * EDGE
        legend = _legend(class_names, colors, occurring, bool(is_void.any()), width)
        top = 0.2 + (0.24 if title else 0.0) + EDGE
        below = EDGE + 0.16 * len(legend) + 0.06
        height = top + n * high + (n - 1) * _GAP + below
        figure = Picture(figsize=(width, height))
        for row in range(n):
            for column, panel in enumerate(panels):
                x, y = EDGE + column * (wide + _GAP), height - top - high - row * (high + _GAP)
                axes = figure.add_axes((x / width, y / height, wide / width, high / height))
                axes.imshow(panel[row], interpolation="nearest", aspect="auto")
                axes.set_axis_off()
        for column, word in enumerate(("image", "truth", "prediction")):
            x = EDGE + column * (wide + _GAP) + wide / 2
            figure.text(x / width, 1 - (top - 0.05) / height, word, ha="center", va="bottom", fontsize=8)
        if title:
            figure.text(EDGE / width, 1 - 0.08 / height, title, va="top", fontsize=9)
        _draw_legend(figure, legend, width, height)
    return figure


def _painted(labels: npt.NDArray[np.int64], is_void: npt.NDArray[np.bool_], colors: Pixels) -> Pixels:
    painted = colors[np.where(is_void, 0, labels)]
    painted[is_void] = VOID
    return painted


_Entry = tuple[str, tuple[float, ...]]


def _legend(
    class_names: Sequence[str], colors: Pixels, occurring: npt.NDArray[np.int64], void: bool, width: float
) -> list[list[_Entry]]:
    """Return the classes that occur, and void if it does, in as many lines as they need."""
    entries: list[_Entry] = [(class_names[c], tuple(colors[c] / 255)) for c in occurring.tolist()]
    entries += [("void", tuple(x / 255 for x in VOID))] if void else []
    lines: list[list[_Entry]] = [[]]
    used = 0.0
    for entry in entries:
        needed = _entry_width(entry[0])
        if lines[-1] and used + needed > width - 2 * EDGE:
            lines.append([])
            used = 0.0
        lines[-1].append(entry)
        used += needed
    return lines


def _entry_width(name: str) -> float:
    return text_width(name) + 0.32


def _draw_legend(figure: Figure, lines: Sequence[Sequence[_Entry]], width: float, height: float) -> None:
    """Draw a square of each colour and its name, line by line, from the left."""
    for index, line in enumerate(lines):
        x, y = EDGE, EDGE + 0.16 * (len(lines) - 1 - index)
        for name, color in line:
            corner, size = (x / width, y / height), (0.11 / width, 0.11 / height)
            figure.add_artist(
                Rectangle(corner, *size, facecolor=color, edgecolor="none", transform=figure.transFigure)
            )
            figure.text((x + 0.15) / width, (y + 0.05) / height, name, va="center_baseline", fontsize=SMALL)
            x += _entry_width(name)
