"""Label maps on disk become pixels with labels, whatever the layout; what is wrong with them is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from disk_formats import png, random_images, write_folders
from mask_formats import SPLITS, encoded, grey, pair, splits, write_files, write_pairs
from PIL import Image

from connsearch.data import Dataset, check_matches, load_dataset
from connsearch.data.classes import KNOWN
from connsearch.errors import DataError

NAMES = "classes=sky road tree, void=3"
AS_THEY_ARE = f"{NAMES}, flip=false, shift=0"


def check_is(found: Dataset, data: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    """Make sure that a data set holds exactly these images and labels."""
    assert found.dense
    assert found.void == 3
    for name, pairs in data.items():
        split = getattr(found, name)
        assert split.labels.dtype == split.images.dtype == torch.uint8
        np.testing.assert_array_equal(
            split.images.numpy(), np.stack([x for x, _ in pairs]).transpose(0, 3, 1, 2)
        )
        np.testing.assert_array_equal(split.labels.numpy(), np.stack([x for _, x in pairs]))


def one_line(data: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(data)
    assert "\n" not in str(caught.value)


# ---- layouts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("described", [True, False])
def test_parquet_files_hold_images_and_label_maps(tmp_path: Path, described: bool) -> None:
    data = splits()
    write_pairs(tmp_path / "x", data, columns=("photo", "mask"), described=described)
    columns = "" if described else ", image_column=photo, mask_column=mask"
    found = load_dataset(f"parquet(path={tmp_path / 'x'}, {NAMES}{columns})")
    check_is(found, data)
    assert (found.name, found.class_names) == ("x", ("sky", "road", "tree"))
    assert repr(found) == "Dataset(x: 3 x 8 x 12, 3 classes, 6 train / 3 val / 2 test)"


def in_split_folders(root: Path, data: dict) -> None:
    for name, pairs in data.items():
        write_files(pairs, root / name / "images", root / name / "masks")


def in_folders_of_splits(root: Path, data: dict) -> None:
    for name, pairs in data.items():
        write_files(pairs, root / "images" / name, root / "labels" / name)


def as_segnet_has_it(root: Path, data: dict) -> None:
    for name, pairs in data.items():
        write_files(pairs, root / name, root / f"{name}annot")


def as_voc_has_it(root: Path, data: dict) -> None:
    lists, start = root / "ImageSets" / "Segmentation", 0
    lists.mkdir(parents=True)
    for name, pairs in data.items():
        write_files(pairs, root / "JPEGImages", root / "SegmentationClass", start)
        (lists / f"{name}.txt").write_text("".join(f"{start + i:03}\n" for i in range(len(pairs))))
        start += len(pairs)
    (lists / "trainval.txt").write_text("000\n")
    (root / "JPEGImages" / "999.png").write_bytes(png(pair(999)[0]))  # most of VOC has no label map


@pytest.mark.parametrize("write", [in_split_folders, in_folders_of_splits, as_segnet_has_it, as_voc_has_it])
def test_folders_hold_images_and_label_maps(tmp_path: Path, write) -> None:
    data = splits()
    write(tmp_path / "x", data)
    (tmp_path / "x" / "classes.txt").write_text("sky\nroad\ntree\n")
    found = load_dataset(f"mask_folder(path={tmp_path / 'x'}, void=3)")
    check_is(found, data)
    assert found.class_names == ("sky", "road", "tree")
    (tmp_path / "x" / "classes.txt").write_text("air\nroad\ntree\n")
    assert load_dataset(f"mask_folder(path={tmp_path / 'x'}, void=3, val=0.2)").class_names[0] == "air"


def test_a_path_is_enough_where_nothing_needs_to_be_said(tmp_path: Path) -> None:
    data = {name: [pair(i, n_classes=1) for i in range(count)] for name, count in SPLITS.items()}
    in_split_folders(tmp_path / "folders", data)
    write_pairs(tmp_path / "parquet", data)
    for name in ("folders", "parquet"):
        found = load_dataset(str(tmp_path / name))
        assert (found.class_names, found.void, len(found.test)) == (("0", "1"), 255, 2)


def test_classes_are_named_by_a_table_beside_the_files(tmp_path: Path) -> None:
    write_pairs(tmp_path / "x", splits())
    (tmp_path / "x" / "id2label.json").write_text(json.dumps({"1": "road", "0": "sky", "2": "tree"}))
    assert load_dataset(f"parquet(path={tmp_path / 'x'}, void=3)").class_names == ("sky", "road", "tree")
    (tmp_path / "x" / "id2label.json").write_text(json.dumps({"1": "road"}))
    one_line(
        f"parquet(path={tmp_path / 'x'})", r"id2label.json: does not name classes \(its numbers are not 0"
    )


def test_well_known_classes_bring_their_void_label(tmp_path: Path) -> None:
    data = {name: [pair(i, n_classes=11) for i in range(4)] for name in SPLITS}
    write_pairs(tmp_path / "x", data)
    found = load_dataset(f"parquet(path={tmp_path / 'x'}, classes=CamVid)")
    assert (found.void, found.n_classes, found.class_names[3]) == (11, 11, "road")
    assert [len(known.names) for known in KNOWN.values()] == [11, 19, 21]


def test_splits_that_are_not_there_are_taken_from_training_images(tmp_path: Path) -> None:
    pairs = [pair(i) for i in range(20)]
    write_files(pairs, tmp_path / "x" / "images", tmp_path / "x" / "masks")
    found = load_dataset(f"mask_folder(path={tmp_path / 'x'}, {NAMES}, val=0.25)")
    assert [len(split) for split in (found.train, found.val, found.test)] == [11, 4, 5]
    seen = {
        (image.numpy().tobytes(), labels.numpy().tobytes())
        for split in (found.train, found.val, found.test)
        for image, labels in zip(split.images, split.labels, strict=True)
    }
    assert seen == {(x.transpose(2, 0, 1).tobytes(), y.tobytes()) for x, y in pairs}


def test_images_are_scaled_smoothly_and_label_maps_are_not_mixed(tmp_path: Path) -> None:
    labels = np.zeros((16, 24), np.uint8)
    labels[:, 12:], labels[8:, :12] = 2, 3
    image = np.repeat((labels * 80)[..., None], 3, axis=2)
    write_pairs(
        tmp_path / "x", {"train": [(image, labels)] * 3, "val": [(image, labels)], "test": [(image, labels)]}
    )
    found = load_dataset(f"parquet(path={tmp_path / 'x'}, {NAMES}, height=8, width=12)")
    expected = np.zeros((8, 12), np.uint8)
    expected[:, 6:], expected[4:, :6] = 2, 3
    np.testing.assert_array_equal(found.train.labels[0].numpy(), expected)
    assert found.train.images[0, 0, 0, 0] == 0
    assert 0 < int(found.train.images[0, 0, 0, 5]) < 160
    cropped = load_dataset(f"parquet(path={tmp_path / 'x'}, {NAMES}, height=8)")  # the middle, of both alike
    np.testing.assert_array_equal(cropped.train.labels[0].numpy(), expected[:, 2:10])
    np.testing.assert_array_equal((cropped.train.images[0, 0] > 80).numpy(), expected[:, 2:10] >= 2)


def test_label_maps_with_a_palette_and_of_16_bits_are_read(tmp_path: Path) -> None:
    image, labels = pair(0)
    palette = Image.fromarray(labels, "P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    wide = Image.fromarray(labels.astype(np.uint16))
    maps = [encoded(palette, "PNG"), encoded(wide, "PNG"), grey(labels)]
    write_pairs(tmp_path / "x", {name: [(image, x) for x in maps] for name in SPLITS})
    check_is(
        load_dataset(f"parquet(path={tmp_path / 'x'}, {NAMES})"), {n: [(image, labels)] * 3 for n in SPLITS}
    )


def test_the_second_start_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from connsearch.data import build, registry

    write_pairs(tmp_path / "x", splits())
    data = f"parquet(path={tmp_path / 'x'}, {NAMES})"
    first = load_dataset(data)
    registry._load.cache_clear()
    monkeypatch.setattr(build, "_decoded", lambda *_: pytest.fail("decoded again"))
    again = load_dataset(data)
    check_is(again, splits())
    assert again is not first
    assert again.train.digest == first.train.digest
    assert again.mean == first.mean


# ---- what is wrong -------------------------------------------------------------------------------------

GOOD = pair(0)
JPEG = encoded(Image.fromarray(GOOD[1]), "JPEG")
SMALL = pair(1, height=6)[1]
HIGH = np.full((8, 12), 300, np.uint16)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (grey(SMALL), r"its label map is 6 x 12 pixels, the image 8 x 12: they must be alike"),
        (np.full((8, 12), 7, np.uint8), r"its label map holds 7, labels of 3 classes are 0 to 2, and 3 for"),
        (np.full((8, 12), 255, np.uint8), r"its label map holds 255, labels of 3 classes are 0 to 2"),
        (GOOD[0], r"its label map is in colour \(RGB\): a label map has one number for each pixel"),
        (grey(GOOD[1])[:60], r"its label map cannot be read: .*(truncated|broken)"),
        (b"no image at all", r"its label map cannot be read: no image"),
        (JPEG, r"its label map is a JPEG, which changes labels: store label maps as PNG"),
        (encoded(Image.fromarray(HIGH), "PNG"), r"its label map holds 300, labels are 0 to 255"),
    ],
    ids=["size", "label", "void", "colour", "damaged", "nothing", "jpeg", "16 bits"],
)  # fmt: skip
def test_a_bad_label_map_is_named_with_its_place(tmp_path: Path, bad: object, message: str) -> None:
    data = splits()
    data["val"][2] = (data["val"][2][0], bad)
    write_pairs(tmp_path / "x", data)
    one_line(f"parquet(path={tmp_path / 'x'}, {NAMES})", rf"x: val: row 2: {message}")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    data = splits()
    data["train"][4] = (png(data["train"][4][0])[:50], data["train"][4][1])
    write_pairs(tmp_path / "x", data)
    one_line(f"parquet(path={tmp_path / 'x'}, {NAMES})", r"x: train: row 4: cannot be read: ")


def test_a_row_without_a_label_map_is_named(tmp_path: Path) -> None:
    data = splits()
    data["test"][1] = (data["test"][1][0], None)
    write_pairs(tmp_path / "x", data)
    one_line(f"parquet(path={tmp_path / 'x'}, {NAMES})", r"x: test: row 1: annotation: holds no image")


def test_images_of_another_size_need_a_size(tmp_path: Path) -> None:
    data = splits()
    data["val"][1] = pair(9, height=10)
    write_pairs(tmp_path / "x", data)
    one_line(
        f"parquet(path={tmp_path / 'x'}, {NAMES})",
        r"val: row 1 is 10 x 12 pixels, the first training image 8 x",
    )
    assert load_dataset(f"parquet(path={tmp_path / 'x'}, {NAMES}, height=8, width=12)").height == 8


def test_columns_that_could_be_several_things_need_a_word(tmp_path: Path) -> None:
    write_pairs(tmp_path / "x", splits(), columns=("mask", "label"))
    one_line(str(tmp_path / "x"), r"several columns of labels \(mask, label\): set mask_column")
    one_line(
        f"parquet(path={tmp_path / 'x'}, mask_column=label, label_column=mask)",
        r"exclude each other: leave one",
    )
    one_line(
        f"parquet(path={tmp_path / 'x'}, mask_column=nope)", r"several \(mask, label\): set image_column"
    )
    one_line(
        f"parquet(path={tmp_path / 'x'}, mask_column=nope, image_column=mask)",
        r"no column 'nope', found: mask,",
    )


def test_label_maps_are_no_classes_of_images(tmp_path: Path) -> None:
    write_pairs(tmp_path / "x", splits())
    one_line(
        f"parquet(path={tmp_path / 'x'}, label_column=annotation)",
        r"column 'annotation' holds images: for label maps set mask_column",
    )


def test_classes_of_images_have_names_of_their_own(tmp_path: Path) -> None:
    from disk_formats import write_parquet

    images, labels = random_images(6), [0, 1] * 3
    write_parquet(tmp_path / "x", dict.fromkeys(SPLITS, (images, labels)))
    one_line(
        f"parquet(path={tmp_path / 'x'}, classes=a b)", r"has a label for each image: leave out classes, void"
    )


def test_folders_without_label_maps(tmp_path: Path) -> None:
    in_split_folders(tmp_path / "x", splits())
    missing = tmp_path / "x" / "val" / "masks" / "001.png"
    missing.unlink()
    one_line(
        f"mask_folder(path={tmp_path / 'x'})",
        r"val/images/001.png: no label map masks/001\.\*: add it or remove",
    )
    twice = missing.with_name("000.bmp")
    twice.write_bytes(missing.with_name("000.png").read_bytes())
    one_line(
        f"mask_folder(path={tmp_path / 'x'})",
        r"val/masks/000.png: 000.bmp lies beside it: which one is meant\? Remove one",
    )
    write_folders(tmp_path / "y", random_images(2), ["cat", "dog"])
    one_line(f"mask_folder(path={tmp_path / 'y'})", r"y: no label maps: found no folders images/ and masks/")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("void=256", r"void is a label, 0 to 255, or -1 for the usual one, got 256"),
        (
            "classes=camvidd",
            r"classes = 'camvidd' is one name: name all, separated by commas, or one of the known",
        ),
        ("classes=a b a", r"two classes are called 'a': rename one"),
    ],
)
def test_a_bad_name_is_told(tmp_path: Path, options: str, message: str) -> None:
    write_pairs(tmp_path / "x", splits())
    one_line(f"parquet(path={tmp_path / 'x'}, {options})", message)


def test_label_maps_without_labels_are_told(tmp_path: Path) -> None:
    void = {name: [(x, np.full_like(y, 255)) for x, y in pairs] for name, pairs in splits().items()}
    write_pairs(tmp_path / "x", void)
    one_line(str(tmp_path / "x"), r"x: label maps hold 1 class besides 255, at least 2 are needed")


def test_a_single_training_image_cannot_be_divided(tmp_path: Path) -> None:
    write_files([pair(0)], tmp_path / "x" / "images", tmp_path / "x" / "masks")
    one_line(f"mask_folder(path={tmp_path / 'x'}, {NAMES})", r"there is 1 training image left, too few")


def test_a_network_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path / "x", splits())
    maps = load_dataset(f"parquet(path={tmp_path / 'x'}, {NAMES})")
    size = {"channels": 3, "height": 8, "width": 12, "n_classes": 3}
    check_matches(maps, **size, dense=True)
    with pytest.raises(
        DataError, match=r"'x' has a label for each pixel, the network gives one answer for each image"
    ):
        check_matches(maps, **size)
    with pytest.raises(
        DataError, match=r"set input = .* and n_classes = 3; or set height.*; classes and void say what"
    ):
        check_matches(maps, **{**size, "n_classes": 4}, dense=True)
    images = load_dataset("synthetic(height=8, width=12, n_classes=3)")
    with pytest.raises(
        DataError, match=r"'synthetic' has a label for each image, the network answers for each pixel"
    ):
        check_matches(images, **size, dense=True)
