"""Studies of networks that answer for each pixel, by mean IoU."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from connsearch.data import Augment, Dataset, Split, register_dataset
from connsearch.data.registry import DATASETS
from connsearch.errors import DataError, SpecError, StudyError
from connsearch.plots.files import drawn_columns
from connsearch.plots.scales import column_label
from connsearch.search.config import StudyConfig
from connsearch.search.failures import worst_values
from connsearch.search.measures import compared_error, epoch_error, error_of
from connsearch.search.progress import ConsoleProgress
from connsearch.search.proxies.scores import PROXIES, measure_proxies
from connsearch.search.pruning.stops import curves_of
from connsearch.search.reading.pareto import ParetoFront
from connsearch.search.reading.records import reference_point
from connsearch.search.study import Study, check_data
from connsearch.search.tournament.contestants import tournament_of
from connsearch.search.transfer.studies import _taken

VOID = 7
IOU = {"val_iou_error": "minimize", "macs": "minimize"}
SPACE: dict[str, Any] = {
    "layout": "encoder_decoder",
    "input": {"channels": 1, "height": 8, "width": 8},
    "n_classes": 2,
    "blocks": {
        "count": 3,
        "topology": {"any_of": ["chain", "dense"]},
        "aggregation": "concat",
        "unit": "conv",
        "n_layers": {"low": 1, "high": 2},
    },
    "budget": {"macs": {"low": 60_000, "high": 200_000}},
}


@pytest.fixture(autouse=True)
def maps() -> Iterator[Dataset]:
    """Bright pixels are of class 1; a frame is void."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        images = torch.randn(n, 1, 8, 8, generator=generator)
        labels = (images[:, 0] > 0.8).byte()
        labels[:, 0] = VOID
        return Split(images, labels)

    dataset = Dataset(
        "maps", ("dark", "bright"), split(24), split(8), split(8), Augment(flip=True), void=VOID
    )
    register_dataset("maps")(lambda: dataset)
    yield dataset
    DATASETS.unregister("maps")


def config(**changes: Any) -> StudyConfig:
    train = {"dataset": "maps", "epochs": 2, "batch_size": 8}
    values = {"space": SPACE, "n_trials": 3, "sampler": "random", "objectives": IOU, "train": train}
    return StudyConfig.from_dict(values | changes)


def test_a_study_minimises_what_is_missing_of_mean_iou(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "study", config())
    study.run(3)
    trials = study.trials()
    for trial in trials:
        last = trial.user_attrs["curve"][-1]
        assert trial.values[0] == trial.user_attrs["val_iou_error"] == 1 - last["val_mean_iou"]
        assert trial.user_attrs["val_error"] == last["val_error"] != trial.values[0]
    front = study.pareto_front()
    assert list(front.points["val_iou_error"]) == sorted(front.points["val_iou_error"], reverse=True)
    assert front.reference == {"val_iou_error": 1.0, "macs": 200_000.0}
    frame = study.trials_frame()
    assert frame["val_iou_error"].tolist() == [trial.values[0] for trial in trials]
    assert study.curves_frame()["val_mean_iou"].notna().all()
    assert set(study.status().best) == {"trial", "val_iou_error", "macs"}


def test_a_pruner_goes_by_the_error_of_the_study(tmp_path: Path) -> None:
    study = Study.from_config(tmp_path / "study", config(n_trials=2))
    study.run(2)
    for curve, trial in zip(curves_of(study.trials(), IOU), study.trials(), strict=True):
        assert curve.errors == tuple(1 - epoch["val_mean_iou"] for epoch in trial.user_attrs["curve"])
        assert curve.costs == (trial.user_attrs["cost"]["macs"],)
    assert config(pruner="median(first_epoch=1)").pruner.name == "median"
    with pytest.raises(SpecError, match=r"compares errors: add val_iou_error = 'minimize' to the objectives"):
        config(pruner="median(first_epoch=1)", objectives={"val_iou_error": "maximize"})


def test_a_failed_trial_is_told_as_the_worst() -> None:
    assert worst_values(config(), None, []) == [1.0, 200_000.0]
    assert worst_values(config(objectives={"val_iou_error": "maximize"}), None, []) == [0.0]
    assert reference_point(config()) == {"val_iou_error": 1.0, "macs": 200_000.0}


