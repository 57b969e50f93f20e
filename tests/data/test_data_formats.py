"""Every format, from tiny files written here: what is read is what was written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disk_formats import (
    png,
    random_images,
    write_cifar10,
    write_folders,
    write_idx,
    write_parquet,
    write_tar,
)
from torch import Tensor

from connsearch.data import Augment, Dataset, Split, load_dataset, registry
from connsearch.data.cache import DataWarning
from connsearch.errors import DataError

LABELS = [0, 1] * 10


def held(split: Split) -> list[tuple[int, bytes]]:
    """Return label and pixels (H W C) of each image."""
    images_NHWC = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    return [(label, image.tobytes()) for label, image in zip(split.labels.tolist(), images_NHWC, strict=True)]


def written(images: Any, labels: Any) -> list[tuple[int, bytes]]:
    return [
        (label, np.ascontiguousarray(image).tobytes()) for label, image in zip(labels, images, strict=True)
    ]


def parquet_folder(root: Path, **options: Any) -> tuple[Path, Any, Any]:
    train, test = random_images(20, seed=1), random_images(6, seed=2)
    splits = {"train": (train, LABELS), "test": (test, LABELS[:6])}
    return write_parquet(root, splits, **options), train, test


def test_a_parquet_folder_is_read_by_its_path(tmp_path: Path) -> None:
    root, train, test = parquet_folder(tmp_path / "pets")
    data = load_dataset(str(root))
    assert repr(data) == "Dataset(pets: 3 x 8 x 8, 2 classes, 18 train / 2 val / 6 test)"
    assert data.class_names == ("cat", "dog")
    assert held(data.test) == written(test, LABELS[:6])
    assert sorted(held(data.train) + held(data.val)) == sorted(written(train, LABELS))
    assert sorted(data.val.labels.tolist()) == [0, 1]
    assert data.augment == Augment(flip=True, shift=1)


def test_images_are_normalised_by_the_training_split(tmp_path: Path) -> None:
    data = load_dataset(str(parquet_folder(tmp_path / "pets")[0]))
    raw = data.train.images.double()
    np.testing.assert_allclose(data.mean, raw.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.std, raw.std((0, 2, 3), correction=0), rtol=1e-12)
    inputs = data.test.inputs(data.test.images)
    mean, std = (torch.tensor(x)[:, None, None] for x in (data.mean, data.std))
    torch.testing.assert_close(inputs, (data.test.images.float() - mean) / std, rtol=0, atol=0)
    assert inputs.dtype == torch.float32


def test_a_parquet_folder_without_schema_is_read_too(tmp_path: Path) -> None:
    root, _, test = parquet_folder(tmp_path / "plain", names=None, columns=("picture", "class"))
    data = load_dataset(str(root))
    assert data.class_names == ("0", "1")
    assert held(data.test) == written(test, LABELS[:6])


def test_words_are_labels(tmp_path: Path) -> None:
    images = random_images(20)
    words = ["zebra", "ant"] * 10
    splits = {"train": (images, words), "test": (images[:4], words[:4])}
    data = load_dataset(str(write_parquet(tmp_path / "words", splits, names=None)))
    assert data.class_names == ("ant", "zebra")
    assert held(data.test) == written(images[:4], [1, 0, 1, 0])


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_idx_files_are_read(tmp_path: Path, zipped: bool) -> None:
    train, test = random_images(20, channels=1, seed=1), random_images(5, channels=1, seed=2)
    splits = {"train": (train[..., 0], LABELS), "t10k": (test[..., 0], LABELS[:5])}
    data = load_dataset(str(write_idx(tmp_path / "mnist", splits, zipped=zipped)))
    assert repr(data) == "Dataset(mnist: 1 x 8 x 8, 2 classes, 18 train / 2 val / 5 test)"
    assert held(data.test) == written(test, LABELS[:5])
    assert sorted(held(data.train) + held(data.val)) == sorted(written(train, LABELS))
    assert data.augment == Augment(flip=False, shift=1)


@pytest.mark.parametrize("form", ["folder", "around", "archive"])
def test_cifars_binary_version_is_read(tmp_path: Path, form: str) -> None:
    images, labels = random_images(25, height=32, width=32), [k % 10 for k in range(25)]
    root = write_cifar10(tmp_path / "cifar", images, labels)
    path = {"folder": root / "cifar-10-batches-bin", "around": root, "archive": tmp_path / "c.tar.gz"}[form]
    if form == "archive":
        write_tar(root, path)
    data = load_dataset(f"cifar_binary(path={path}, val=0.4)")
    assert data.n_classes == 10
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert held(data.test) == written(images[20:], labels[20:])
    assert sorted(held(data.train) + held(data.val)) == sorted(written(images[:20], labels[:20]))
    assert load_dataset(str(path)).augment == Augment(flip=True, shift=4)


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_cifar_100_has_two_kinds_of_labels(tmp_path: Path, labels: str) -> None:
    images = random_images(8, height=32, width=32)
    records = [
        bytes([k % 2, 50 + k % 4]) + image.transpose(2, 0, 1).tobytes() for k, image in enumerate(images)
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.bin").write_bytes(b"".join(records))
    data = load_dataset({"name": "cifar_binary", "path": str(tmp_path), "labels": labels, "val": 0.5})
    expected = [k % 2 for k in range(8)] if labels == "coarse" else [50 + k % 4 for k in range(8)]
    assert data.n_classes == (20 if labels == "coarse" else 100)
    assert held(data.test) == written(images, expected)


def test_a_folder_for_each_class_is_split(tmp_path: Path) -> None:
    images, classes = random_images(30), ["b", "a", "c"] * 10
    data = load_dataset(str(write_folders(tmp_path / "photos", images, classes)))
    assert data.class_names == ("a", "b", "c")
    assert [len(s) for s in (data.train, data.val, data.test)] == [24, 3, 3]
    everything = held(data.train) + held(data.val) + held(data.test)
    assert sorted(everything) == sorted(written(images, ["abc".index(c) for c in classes]))


def test_folders_for_splits_are_kept(tmp_path: Path) -> None:
    images, classes = random_images(8), ["a", "b"] * 4
    for split in ("train", "Val", "test"):
        write_folders(tmp_path / "photos" / split, images, classes)
    data = load_dataset(str(tmp_path / "photos"))
    assert [len(s) for s in (data.train, data.val, data.test)] == [8, 8, 8]


def test_where_only_val_is_there_it_tests(tmp_path: Path) -> None:
    train, val = random_images(20, seed=1), random_images(4, seed=2)
    root = write_parquet(tmp_path / "two", {"train": (train, LABELS), "validation": (val, [0, 1, 0, 1])})
    data = load_dataset(str(root))
    assert held(data.test) == written(val, [0, 1, 0, 1])
    assert len(data.val) == 2


def test_a_test_split_without_labels_is_left_out_and_told(tmp_path: Path) -> None:
    images = random_images(20)
    splits = {
        "train": (images, LABELS),
        "validation": (images[:4], [0, 1, 0, 1]),
        "test": (images[:3], [-1] * 3),
    }
    root = write_parquet(tmp_path / "hidden", splits)
    with pytest.warns(DataWarning, match=r"hidden: test has no labels \(all are -1\): not used"):
        data = load_dataset(str(root))
    assert len(data.test) == 4


def test_the_validation_split_is_stratified_and_seeded(tmp_path: Path) -> None:
    images = random_images(100)
    labels = [0] * 80 + [1] * 20
    root = write_parquet(tmp_path / "uneven", {"train": (images, labels), "test": (images[:2], [0, 1])})
    one, other, more = (
        load_dataset(f"parquet(path={root}, {what})") for what in ("split_seed=0", "split_seed=1", "val=0.3")
    )
    assert one.val.labels.bincount().tolist() == [8, 2]
    assert more.val.labels.bincount().tolist() == [24, 6]
    assert held(one.val) != held(other.val)
    assert not set(held(one.val)) & set(held(one.train))


def sized(tmp_path: Path, *sizes: tuple[int, int]) -> Path:
    """Ten images of each size, by turns of class a and b."""
    root = tmp_path / "sized"
    for number, (height, width) in enumerate(sizes):
        for index, image in enumerate(random_images(10, height=height, width=width, seed=number)):
            folder = root / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}-{index}.png").write_bytes(png(image))
    return root


def test_images_of_different_sizes_are_an_error_with_the_sizes_and_the_way_out(tmp_path: Path) -> None:
    root = sized(tmp_path, (8, 8), (6, 12))
    expected = (
        r"sized: train: a/1-0.png is 6 x 12 pixels, the first training image 8 x 8 "
        r"\(sizes found: (8 x 8, 6 x 12|6 x 12, 8 x 8)\): set height and width"
    )
    with pytest.raises(DataError, match=expected):
        load_dataset(str(root))


@pytest.mark.parametrize(("fit", "shape"), [("crop", (3, 4, 4)), ("stretch", (3, 4, 6))])
def test_images_are_brought_to_a_size(tmp_path: Path, fit: str, shape: tuple[int, ...]) -> None:
    root = sized(tmp_path, (8, 8), (6, 12))
    width = f", width={shape[2]}" if shape[2] != shape[1] else ""
    data = load_dataset(f"image_folder(path={root}, height=4{width}, fit={fit})")
    assert (data.channels, data.height, data.width) == shape


def test_cropping_keeps_the_middle_and_the_proportions(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200  # the middle half is what a square sees
    for name in "ab":
        (tmp_path / "wide" / name).mkdir(parents=True)
        for index in range(5):
            marked = wide.copy()
            marked[0, 2] = index
            (tmp_path / "wide" / name / f"{index}.png").write_bytes(png(marked))
    cropped = load_dataset(f"image_folder(path={tmp_path / 'wide'}, height=4)").train.images
    assert (cropped[:, :, 1:] == 200).all()
    stretched = load_dataset(f"image_folder(path={tmp_path / 'wide'}, height=4, fit=stretch)").train.images
    assert (stretched[:, :, 2, 0] < 50).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_as_asked(tmp_path: Path, channels: int) -> None:
    root = write_folders(tmp_path / "photos", random_images(20), ["a", "b"] * 10)
    assert load_dataset(f"image_folder(path={root}, channels={channels})").channels == channels


def test_grey_images_among_coloured_ones_become_coloured_but_not_the_other_way(tmp_path: Path) -> None:
    for root, first, others in ((tmp_path / "c", 3, 1), (tmp_path / "g", 1, 3)):
        write_folders(root, random_images(1, channels=first), ["a"])
        write_folders(root / "more", random_images(20, channels=others), ["x"] * 20)
        (root / "more" / "x").rename(root / "b")
        (root / "more").rmdir()
        write_folders(root / "a", random_images(5, channels=first, seed=9), ["deep"] * 5)
    assert load_dataset(str(tmp_path / "c")).channels == 3
    with pytest.raises(DataError, match="is in colour, the first training image is grey: set channels = 3"):
        load_dataset(str(tmp_path / "g"))


def test_a_data_set_of_the_hub_is_read_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    root, _, test = parquet_folder(tmp_path / "upstream")
    original = datasets.load_dataset
    asked: list[Any] = []

    def load(path: str, *args: Any, **options: Any) -> Any:
        asked.append((path, *args, options["revision"]))
        return original(str(root), **{**options, "revision": None})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_dataset("hub(repo=someone/pets, revision=v2)")
    assert asked == [("someone/pets", None, "v2")]
    assert data.name == "someone/pets"
    assert held(data.test) == written(test, LABELS[:6])


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Couldn't reach\n'x/y' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        DataError, match=r"^hub data set 'x/y': cannot be read: Couldn't reach 'x/y' on the Hub: correct"
    ):
        load_dataset("hub(repo=x/y)")
    with pytest.raises(DataError, match="dataset 'hub': repo is missing"):
        load_dataset("hub")


def test_once_decoded_no_reader_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, test = parquet_folder(tmp_path / "pets")
    load_dataset(str(root))
    registry._load.cache_clear()
    for name in ("datasets", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert held(load_dataset(str(root)).test) == written(test, LABELS[:6])


def test_pictures_without_labels_are_told_before_their_number(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": png(image), "path": ""} for image in random_images(4)]
    (tmp_path / "pairs").mkdir()
    pq.write_table(pa.table({"image": cells, "other": cells}), tmp_path / "pairs" / "train.parquet")
    with pytest.raises(DataError, match="no labels: no column holds classes, found image, other: set"):
        load_dataset(str(tmp_path / "pairs"))


def test_inputs_of_float_images_are_these(small_float: Dataset) -> None:
    images: Tensor = small_float.train.images
    assert small_float.train.inputs(images) is images


@pytest.fixture
def small_float() -> Dataset:
    return load_dataset("synthetic(n_train=4)")
