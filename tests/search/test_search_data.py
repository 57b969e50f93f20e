"""Studies on data that lie on disk: named by a path, checked against the space, trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from connsearch.data import registry
from connsearch.errors import DataError, SpecError
from connsearch.registry import Ref
from connsearch.search.config import StudyConfig
from connsearch.search.study import Study, check_data

STUDY = Path(__file__).parents[2] / "studies" / "digits.toml"
SMALL = ["train.epochs=1", "n_trials=1", "sampler=random", "space.budget.macs=500_000", "space.n_classes=2"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNSEARCH_CACHE", str(tmp_path / "cache"))
    registry._load.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 images of 3 x 8 x 8 in 2 classes: dark and light."""
    generator = np.random.default_rng(0)
    for index in range(20):
        folder = tmp_path / "photos" / ("dark", "light")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (8, 8, 3)) + 127 * (index % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


def test_a_path_may_be_set(photos: Path) -> None:
    config = StudyConfig.from_toml(STUDY, [f"train.dataset={photos}"])
    assert config.train.dataset == Ref("image_folder", (("path", str(photos)),))
    assert StudyConfig.from_dict(config.to_dict()).identity() == config.identity()


def test_a_path_in_a_study_file_is_relative_to_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = STUDY.read_text().replace('dataset = "digits"', 'dataset = "./photos"')
    text = text.replace("../search_spaces", str(STUDY.parents[1] / "search_spaces"))
    (tmp_path / "study.toml").write_text(text)
    assert StudyConfig.from_toml("../study.toml").train.dataset.params == (("path", str(photos)),)


def test_a_path_with_nothing_is_an_error_before_the_study_exists(tmp_path: Path) -> None:
    with pytest.raises(
        (DataError, SpecError), match="nope: no such file or folder: give the path of a data set"
    ):
        StudyConfig.from_toml(STUDY, [f"train.dataset={tmp_path / 'nope'}"])


def test_images_that_do_not_fit_the_space_are_told(photos: Path) -> None:
    config = StudyConfig.from_toml(STUDY, [f"train.dataset={photos}", *SMALL])
    message = (
        "dataset 'photos' holds 3 x 8 x 8 images of 2 classes, the network takes 1 x 8 x 8 .*; or set height"
    )
    with pytest.raises(DataError, match=message):
        check_data(config)


def test_a_study_trains_on_images_in_folders(photos: Path, tmp_path: Path) -> None:
    dataset = f"train.dataset=image_folder(path={photos}, channels=1, val=0.3)"
    config = StudyConfig.from_toml(STUDY, [dataset, *SMALL])
    study = Study.from_config(tmp_path / "run", config)
    assert study.run(device="cpu") == 1
    assert len(study.pareto_front().points) == 1
    registry._load.cache_clear()
    assert Study.load(tmp_path / "run").config.train.dataset == config.train.dataset