def test_which_error_a_study_goes_by() -> None:
    assert error_of(["macs", "val_iou_error"]) == "val_iou_error"
    assert error_of(["macs", "val_error"]) == error_of(["macs"]) == "val_error"
    record = {"val_error": 0.25, "val_mean_iou": 0.375}
    assert (epoch_error(record, "val_error"), epoch_error(record, "val_iou_error")) == (0.25, 0.625)
    assert column_label("val_iou_error") == "100 % - validation mean IoU (%)"


def test_data_of_the_other_kind_are_refused_before_the_first_trial() -> None:
    images = "synthetic(channels=1, height=8, width=8, n_classes=2)"
    train = {"dataset": images, "epochs": 2}
    with pytest.raises(
        StudyError, match=r"val_iou_error needs label maps, dataset 'synthetic' has a label for each"
    ):
        check_data(config(train=train))
    with pytest.raises(
        DataError, match=r"'synthetic' has a label for each image, the network answers for each pixel"
    ):
        check_data(config(train=train, objectives={"val_error": "minimize"}))
    with pytest.raises(
        DataError, match=r"'maps' has a label for each pixel, the network gives one answer for each"
    ):
        check_data(config(space={**SPACE, "layout": "encoder"}))
    check_data(config())


def test_proxies_are_of_the_pixels_that_have_a_class() -> None:
    chosen = config()
    spec = chosen.space.member({name: _least(knob) for name, knob in chosen.space.knobs().items()}).spec
    found = measure_proxies(spec, chosen.train, list(PROXIES), study_seed=0, trial=0)
    assert all(value is not None for value in found.values())


def _least(knob: Any) -> Any:
    from connsearch.search.choices import values

    return values(knob)[0]


def test_progress_names_the_error() -> None:
    from connsearch.search.objective import Outcome
    from connsearch.train.result import EpochRecord, TrainResult

    stream = io.StringIO()
    curve = (EpochRecord(1, 0.1, 1.0, 0.5, 1.0, 0.25, 2.0, val_mean_iou=0.375),)
    console, objectives = Console(file=stream, width=400), {"val_iou_error": "minimize"}
    with ConsoleProgress(2, lambda: 1, 1, console, objectives=objectives) as shown:
        spec = config().space.member({n: _least(k) for n, k in config().space.knobs().items()}).spec
        from connsearch.cost import network_cost

        shown.hooks().trial_ended(
            0, Outcome(network_cost(spec), TrainResult(curve, diverged=False, seconds=2.0))
        )
    assert "trial 0: IoU error 62.5 %, " in stream.getvalue()
    assert "best 62.5 % (trial 0)" in stream.getvalue()


def test_a_tournament_is_of_wrong_pixels() -> None:
    with pytest.raises(
        SpecError, match=r"^objectives: a tournament ranks by val_error, .* put val_error in its"
    ):
        tournament_of(config())


def test_mean_iou_is_in_a_record_only_where_studies_go_by_it() -> None:
    assert compared_error({"val_error": 0.2}) == 0.2
    assert compared_error({"val_error": 0.2, "val_iou_error": 0.6}) == 0.6


def test_a_study_of_another_error_is_no_start(tmp_path: Path) -> None:
    earlier = Study.from_config(tmp_path / "earlier", config(objectives={"val_error": "minimize"}))
    earlier.run(1)
    told = _taken(earlier.trials()[0], earlier.config.space, config())
    assert told == "val_iou_error was no objective there"


def test_a_picture_has_the_error_of_the_study_upright() -> None:
    frame = pd.DataFrame(
        {"trial": [0], "macs": [1.0], "params": [2.0], "val_error": [0.1], "val_iou_error": [0.5]}
    )
    front = ParetoFront.from_frame(frame, ("macs", "params", "val_iou_error"))
    assert drawn_columns(front) == ("macs", "val_iou_error")
    assert drawn_columns(ParetoFront.from_frame(frame, ("val_iou_error",))) == ("macs", "val_iou_error")
