"""What is wrong with data on disk is one line: which file, what, and the way out."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from disk_formats import (
    png,
    random_images,
    write_cifar10,
    write_folders,
    write_idx,
    write_parquet,
    write_tar,
)
from PIL import Image

from connsearch.data import check_matches, load_dataset
from connsearch.errors import DataError

LABELS = [0, 1] * 10


def one_line(path: Path | str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(str(path))
    assert "\n" not in str(caught.value)


# ---- what lies at a path -------------------------------------------------------------------------------


def test_nothing_at_a_path(tmp_path: Path) -> None:
    one_line(tmp_path / "nope", r"nope: no such file or folder: give the path of a data set")


def test_an_empty_folder(tmp_path: Path) -> None:
    one_line(tmp_path, r"no data set: the folder is empty; what can be read: Parquet files, IDX files")


def test_something_else_says_what_it_is(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "old").mkdir()
    one_line(tmp_path, r"no data set: found 2 x \.npz, 1 x \.txt, 1 x folder; what can be read")


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(random_images(1)[0]))
    one_line(tmp_path, r"no data set: its images lie in no folders, so they have no labels \(found 1 x \.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "train" / "1.png")
    one_line(
        tmp_path, r"train: no labels: 1 images \(1\.png\) lie in no folder: put each into a folder named"
    )


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").touch()
    one_line(tmp_path / "x.parquet", "x.parquet: a file, no folder and no archive of CIFAR: give the folder")


@pytest.mark.parametrize("name", ["parquet", "image_folder", "idx", "cifar_binary"])
def test_a_reader_needs_a_path_with_its_own_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"dataset '{name}': path is missing: {name}\(path=<folder>\)"):
        load_dataset(name)
    with pytest.raises(DataError, match=r"here: .*(no folder|neither)"):
        load_dataset(f"{name}(path={tmp_path / 'here'})")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("val=1.0", "val is a share of the training images, above 0 and below 1, got 1"),
        ("val=0", "val is a share of the training images, above 0 and below 1, got 0"),
        ("split_seed=-1", "split_seed must be 0 or more, got -1"),
        ("height=-8", "height must be 0 or more, got -8"),
        ("width=8", "width = 8 needs a height: set height"),
        ("fit=crp", "unknown fit 'crp'. Did you mean 'crop'"),
        ("channels=2", "channels must be 1, 3, or 0 for those of the images, got 2"),
        ("shift=-2", "shift is a number of pixels, or -1 for an eighth of the image, got -2"),
    ],
)
def test_an_option_out_of_range_is_named(option: str, message: str) -> None:
    with pytest.raises(DataError, match=f"dataset 'idx': {message}"):
        load_dataset(f"idx(path=/x, {option})")


# ---- Parquet -------------------------------------------------------------------------------------------


def test_a_cut_off_parquet_file(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "pets", {"train": (random_images(20), LABELS)})
    file = next(root.iterdir())
    file.write_bytes(file.read_bytes()[:-200])
    one_line(root, r"pets/train-00000-of-00001\.parquet: cannot be read: Parquet magic bytes")


def test_a_damaged_image_is_named_by_its_row(tmp_path: Path) -> None:
    images = [png(image) for image in random_images(20)]
    images[13] = images[13][:60]
    one_line(
        write_parquet(tmp_path / "pets", {"train": (images, LABELS)}), r"pets: train: row 13: cannot be read"
    )
    images[13] = b"hello"
    one_line(
        write_parquet(tmp_path / "text", {"train": (images, LABELS)}),
        r"text: train: row 13: cannot be read: no image",
    )


def test_no_labels_and_too_many_columns_of_them(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": png(image), "path": ""} for image in random_images(12)]
    for name in ("none", "two"):
        (tmp_path / name).mkdir()
    pq.write_table(pa.table({"img": cells, "size": [1.0] * 12}), tmp_path / "none" / "train.parquet")
    one_line(
        tmp_path / "none", r"none: no labels: no column holds classes, found img, size: set label_column"
    )
    two = {"img": cells, "label": [0, 1] * 6, "class": [0, 0, 1, 1] * 3}
    pq.write_table(pa.table(two), tmp_path / "two" / "train.parquet")
    one_line(tmp_path / "two", r"two: several columns of labels \(label, class\): set label_column")
    data = load_dataset(f"parquet(path={tmp_path / 'two'}, label_column=class, val=0.5)")
    with pytest.raises(DataError, match=r"two: no column 'clas', found: img, label, class"):
        load_dataset(f"parquet(path={tmp_path / 'two'}, label_column=clas)")
    assert data.n_classes == 2


def test_labels_that_name_no_class(tmp_path: Path) -> None:
    images = random_images(20)
    labels = [0, 1] * 9 + [1, -1]
    one_line(
        write_parquet(tmp_path / "pets", {"train": (images, labels)}),
        r"pets: train: row 19 has the label -1, labels of 2 classes are 0 to 1: correct or remove 1 images",
    )
    splits = {"train": (images, LABELS), "test": (images[:3], [0, 1, 7])}
    one_line(
        write_parquet(tmp_path / "more", splits, names=None),
        r"more: test: row 2 has the label 7, which no training image has: remove these 1 images",
    )


def test_paths_in_place_of_images(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": None, "path": "/pets/1.png"}] * 20
    schema = pa.schema({"img": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
    (tmp_path / "pets").mkdir()
    pq.write_table(
        pa.table({"img": cells, "label": LABELS}, schema=schema), tmp_path / "pets" / "train.parquet"
    )
    one_line(
        tmp_path / "pets", r"train: row 0: holds the path /pets/1.png, not the image: write the data set"
    )


def test_one_class_is_none(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "one", {"train": (random_images(4), [0] * 4)}, names=None)
    one_line(root, "one: train: all images have one label, at least 2 classes are needed")


def test_no_split_called_train(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "pets", {"test": (random_images(4), [0, 1, 0, 1])})
    one_line(root, r"pets: no split is called train, found: test: rename the files")


def test_without_the_library_the_way_out_is_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.parquet").touch()
    monkeypatch.setitem(sys.modules, "datasets", None)
    one_line(tmp_path, r"need the package datasets: pip install 'connsearch\[data\]'")


def test_a_class_with_one_image_cannot_be_split(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "pets", {"train": (random_images(4), [0, 0, 0, 1])})
    one_line(root, r"pets: class dog has 1 training image left, too few to take one for validation or test")


def test_images_of_one_colour(tmp_path: Path) -> None:
    images = np.full((20, 8, 8, 3), 7, np.uint8)
    root = write_parquet(tmp_path / "flat", {"train": (images, LABELS)})
    one_line(root, "flat: all training images are of one and the same colour: nothing can be learned")


# ---- IDX -----------------------------------------------------------------------------------------------


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    images = random_images(20, channels=1)[..., 0]
    splits = {"train": (images, LABELS), "t10k": (images[:4], [0, 1, 0, 1])}
    return write_idx(tmp_path / "mnist", splits, zipped=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:40], "damaged: 40 bytes, its header says 1296: get it again"),
        (lambda b: b"", "no IDX file of 3-dimensional bytes: begins with nothing: get it again"),
        (lambda b: b"\0\0\x0d\3" + b[4:], "no IDX file of 3-dimensional bytes: begins with 00 00 0d 03"),
        (lambda b: b + b"x", "damaged: 1297 bytes, its header says 1296"),
    ],
)
def test_a_damaged_idx_file(mnist: Path, change: Callable[[bytes], bytes], message: str) -> None:
    file = mnist / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(change(gzip.decompress(file.read_bytes()))))
    one_line(mnist, f"mnist/train-images-idx3-ubyte.gz: {message}")


def test_a_cut_off_gz(mnist: Path) -> None:
    file = mnist / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-30])
    one_line(mnist, r"train-images-idx3-ubyte.gz: cannot be read: .*: get it again")


def test_labels_of_another_set(mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte.gz").rename(mnist / "train-labels-idx1-ubyte.gz")
    one_line(mnist, "test: no labels: a file like t10k-images-idx3-ubyte.gz with labels is missing")
    (mnist / "t10k-images-idx3-ubyte.gz").unlink()
    one_line(mnist, r"20 images, but 4 labels in train-labels-idx1-ubyte.gz: one of the two is of another")


# ---- CIFAR ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data_batch_1", "cifar-10-batches-py/data_batch_1"])
def test_the_pickled_version_is_refused_with_the_binary_ones_name(tmp_path: Path, name: str) -> None:
    root = tmp_path / "cifar"
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(b"\x80\x04.")
    message = r"is pickled, and reading a pickle runs what it says: get the binary version \(cifar-10-binary"
    one_line(root, message)
    one_line(write_tar(root, tmp_path / "cifar-10-python.tar.gz"), message)


def test_the_pickled_cifar_100_is_refused_too(tmp_path: Path) -> None:
    root = tmp_path / "cifar" / "cifar-100-python"
    root.mkdir(parents=True)
    for name in ("meta", "test", "train", "file.txt~"):
        (root / name).write_bytes(b"\x80\x04.")
    message = r"is pickled, and reading a pickle runs what it says: .*cifar-100-binary\.tar\.gz"
    one_line(root.parent, message)
    archive = write_tar(root.parent, tmp_path / "cifar-100-python.tar.gz")
    one_line(archive, rf"^{archive}: CIFAR's version for Python {message}")


def test_an_archive_is_named_not_its_folder(tmp_path: Path) -> None:
    images = random_images(25, height=32, width=32)
    root = write_cifar10(tmp_path / "c", images, [k % 10 for k in range(24)] + [77])
    archive = write_tar(root, tmp_path / "c.tar.gz")
    one_line(archive, rf"^{archive}: test: image 4 of test_batch.bin has the label 77, labels of 10 classes")


def test_a_damaged_cifar(tmp_path: Path) -> None:
    root = write_cifar10(tmp_path / "c", random_images(25, height=32, width=32), [k % 10 for k in range(25)])
    archive = write_tar(root, tmp_path / "c.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-5000])
    one_line(archive, r"c.tar.gz: no archive, or a damaged one: .*: get it again")
    file = root / "cifar-10-batches-bin" / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])
    one_line(root, r"data_batch_2.bin: damaged: 30729 bytes, no multiple of 3073: get it again")


# ---- images in folders ---------------------------------------------------------------------------------


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "p", random_images(8), ["a", "b"] * 4)
    (root / "b" / "003.png").write_bytes(b"GIF89a")
    one_line(root, r"p: train: b/003\.png: cannot be read")


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "p", random_images(8, channels=1), ["a", "b"] * 4)
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999).save(root / "b" / "003.png")
    one_line(
        root, r"p: train: b/003.png: has pixels of mode I;16, not of 8 bits: convert it to 8 bits per channel"
    )


def test_an_empty_class_and_no_train(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "p", random_images(8), ["a", "b"] * 4)
    (root / "c").mkdir()
    one_line(root, r"p/c: no images \(.*\.png.*\): remove the folder or fill it")
    (root / "c").rmdir()
    (tmp_path / "q").mkdir()
    root.rename(tmp_path / "q" / "val")
    one_line(tmp_path / "q", "q: no folder is called train, found: val")


# ---- against the network -------------------------------------------------------------------------------


def test_another_size_than_the_network_takes(tmp_path: Path) -> None:
    data = load_dataset(str(write_folders(tmp_path / "p", random_images(20), ["a", "b"] * 10)))
    message = (
        r"dataset 'p' holds 3 x 8 x 8 images of 2 classes, the network takes 3 x 32 x 32 .* n_classes = 2; "
        "or set height, width and channels of the data set, and its images are brought to them$"
    )
    with pytest.raises(DataError, match=message):
        check_matches(data, channels=3, height=32, width=32, n_classes=2)
