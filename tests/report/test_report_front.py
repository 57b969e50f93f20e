"""A front alone as a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import Reader, data_of

from connsearch.errors import ConnsearchError, StudyError
from connsearch.plots.style import _MORE_MARKERS, TOPOLOGY_MARKERS
from connsearch.report import check_front_path, pareto_html, save_front
from connsearch.search.reading.pareto import ParetoFront


def front(n: int, **columns: object) -> ParetoFront:
    """Return trials of which every second one is beaten; their numbers have gaps."""
    macs = np.arange(1, n + 1) * 500_000
    error = 0.3 / np.arange(1, n + 1) + 0.05 * (np.arange(n) % 2)
    frame = pd.DataFrame(
        {"trial": 3 * np.arange(n), "macs": macs, "val_error": error, "params": macs // 60,
         "topology": "dense", "aggregation": "sum", "widths": "8-16"}
    ).assign(**columns)  # fmt: skip
    return ParetoFront.from_frame(frame, ("val_error", "macs"))


def test_the_page_says_what_each_trial_is(tmp_path: Path) -> None:
    study = front(9)
    page = pareto_html(study, tmp_path / "front.html", title="Digits <b>")
    assert (tmp_path / "front.html").read_text() == page
    found, data = Reader(page), data_of(page)
    assert found.text["h1"] == "Digits <b>"
    assert data["front"] == study.points["trial"].tolist()
    assert data["details"]["3"]["facts"] == [
        ["validation error", "20.0 %"], ["MACs per image", "1 M"], ["parameters", "16.7 k"],
        ["topology", "dense"], ["aggregation", "sum"], ["widths by block", "8-16"],
    ]  # fmt: skip
    named = {word for value in found.values("aria-labelledby") for word in value.split()}
    anchors = {href[1:] for href in found.values("href") if not href.startswith("#trial-")}
    assert {*named, *anchors} <= set(found.values("id"))
    assert not {"trial", "failures", "provenance"} & set(found.values("id"))


def test_the_page_shows_the_columns_that_are_asked_for() -> None:
    study = front(9, seconds=np.arange(9.0))
    data = data_of(pareto_html(study, x="params", y="seconds"))
    assert [data["panels"][0][axis]["label"] for axis in "xy"] == ["parameters", "seconds"]
    assert data["front"] == [0]


def test_the_same_front_gives_the_same_page() -> None:
    assert pareto_html(front(5)) == pareto_html(front(5))


def test_every_topology_has_its_mark() -> None:
    names = [*TOPOLOGY_MARKERS, *(f"own{i}" for i in range(len(_MORE_MARKERS)))]
    marks = data_of(pareto_html(front(len(names), topology=names)))["keys"]["marks"]
    assert set(marks) == set(names)
    assert len(set(marks.values())) == len(names)


def test_nothing_to_draw() -> None:
    with pytest.raises(StudyError, match="no complete trial to draw yet"):
        pareto_html(ParetoFront.from_frame(pd.DataFrame(), ("val_error", "macs")))
    with pytest.raises(StudyError, match=r"no column 'val_eror'. Did you mean 'val_error'"):
        pareto_html(front(3), y="val_eror")


@pytest.mark.parametrize(("name", "start"), [("f.html", b"<!doctype html>"), ("f.SVG", b"<?xml")])
def test_a_front_is_saved_by_its_suffix(name: str, start: bytes, tmp_path: Path) -> None:
    assert save_front(front(3), tmp_path / name).read_bytes().startswith(start)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConnsearchError, match=r"f\.gif: cannot draw to a file ending in '\.gif'"):
        check_front_path(tmp_path / "f.gif")
    with pytest.raises(ConnsearchError, match=r"no/f\.html: there is no directory .*no: make it first"):
        check_front_path(tmp_path / "no" / "f.html")
