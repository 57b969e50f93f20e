"""What a report knows of a study, whatever the study is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_studies
import pytest
from made_studies import DIVERGES, FAILS, SCRIPT

from connsearch.cost import network_cost
from connsearch.errors import StudyError, TrainError
from connsearch.plots.style import TOPOLOGY_MARKERS
from connsearch.report import Report, findings, page_of, report_of, trials
from connsearch.report.charts import mark_path
from connsearch.report.findings import Failure
from connsearch.report.networks import draw
from connsearch.search.reading.importance import Importance, KnobImportance
from connsearch.search.study import Study
from connsearch.search.tournament.contestants import tournament_of
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets import preset
from connsearch.spec.presets.dense_prediction import fc_log_densenet
from connsearch.train.finished import SeedResult, Summary


@pytest.fixture(scope="module")
def report(study: Study) -> Report:
    return report_of(study)


# ---- networks and what they cost ---------------------------------------------------------------------------


def test_costs_of_nodes_add_up_to_the_network(study: Study, report: Report) -> None:
    for trial in study.trials():
        cost = network_cost(NetworkSpec.from_dict(trial.user_attrs["network"]))
        detail = report.details[trial.number]
        assert sum(macs for macs, _, _ in detail["nodes"]) == cost.macs
        assert sum(params for _, params, _ in detail["nodes"]) == cost.params
        layout = report.layouts[detail["layout"]]
        assert len(layout["nodes"]) == len(detail["nodes"])
        assert len(layout["edges"]) == len(detail["edges"]) == cost.n_edges


def test_layouts_are_those_of_the_graphs(study: Study, report: Report) -> None:
    for trial in study.trials():
        graph = NetworkSpec.from_dict(trial.user_attrs["network"]).graph()
        layout = report.layouts[report.details[trial.number]["layout"]]
        assert [name for name, *_ in layout["nodes"]] == [node.name for node in graph.nodes]
        assert {(s, t) for s, t, *_ in layout["edges"]} == set(graph.edges())
        assert all(layout["left"] < x < layout["right"] for _, _, x, _ in layout["nodes"])


def test_networks_of_equal_connectivity_share_a_layout(directory: Path) -> None:
    blocks = {"count": 1, "topology": "dense", "n_layers": 3, "aggregation": "sum"}
    study = made_studies.run(directory, 4, space={**made_studies.SPACE, "blocks": blocks})
    report = report_of(study)
    assert len(report.layouts) == 1
    assert {detail["layout"] for detail in report.details.values()} == {0}


def test_a_page_that_would_get_too_heavy_keeps_the_front(
    study: Study, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MOST_NUMBERS", 60)
    short = report_of(study)
    drawn = [number for number, detail in short.details.items() if "layout" in detail]
    assert 0 < len(drawn) < len(study.trials())
    assert set(drawn) <= set(report.front)
    assert short.left_out == len(study.trials()) - len(drawn)
    assert report.left_out == 0


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        (preset("densenet-40-12"), 0),
        (preset("fractalnet-20"), 0),
        (fc_log_densenet((2, 2, 3, 2, 2), 4), 3),
    ],
    ids=["blocks", "paths", "scales"],
)
def test_networks_of_all_shapes(spec: NetworkSpec, lines: int) -> None:
    drawn, cost = draw(spec), network_cost(spec)
    assert len(drawn.layout["lines"]) == lines
    assert sum(macs for macs, _, _ in drawn.nodes) == cost.macs
    assert sum(params for _, params, _ in drawn.nodes) == cost.params
    assert (len(drawn.nodes), len(drawn.edges)) == (len(spec.graph().nodes), cost.n_edges)
    places = {(x, y) for _, _, x, y in drawn.layout["nodes"]}
    assert len(places) == len(drawn.nodes)
    for source, target, _, shape in drawn.layout["edges"]:
        if isinstance(shape, list):  # from one node to the other
            ends = [drawn.layout["nodes"][node][2:] for node in (source, target)]
            assert [shape[0], shape[-1]] == ends
            assert len(shape) % 3 == 1 or len(shape) == 2


# ---- trials ------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_trial(study: Study, report: Report) -> None:
    best = report.details[report.front[0]]
    facts = dict(best["facts"])
    row = report.rows[report.front[0]]
    assert facts["validation error"] == f"{100 * row['val_error']:.1f} %"
    assert facts["training steps"] == "1.5 s"
    assert len(best["curve"]["val_error"]) == 3
    command = dict(best["commands"])["train it in full, with three seeds"]
    assert command == f"connsearch retrain {study.directory} {report.front[0]} --seeds 0,1,2"
    assert report.details[FAILS]["notes"] == [f"why it failed: RuntimeError: {SCRIPT}"]
    assert "curve" not in report.details[FAILS]
    assert "commands" not in report.details[FAILS]


def test_directories_are_quoted_in_commands(tmp_path: Path) -> None:
    study = made_studies.run(tmp_path / "my study; rm", 1)
    line = report_of(study).details[0]["commands"][0][1]
    assert f"'{tmp_path}/my study; rm' 0" in line


def test_failures_are_grouped_by_reason(report: Report) -> None:
    failed, diverged = sorted(report.failures.rows, key=lambda row: row.kind, reverse=True)
    assert diverged == Failure("diverged", "diverged", (DIVERGES,), "")
    assert (failed.kind, failed.reason, failed.trials) == ("failed", f"RuntimeError: {SCRIPT}", (FAILS,))
    assert "Traceback" in failed.detail


# ---- studies of all kinds ----------------------------------------------------------------------------------


def test_a_finished_study(study: Study, report: Report) -> None:
    assert report.state == "Finished: 8 of 8 trials."
    assert report.title == made_studies.QUESTION
    assert report.front == study.pareto_front().points["trial"].tolist()
    assert [panel["x"]["label"] for panel in report.panels] == ["MACs per image (multiply-accumulates)"]
    assert len(report.panels[0]["points"]) == 6
    assert report.history is not None
    assert report.history["size"]["steps"][-1] == [8, len(report.front)]
    assert (report.standings, report.importance, report.retrained) == (None, None, [])


def test_a_study_that_goes_on(directory: Path) -> None:
    report = report_of(made_studies.run(directory, 3, n_trials=8, question=""))
    assert report.state == "Finished: 3 of 3 trials."
    assert report.title == "Study made"
    study = Study.load(directory)
    study.ask_for(8)
    assert report_of(study).state == "Not finished: 3 of 8 trials so far. What follows may change."


def test_a_study_without_a_trial(directory: Path) -> None:
    report = report_of(made_studies.run(directory, 0))
    assert report.state == "Not finished: 0 of 8 trials so far. What follows may change."
    assert (report.rows, report.details, report.front, report.panels) == ({}, {}, [], [])
    assert report.history is None


def test_a_study_in_which_all_failed(directory: Path) -> None:
    def bad(*_: Any, **__: Any) -> None:
        raise RuntimeError("no luck")

    report = report_of(made_studies.run(directory, 3, bad))
    assert (report.front, report.panels, report.history) == ([], [], None)
    assert report.failures.rows[0].trials == (0, 1, 2)
    assert report.figures == (("trials finished", "3 of 3", "3 failed"),)
    assert all("layout" in detail for detail in report.details.values())


@pytest.mark.parametrize(
    ("objectives", "labels"),
    [
        (["val_error"], ["MACs per image (multiply-accumulates)"]),
        (["macs", "params"], ["MACs per image (multiply-accumulates)"]),
        (["val_error", "macs", "params"], ["MACs per image (multiply-accumulates)", "parameters"]),
    ],
    ids=["one", "two costs", "three"],
)
def test_objectives(directory: Path, objectives: list[str], labels: list[str]) -> None:
    report = report_of(made_studies.run(directory, 5, objectives=dict.fromkeys(objectives, "minimize")))
    assert [panel["x"]["label"] for panel in report.panels] == labels
    assert report.front_columns[: len(objectives) + 1] == ["trial", *objectives]


# ---- beyond trials -----------------------------------------------------------------------------------------


def test_importance_needs_ten_trials(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    knob = KnobImportance("topology", 0.6, 0.5, 0.7, 0.1, 12)
    asked = []

    def found(trials: Any, config: Any, objective: str, *, at_equal_macs: bool) -> Importance:
        asked.append((len(trials), objective, at_equal_macs))
        return Importance(objective, at_equal_macs, "fanova", 10, 0.5, 0.2, (knob,))

    monkeypatch.setattr(findings, "importance_of", found)
    assert report_of(made_studies.run(directory, 11)).importance is None  # nine of them can be ranked
    study = made_studies.run(directory, 12)
    report = report_of(study)
    assert asked == [(12, "val_error", True)]
    assert report.importance is not None
    assert report.importance["knobs"][0]["stands_out"]
    assert report_of(study, with_importance=False).importance is None


TOURNAMENT = {"macs": 100_000, "seeds": 2, "count": 1, "n_layers": 3, "width_ratio": 1.0}


def always_well(*given: Any, trial: int, **more: Any) -> Any:
    return made_studies.made_up(*given, trial=0, **more)


def tournament(directory: Path, **changes: Any) -> Study:
    """Return a tournament that has not begun."""
    space = {**made_studies.SPACE, "budget": {"macs": TOURNAMENT["macs"], "tolerance": 0.5}}
    begun = tournament_of(made_studies.config(tournament=TOURNAMENT, space=space, **changes))
    return made_studies.run(directory, 0, **begun.to_dict())


def test_the_tournament_beside_a_study_is_shown(directory: Path) -> None:
    study = made_studies.run(directory, 2)
    assert report_of(study).standings is None
    beside = tournament(directory.with_name("made-tournament"))
    unfinished = report_of(study).standings
    assert unfinished is not None
    assert unfinished["problem"].startswith("no round is complete yet: 0 of")
    made_studies.run(beside.directory, beside.config.n_trials, always_well, **beside.config.to_dict())
    found = report_of(study).standings
    assert found is not None
    assert found["directory"] == str(beside.directory)
    assert [row["rank"] for row in found["contestants"]] == [*range(1, len(found["contestants"]) + 1)]
    assert report_of(Study.load(beside.directory), with_importance=False).standings == found


def test_the_tournament_is_found_from_inside_the_study(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_studies.run(directory, 1)
    tournament(directory.with_name("made-tournament"))
    monkeypatch.chdir(directory)
    report = report_of(Study.load("."))
    assert report.name == "made"
    assert report.standings is not None
    assert report.standings["directory"] == "../made-tournament"


def test_a_tournament_of_other_images_is_not_that_of_the_study(directory: Path) -> None:
    study = made_studies.run(directory, 1)
    other = made_studies.TRAIN["dataset"].replace("n_train=64", "n_train=32")
    tournament(directory.with_name("made-tournament"), train={**made_studies.TRAIN, "dataset": other})
    assert report_of(study).standings is None


def test_what_is_no_tournament_is_refused(study: Study) -> None:
    with pytest.raises(StudyError, match=r"study: is no tournament: make one with `connsearch tournament"):
        report_of(study, tournament=study.directory)


def test_trainings_in_full(directory: Path) -> None:
    study = made_studies.run(directory, 1)
    results = tuple(
        SeedResult(seed, 3, False, 1.0, 0.1, None, None, 0.5, error, None)
        for seed, error in enumerate((0.10, 0.12))
    )
    folder = directory / "retrained" / "trial-0"
    folder.mkdir(parents=True)
    Summary("n", 10**6, 2000, "digits", ("train", "val"), 1437, 360, 3, results).write(folder)
    (row,) = report_of(study).retrained
    assert (row["trial"], row["name"], row["seeds"], row["macs"]) == (0, "trial-0", 2, "1 M")
    assert (row["test_error"], row["test_errors"]) == ("11.00 ± 1.41 %", "10.00 to 12.00 %")
    assert row["mean_at_95"] == ""  # which two seeds cannot tell
    assert '<a href="#trial-0">trial 0</a>' in page_of(report_of(study))
    (folder / "summary.json").write_text("{")
    with pytest.raises(TrainError, match=r"summary\.json: is damaged"):
        report_of(study)


@pytest.mark.parametrize("name", sorted(TOPOLOGY_MARKERS))
def test_marks_are_paths_of_about_one(name: str) -> None:
    path = mark_path(TOPOLOGY_MARKERS[name])
    assert path.startswith("M")
    numbers = [float(n) for n in path.translate(str.maketrans("MLCQZ", "     ")).split()]
    assert 0.4 <= max(map(abs, numbers)) <= 1.2
