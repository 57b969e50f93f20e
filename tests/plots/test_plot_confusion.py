"""Confusions and predictions as pictures: right numbers and colours at the right places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from connsearch.data.classes import KNOWN
from connsearch.errors import DataError
from connsearch.plots.confusion import plot_confusion
from connsearch.plots.segmentation import CAMVID, class_colors, plot_segmentation
from connsearch.plots.style import save, text_width

DRAW = np.random.default_rng(0)


def counts(size: int) -> np.ndarray:
    return DRAW.integers(0, 5, (size, size)) + np.diag(DRAW.integers(20, 90, size))


def test_colours_are_shares_of_the_row_and_cells_say_the_counts() -> None:
    found = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 1_500]])
    axes = plot_confusion(found, ("a", "b", "c")).axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown[[0, 2]], [[6 / 8, 2 / 8, 0], [1 / 1501, 0, 1500 / 1501]])
    assert np.isnan(shown[1]).all()  # never true
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert texts == {(0, 0): "6", (0, 1): "2", (2, 0): "1", (2, 2): "1.5 k"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


@pytest.mark.parametrize("size", [2, 10, 30, 100])
def test_names_of_all_classes_are_there_and_apart(size: int) -> None:
    names = [f"class number {i}" for i in range(size)]
    figure = plot_confusion(counts(size), names, title="net on data, test")
    axes = figure.axes[0]
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == names
    side = axes.get_position().height * figure.get_figheight()
    assert side / size * 72 >= 0.9 * labels[0].get_fontsize()  # a line of text each
    assert labels[0].get_fontsize() >= 4
    assert bool(axes.texts) == (size == 2 or size == 10)
    assert figure.get_figwidth() < 10
    drawn = figure.get_figwidth() * axes.get_position().x0
    assert drawn > max(text_width(name, labels[0].get_fontsize()) for name in names)


def test_counts_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match=r"a confusion of 2 classes has 2 x 2 counts, got \(3, 3\)"):
        plot_confusion(counts(3), ("a", "b"))


def test_classes_of_camvid_have_their_usual_colours() -> None:
    names = KNOWN["camvid"].names
    assert class_colors(names).tolist() == [list(CAMVID[name]) for name in names]
    assert class_colors(("Road", "Sidewalk", "Sky")).tolist() == [
        list(CAMVID[name]) for name in ("road", "pavement", "sky")
    ]


@pytest.mark.parametrize("size", [2, 11, 21, 40])
def test_other_classes_have_colours_that_differ_and_are_not_black(size: int) -> None:
    colors = class_colors([f"class {i}" for i in range(size)]).astype(int)
    apart = np.abs(colors[:, None] - colors[None]).sum(2) + 1000 * np.eye(size, dtype=int)
    assert apart.min() >= 20
    assert colors.sum(1).min() >= 100


def test_maps_are_painted_and_the_legend_names_what_occurs() -> None:
    names = ("sky", "road", "tree")
    truth = np.array([[[0, 0], [1, 9]], [[0, 1], [1, 1]]])
    predicted = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]]])
    images = DRAW.integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    figure = plot_segmentation(images, truth, predicted, names, void=9, title="net on data")
    panels = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(panels) == 6
    np.testing.assert_array_equal(panels[0], images[0])
    sky, road = CAMVID["sky"], CAMVID["road"]
    assert panels[1].tolist() == [[list(sky), list(sky)], [list(road), [0, 0, 0]]]
    assert panels[2].tolist() == [[list(sky), list(road)], [list(road), [0, 0, 0]]]  # void in both
    words = [text.get_text() for text in figure.texts]
    assert words == ["image", "truth", "prediction", "net on data", "sky", "road", "void"]
    patches = [patch.get_facecolor()[:3] for patch in figure.artists or figure.patches]
    assert to_rgb(np.array(sky) / 255) in [tuple(x) for x in patches]


def test_grey_images_and_many_classes_are_drawn(tmp_path: Path) -> None:
    labels = DRAW.integers(0, 60, (1, 12, 20))
    figure = plot_segmentation(
        DRAW.integers(0, 256, (1, 12, 20, 1), dtype=np.uint8),
        labels,
        labels,
        [f"class {i}" for i in range(60)],
    )
    assert np.asarray(figure.axes[0].images[0].get_array()).shape == (12, 20, 3)
    right = max(text.get_position()[0] for text in figure.texts)
    assert right < 1
    assert save(figure, tmp_path / "x.png").stat().st_size > 1000


def test_maps_of_another_size_are_refused() -> None:
    image, labels = np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 4, 4), int)
    with pytest.raises(DataError, match="must be of one size, got"):
        plot_segmentation(image, labels[:, :2], labels, ("a", "b"))
    with pytest.raises(DataError, match="must be of one size, got"):
        plot_segmentation(image[:0], labels[:0], labels[:0], ("a", "b"))
