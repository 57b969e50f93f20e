"""The page as text: whole without its script, escaped, equal for equal studies, alone in the world."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import made_studies
import pytest
from made_studies import QUESTION
from pages import Reader, data_of

from connsearch.errors import ConnsearchError
from connsearch.report import Report, page_of, report_of, write_report
from connsearch.search.study import Study


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return page_of(report_of(study))


def test_elements_close_and_names_lead_somewhere(page: str) -> None:
    found = Reader(page)
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    named = [word for value in found.values("aria-labelledby") for word in value.split()]
    anchors = [href[1:] for href in found.values("href") if not re.fullmatch(r"#trial-\d+", href)]
    assert {*named, *anchors} <= set(ids)
    assert all(href.startswith("#") for href in found.values("href"))


def test_the_tables_need_no_script(study: Study, page: str) -> None:
    rows = re.findall(
        r'<tr data-trial="(\d+)">', page.partition('id="front-table"')[2].partition("</table>")[0]
    )
    assert [int(row) for row in rows] == study.pareto_front().points["trial"].tolist()
    everything = page.partition('id="trials-table"')[2].partition("</table>")[0]
    assert len(re.findall("<tr data-trial=", everything)) == len(study.trials())


def test_nothing_is_asked_of_a_network(page: str) -> None:
    found = Reader(page)
    assert found.values("src") == []
    assert not {"link", "img", "iframe", "object", "form"} & {tag for tag, _ in found.elements}
    assert re.findall(r"https?://[^\s\"']+", page) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in page
    assert "@import" not in page
    policy = next(v for v in found.values("content") if v.startswith("default-src"))
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'", policy)


def test_what_a_study_says_is_never_markup(page: str) -> None:
    found = Reader(page)
    assert [tag for tag, _ in found.elements].count("script") == 2
    assert found.text["h1"] == QUESTION
    assert found.text["title"] == QUESTION
    assert "document.title" not in found.text["script"].partition('"use strict"')[2]
    data = data_of(page)
    assert str(data["details"]).count("<script>document.title") == 1


def test_the_same_study_gives_the_same_bytes(study: Study, tmp_path: Path) -> None:
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    write_report(report_of(study), first)
    write_report(report_of(Study.load(study.directory)), second)
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.html", "b.html"]


def test_pages_are_small(page: str) -> None:
    assert len(page) < 150_000


def test_a_page_that_cannot_be_written(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ConnsearchError, match=r"nowhere/r\.html: cannot be written: No such file"):
        write_report(report_of(study), tmp_path / "nowhere" / "r.html")


def bad(*_: object, **__: object) -> None:
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: made_studies.run(path, 0), "No trial can be ranked yet"),
        (lambda path: made_studies.run(path, 2, bad), "RuntimeError: no luck"),
        (lambda path: made_studies.run(path, 1), "No trial failed or diverged."),
    ],
    ids=["no trial", "all failed", "one trial"],
)
def test_pages_of_other_studies(make: Callable[[Path], Study], said: str, tmp_path: Path) -> None:
    report: Report = report_of(make(tmp_path / "s"))
    page = page_of(report)
    found = Reader(page)
    assert said in page
    named = {word for value in found.values("aria-labelledby") for word in value.split()}
    anchors = {href[1:] for href in found.values("href") if not re.fullmatch(r"#trial-\d+", href)}
    assert {*named, *anchors} <= set(found.values("id"))
