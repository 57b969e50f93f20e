from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from connsearch import plots
from connsearch.errors import ConnsearchError
from connsearch.graph import TOPOLOGIES, ConnectivityGraph
from connsearch.plots import plot_graph, save, style
from connsearch.plots.scales import scale_of, tick_labels

GRAPH = ConnectivityGraph.from_topology("log_dense", 4)
BUILT_IN = {"chain", "dense", "log_dense", "sparse", "nearest", "evenly_spaced", "half", "every_other",
            "harmonic", "loglog_dense", "random_dag"}  # fmt: skip


def test_importing_the_package_imports_no_matplotlib() -> None:
    code = "import sys, connsearch.plots; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_drawing_imports_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys\n"
        "from connsearch.graph import ConnectivityGraph\n"
        "from connsearch.plots import plot_graph\n"
        "plot_graph(ConnectivityGraph.from_topology('chain', 2))\n"
        "sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had() -> None:
    for name in plots.__all__:
        assert callable(getattr(plots, name))
        assert name in dir(plots)
    with pytest.raises(AttributeError, match="has no attribute 'plot_nothing'"):
        _ = plots.plot_nothing


# ---- looks ---------------------------------------------------------------------------------------------


def test_every_built_in_topology_has_a_marker_of_its_own() -> None:
    assert set(TOPOLOGIES) >= BUILT_IN
    looks = style.markers_of(BUILT_IN)
    assert len({str(marker.matplotlib) for marker in looks.values()}) == len(BUILT_IN)


def test_every_marker_can_be_drawn() -> None:
    for marker in (*style.TOPOLOGY_MARKERS.values(), *style._MORE_MARKERS):
        assert MarkerStyle(marker.matplotlib).is_filled()


def test_known_names_keep_their_look_and_others_get_the_next_in_order() -> None:
    looks = style.colors_of(["zeta", "sum", "alpha", "", "sum"])
    assert list(looks) == ["sum", "alpha", "zeta", ""]
    assert looks["sum"] == style.AGGREGATION_COLORS["sum"]
    assert [looks["alpha"], looks["zeta"]] == list(style._MORE_COLORS[:2])
    assert style.colors_of(reversed(["zeta", "sum", "alpha", ""])) == looks
    many = style.markers_of(f"rule{i}" for i in range(20))
    assert len(many) == 20


@pytest.mark.parametrize(
    ("label", "name"),
    [("sparse(base=3)", "sparse"), (" dense ", "dense"), ("depthwise(form=paper)", "depthwise"), ("", ""),
     (float("nan"), ""), ("chain/dense", "mixed"), ("sparse(base=3), dense", "mixed"), ("mixed", "mixed")],
)  # fmt: skip
def test_base_names(label: object, name: str) -> None:
    assert style.base_name(label) == name


def test_the_callers_settings_stay_and_do_not_leak_in() -> None:
    with mpl.rc_context({"font.size": 40, "text.color": "red", "axes.facecolor": "black"}):
        figure = plot_graph(GRAPH)
        assert mpl.rcParams["font.size"] == 40
    assert {text.get_fontsize() for text in figure.axes[0].texts} == {style.SMALL}


def test_a_notebook_shows_a_picture() -> None:
    picture = plot_graph(GRAPH)
    assert isinstance(picture, style.Picture)
    assert picture._repr_png_().startswith(b"\x89PNG")


# ---- axes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values", "log", "labels"),
    [
        ("macs", [500_000, 8_000_000], True, ["0.5 M", "1 M", "2 M", "5 M"]),
        ("params", [100, 200_000_000], True, ["100", "10 k", "1 M", "100 M"]),
        ("macs", [1_960_000, 1_990_000], False, ["1.96 M", "1.97 M", "1.98 M", "1.99 M"]),
        ("val_error", [0.02, 0.1], False, ["2", "4", "6", "8", "10"]),
        ("val_error", [0.02, 0.9], True, ["2", "5", "10", "20", "50", "100"]),
        ("seconds", [0.0, 9.0], False, ["0", "2", "4", "6", "8"]),
    ],
)
def test_ticks_read_well(column: str, values: list[float], log: bool, labels: list[str]) -> None:
    scale = scale_of(column, values)
    assert scale.log is log
    assert list(scale.tick_labels) == labels
    assert scale.low <= min(values) * scale.factor
    assert scale.high >= max(values) * scale.factor
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)


def test_no_ticks_have_no_labels() -> None:
    assert tick_labels([]) == []


# ---- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_saving_twice_gives_the_same_bytes(tmp_path: Path, suffix: str, start: bytes) -> None:
    paths = [save(plot_graph(GRAPH), tmp_path / f"{name}.{suffix}") for name in ("a", "b")]
    contents = [path.read_bytes() for path in paths]
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.jpg", r"a.jpg: cannot draw to a file ending in '.jpg'. .*Known: .pdf, .png, .svg."),
     ("a.pgn", "Did you mean '.png'"), ("a", "ending in ''"),
     ("none/a.png", "a.png: cannot be written: No such"),
     ("folder.png", "folder.png: cannot be written: ")],
)  # fmt: skip
def test_files_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConnsearchError, match=message):
        save(Figure(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
