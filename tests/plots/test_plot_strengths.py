"""Heat maps of what was learned: the right numbers at the right places, whatever the size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph
from connsearch.plots.strengths import plot_shares_by_class, plot_strengths, short_name
from connsearch.plots.style import save


def strengths(graph: ConnectivityGraph, kind: str = "l2_norm") -> pd.DataFrame:
    """Return a value of its own for each edge into a unit, a transition or the head with several sources."""
    rows = []
    for target, sources in enumerate(graph.sources):
        node = graph.nodes[target]
        block = node.block - (node.kind == "transition")
        for source in sources if len(sources) > 1 else ():
            value = 1 + source + target / 1000
            rows.append((graph.nodes[source].name, node.name, block, kind, value, value / (1 + target)))
    return pd.DataFrame(rows, columns=["source", "reader", "block", "kind", "value", "relative"])


def maps(figure: Figure) -> list[np.ndarray]:
    return [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes if axes.images]


def ticks(axes, which: str) -> list[str]:
    return [label.get_text() for label in getattr(axes, f"get_{which}ticklabels")()]


def test_each_block_has_a_matrix_of_sources_by_readers(blocks) -> None:
    graph = blocks("dense", (3, 2))
    figure = plot_strengths(graph, strengths(graph))
    first, second = maps(figure)
    assert first.shape == (4, 3)  # stem and three layers; layers 2 and 3, transition
    assert second.shape == (3, 2)
    expected = [[1.002, 1.003, 1.004], [2.002, 2.003, 2.004], [np.nan, 3.003, 3.004], [np.nan, np.nan, 4.004]]
    np.testing.assert_allclose(first, expected)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["block 1", "block 2"]
    assert ticks(figure.axes[0], "y") == ["stem", "1", "2", "3"]
    assert ticks(figure.axes[0], "x") == ["2", "3", "trans1"]
    assert ticks(figure.axes[1], "y") == ["trans1", "1", "2"]
    assert ticks(figure.axes[1], "x") == ["2", "head"]


def test_all_blocks_share_one_scale_from_zero(blocks) -> None:
    graph = blocks("dense", (3, 2))
    frame = strengths(graph)
    figure = plot_strengths(graph, frame, title="a title")
    scales = {axes.images[0].get_clim() for axes in figure.axes if axes.images}
    assert scales == {(0.0, frame["value"].max())}
    assert figure.axes[-1].get_ylabel() == "L2 norm of the weights"
    assert figure.texts[0].get_text() == "a title"
    relative = plot_strengths(graph, frame, relative=True)
    assert relative.axes[-1].get_ylabel() == "over the reader's largest"
    assert np.nanmax(maps(relative)[0]) == pytest.approx(frame[frame["block"] == 1]["relative"].max())


@pytest.mark.parametrize("depths", [(1,), (2,), (48, 48, 48), (8, 16, 24), (150,), tuple(range(2, 14))])
def test_pictures_of_any_depth_fit_a_page(blocks, depths: tuple[int, ...], tmp_path) -> None:
    graph = blocks("dense", depths)
    figure = plot_strengths(graph, strengths(graph), title="deep")
    width, height = figure.get_size_inches()
    assert width < 8.2
    assert height < 10.5
    boxes = [axes.get_position() for axes in figure.axes if axes.images]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[i + 1 :])
    assert save(figure, tmp_path / "deep.svg").stat().st_size > 0


def test_words_stay_inside_the_picture_and_apart(blocks) -> None:
    graph = blocks("log_dense", (20, 30))
    figure = plot_strengths(graph, strengths(graph))
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    figure.draw_without_rendering()
    whole = figure.bbox
    for axes in figure.axes:
        for which in ("x", "y"):
            labels = [t for t in getattr(axes, f"get_{which}ticklabels")() if t.get_text()]
            extents = [label.get_window_extent(renderer) for label in labels]
            assert all(whole.x0 <= e.x0 and e.x1 <= whole.x1 and whole.y0 <= e.y0 for e in extents)
            for a, b in pairwise(extents):
                assert not a.overlaps(b)


def test_a_matrix_of_zeros_is_drawn(blocks) -> None:
    graph = blocks("dense", (3,))
    figure = plot_strengths(graph, strengths(graph).assign(value=0.0))
    assert figure.axes[0].images[0].get_clim() == (0.0, 1.0)


def test_wrong_tables_are_errors(blocks) -> None:
    graph = blocks("dense", (3, 2))
    frame = strengths(graph)
    with pytest.raises(SpecError, match="there is no connection to draw"):
        plot_strengths(graph, frame.iloc[:0])
    mixed = frame.assign(kind=["l2_norm"] * 3 + ["mean_gate"] * (len(frame) - 3))
    with pytest.raises(
        SpecError, match=r"several kinds do not compare \(l2_norm, mean_gate\): draw them relative"
    ):
        plot_strengths(graph, mixed)
    assert plot_strengths(graph, mixed, relative=True).axes
    with pytest.raises(
        SpecError, match=r"unknown kind 'l2' of strengths. Known: l2_norm, mean_abs_weight, mean_gate"
    ):
        plot_strengths(graph, frame.assign(kind="l2"))
    with pytest.raises(SpecError, match="no node 'stm'"):
        plot_strengths(graph, frame.replace({"source": {"stem": "stm"}}))


# ---- by class --------------------------------------------------------------------------------------------


def shares(aggregation: str = "routed") -> pd.DataFrame:
    rows = [
        (source, reader, aggregation, name, value + 0.01 * i)
        for source, reader, value in (("a", "b", 0.25), ("a", "c", 0.75), ("b", "c", 1.0))
        for i, name in enumerate(("cat", "dog"))
    ]
    return pd.DataFrame(rows, columns=["source", "reader", "aggregation", "class", "value"])


def test_readers_of_a_routed_source_stand_together_and_lone_ones_are_left_out() -> None:
    figure = plot_shares_by_class(shares())
    (matrix,) = maps(figure)
    np.testing.assert_allclose(matrix, [[0.25, 0.75], [0.26, 0.76]])
    assert figure.axes[0].get_title() == "a to"
    assert ticks(figure.axes[0], "y") == ["cat", "dog"]
    assert ticks(figure.axes[0], "x") == ["b", "c"]


def test_sources_of_a_gated_reader_stand_together() -> None:
    figure = plot_shares_by_class(shares("gated"))
    (matrix,) = maps(figure)
    np.testing.assert_allclose(matrix, [[0.75, 1.0], [0.76, 1.01]])
    assert figure.axes[0].get_title() == "c reads"


def test_classes_are_named_once_in_a_row() -> None:
    frame = pd.concat([shares(), shares().replace({"a": "d"})])
    figure = plot_shares_by_class(frame)
    named = [bool(ticks(axes, "y")) for axes in figure.axes if axes.images]
    assert named == [True, False]


def test_gates_without_a_choice_are_no_picture() -> None:
    with pytest.raises(SpecError, match="there is no gate to draw"):
        plot_shares_by_class(shares().iloc[:0])
    with pytest.raises(SpecError, match="every gate has one connection to give everything to"):
        plot_shares_by_class(shares()[lambda f: f["source"] == "b"])


def test_a_carry_is_called_as_what_it_carries() -> None:
    assert short_name("block2.carry_stem") == "stem"
    assert short_name("block3.carry_block1_layer10") == "1.10"
    assert short_name("block2.path1.unit3") == "2.path1.unit3"
