from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from disk_formats import random_images, write_folders

from connsearch.data import DATASETS, Dataset, Split, load_dataset, register_dataset
from connsearch.errors import DataError, SpecError
from connsearch.registry import Ref
from connsearch.search.config import StudyConfig


@pytest.fixture
def scratch() -> Iterator[str]:
    yield "scratch"
    if "scratch" in DATASETS:
        DATASETS.unregister("scratch")


def tiny(**changes: Any) -> Dataset:
    split = Split(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]))
    return Dataset("tiny", ("a", "b"), split, split, split, **changes)


def test_names_are_listed_and_checked_without_torch_or_sklearn() -> None:
    code = (
        "import sys, connsearch.data as data, connsearch.train as train\n"
        "assert {'digits', 'synthetic', 'parquet', 'hub', 'image_folder', 'mask_folder', 'idx', "
        "'cifar_binary'} == set(data.list_datasets())\n"
        "train.TrainConfig.from_dict({'dataset': 'parquet(path=x, flip=false)'})\n"
        "train.TrainConfig.from_dict({'dataset': 'synthetic(noise=2)'})\n"
        "train.TrainConfig.model_json_schema()\n"
        "assert 'Dataset' in dir(data) and 'train' in dir(train)\n"
        "print(sorted({'torch', 'sklearn', 'numpy', 'datasets', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_the_types_does_not_import_sklearn() -> None:
    code = "import sys; from connsearch.data import Dataset; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("name", ["connsearch.data", "connsearch.train"])
def test_an_unknown_attribute_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        getattr(import_module(name), "nothing")  # noqa: B009  # asked as a user would mistype it


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_every_built_in_loads_with_its_defaults_once(name: str) -> None:
    dataset = load_dataset(name)
    assert dataset.name == name
    assert load_dataset(DATASETS.ref(name)) is dataset
    scaled_NCHW = dataset.train.images
    torch.testing.assert_close(scaled_NCHW.mean((0, 2, 3)), torch.zeros(dataset.channels), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        scaled_NCHW.std((0, 2, 3), correction=0), torch.ones(dataset.channels), atol=1e-5, rtol=0
    )
    for split in (dataset.train, dataset.val, dataset.test):
        assert set(split.labels.tolist()) == set(range(dataset.n_classes))
        assert split.images.is_contiguous()


def test_spellings_of_one_data_set_are_one_object() -> None:
    by_label = load_dataset("synthetic(n_train=8, noise=2.0)")
    assert load_dataset(DATASETS.ref("synthetic", noise=2.0, n_train=8)) is by_label
    assert load_dataset("synthetic(n_train=8)") is not by_label


def test_a_typo_names_the_nearest() -> None:
    with pytest.raises(
        SpecError, match=r"unknown dataset 'digit'\. Did you mean 'digits'\? Known: .*digits, "
    ):
        load_dataset("digit")
    with pytest.raises(SpecError, match=r"dataset 'synthetic' has no parameter 'nois'\. Did you mean"):
        load_dataset("synthetic(nois=1)")


def test_a_name_registered_anew_is_loaded_anew(scratch: str) -> None:
    register_dataset(scratch)(lambda: tiny())
    first = load_dataset(scratch)
    DATASETS.unregister(scratch)
    register_dataset(scratch)(lambda: tiny())
    assert load_dataset(scratch) is not first


def test_parameters_reach_the_function(scratch: str) -> None:
    seen = []

    @register_dataset(scratch)
    def load(*, size: int = 3, dark: bool = False) -> Dataset:
        seen.append((size, dark))
        return tiny()

    load_dataset("scratch(dark=true)")
    assert seen == [(3, True)]


def test_a_function_that_returns_no_dataset_is_an_error(scratch: str) -> None:
    register_dataset(scratch)(lambda: None)
    with pytest.raises(DataError, match="dataset 'scratch': its function returned None, not a Dataset"):
        load_dataset(scratch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "data" / "photos", random_images(4), ["a", "b", "a", "b"])


def test_a_path_stands_for_what_lies_there(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Ref("image_folder", (("path", str(photos)),))
    assert DATASETS.parse(str(photos)) == expected
    assert DATASETS.parse(f"{photos}/") == expected
    monkeypatch.setenv("HOME", str(photos.parent))
    assert DATASETS.parse("~/photos") == expected
    monkeypatch.chdir(photos.parent)
    assert DATASETS.parse("./photos") == expected
    assert DATASETS.parse("photos") == expected
    assert DATASETS.parse("image_folder(path=photos)") == expected
    assert DATASETS.parse({"name": "image_folder", "path": "photos"}) == expected
    assert DATASETS.parse(expected.label) == expected


def test_a_registered_name_is_no_path(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    photos.rename("digits")
    assert DATASETS.parse("digits") == Ref("digits")
    with pytest.raises(SpecError, match="unknown dataset 'photo'"):
        DATASETS.parse("photo")
    with pytest.raises(DataError, match=r"photo: no such file or folder"):
        DATASETS.parse("./photo")


@pytest.mark.parametrize(
    ("written", "meant"), [("parqet(path=/x)", "parquet"), ("hubb(repo=a/b, revision=v1)", "hub")]
)
def test_a_mistyped_reader_with_a_path_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    name = written.partition("(")[0]
    with pytest.raises(SpecError, match=rf"unknown dataset '{name}'\. Did you mean '{meant}'\?"):
        DATASETS.parse(written)
    write_folders(tmp_path / "photos (1)", random_images(2), ["a", "b"]).rename(tmp_path / "photos(1)")
    monkeypatch.chdir(tmp_path)
    assert DATASETS.parse("photos(1)") == Ref("image_folder", (("path", str(tmp_path / "photos(1)")),))


def test_a_path_in_a_study_is_taken_from_the_studys_folder(photos: Path) -> None:
    study, there = photos.parent / "study.toml", str(photos)
    for written in ("./photos", "photos"):
        assert DATASETS.beside(written, study) == there
        table = {"name": "image_folder", "path": written, "val": 0.2}
        assert DATASETS.beside(table, study) == {**table, "path": there}
        label = "image_folder(path={} , val=0.2)"
        assert DATASETS.beside(label.format(written), study) == label.format(there)
    (photos.parent / "digits").mkdir()
    others = ("digits", "synthetic(noise=2)", "./nowhere", "image_folder(path=nowhere)", "~/photos", there, 7)
    for other in others:
        assert DATASETS.beside(other, study) == other
    assert DATASETS.beside({"name": "digits", "path": 7}, study) == {"name": "digits", "path": 7}


def test_a_study_file_reads_a_path_beside_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From whatever directory, as in the documentation: with a slash or without, as a word or a table."""
    study, folder = photos.parent / "study.toml", photos.parent / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    space = next(Path(__file__).parents[2].glob("search_spaces/digits.toml"))
    for written in (
        '"photos"',
        '"image_folder(path=photos)"',
        '{ name = "image_folder", path = "photos" }',
        '{ name = "image_folder", path = "./photos" }',
    ):
        study.write_text(f'space = "{space}"\nn_trials = 1\n[train]\ndataset = {written}\nepochs = 1\n')
        assert StudyConfig.from_toml(study).train.dataset == Ref("image_folder", (("path", str(photos)),))


def test_data_sets_on_disk_take_their_own_parameters_and_those_of_all() -> None:
    common = {"val", "split_seed", "height", "width", "fit", "channels", "flip", "shift"}
    pixels = {"classes", "void"}
    columns = {"image_column", "label_column", "mask_column", "config"} | pixels
    own = {
        "parquet": {"path"} | columns,
        "hub": {"repo", "revision"} | columns,
        "mask_folder": {"path"} | pixels,
        "image_folder": {"path"},
        "idx": {"path"},
        "cifar_binary": {"path", "labels"},
    }
    for name, parameters in own.items():
        assert set(DATASETS.parameters(name)) == parameters | common
    assert DATASETS.parameters("idx")["flip"] is False
