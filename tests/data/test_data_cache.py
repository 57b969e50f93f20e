"""The cache: hit, damaged, content that changes, several processes, places that cannot be written."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from disk_formats import png, random_images, settle, write_folders

from connsearch.data import Dataset, cache as caches, fill, load_dataset, registry
from connsearch.data.cache import DataWarning
from connsearch.data.content import cache_directory, content_key
from connsearch.errors import DataError

CLASSES = ["a", "b"] * 10


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = write_folders(tmp_path / "photos", random_images(20), CLASSES)
    settle(root)
    return root


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by an entry for each picture that is decoded."""
    seen: list[int] = []
    original = fill._tried
    monkeypatch.setattr(fill, "_tried", lambda *given: (seen.append(1), original(*given))[1])
    return seen


def anew(path: Path | str) -> Dataset:
    """Load as a new process would."""
    registry._load.cache_clear()
    return load_dataset(str(path))


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir() and path.name != "seen")


Held = list[torch.Tensor]


def held(data: Dataset) -> Held:
    """Return copies of all that a data set maps, to outlive what is done to its file."""
    return [x.clone() for split in data._splits().values() for x in (split.images, split.labels)]


def same(one: Held, other: Held) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_second_time_nothing_is_decoded(photos: Path, cache: Path, decodings: list[int]) -> None:
    first = anew(photos)
    assert len(decodings) == 20
    again = anew(photos)
    assert len(decodings) == 20
    assert again is not first
    assert same(held(first), held(again))
    assert (again.mean, again.std, again.class_names) == (first.mean, first.std, first.class_names)
    assert again.train.digest == first.train.digest != first.val.digest
    assert sorted(p.name for p in entries(cache)[0].iterdir()) == ["about.json", "images.npy", "labels.npy"]


def test_images_are_mapped_and_writing_to_them_changes_nothing(photos: Path) -> None:
    data = anew(photos)
    data.train.images.zero_()
    assert anew(photos).train.images.any()


def test_the_key_is_the_content_not_the_place_or_the_time(
    photos: Path, tmp_path: Path, cache: Path, decodings: list[int]
) -> None:
    anew(photos)
    moved = shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    anew(moved)
    for file in photos.rglob("*.png"):
        os.utime(file)
    anew(photos)
    assert len(entries(cache)) == 1
    assert len(decodings) == 20


def changed_pixel(root: Path) -> None:
    (root / "a" / "000.png").write_bytes(png(random_images(1, seed=9)[0]))


@pytest.mark.parametrize(
    "change",
    [
        changed_pixel,
        lambda root: (root / "a" / "000.png").rename(root / "b" / "new.png"),
        lambda root: (root / "a" / "000.png").unlink(),
        lambda root: (root / "a" / "new.png").write_bytes(png(random_images(1, seed=3)[0])),
    ],
    ids=["pixel", "label", "less", "more"],
)
def test_changed_files_are_decoded_anew(
    photos: Path, cache: Path, decodings: list[int], change: Callable[[Path], object]
) -> None:
    first = held(anew(photos))
    change(photos)
    second = held(anew(photos))
    assert len(entries(cache)) == 2
    assert not same(first, second)
    anew(photos)
    assert len(decodings) <= 41


def test_files_that_look_as_before_are_not_read_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from connsearch.data import content

    monkeypatch.setattr(content, "SETTLED_S", -1.0)  # ctime cannot be set back
    first = held(anew(photos))

    def read(*_: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(content, "_content", read)
    assert same(held(anew(photos)), first)
    os.utime(photos / "a" / "000.png")
    with pytest.raises(AssertionError, match="read again"):
        anew(photos)


def test_files_that_changed_just_now_are_not_trusted(photos: Path, cache: Path) -> None:
    anew(photos)
    assert not (cache / "seen").exists()


def test_the_key_of_an_archive_holds_its_name(tmp_path: Path) -> None:
    (tmp_path / "c.tar.gz").write_bytes(b"x")
    archive = tmp_path / "c.tar.gz"
    there, here = (content_key(root, [archive], {}) for root in (tmp_path, archive))
    assert here == there


@pytest.mark.parametrize(
    "option", ["height=4", "channels=1", "val=0.3", "split_seed=1", "height=8, fit=stretch"]
)
def test_what_decides_the_content_is_in_the_key(photos: Path, cache: Path, option: str) -> None:
    anew(photos)
    anew(f"image_folder(path={photos}, {option})")
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("option", ["flip=false", "shift=2"])
def test_what_is_done_to_batches_is_not(photos: Path, cache: Path, option: str) -> None:
    anew(photos)
    anew(f"image_folder(path={photos}, {option})")
    assert len(entries(cache)) == 1


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda entry: flip_bit(entry / "images.npy"), r"images.npy has changed within its bytes from 0 on"),
        (lambda entry: flip_bit(entry / "labels.npy"), r"labels.npy has changed"),
        (lambda entry: (entry / "images.npy").write_bytes(b""), r"images.npy has another size"),
        (lambda entry: (entry / "images.npy").unlink(), r"No such file .*images.npy"),
        (lambda entry: (entry / "about.json").write_text("{"), r"Expecting"),
        (lambda entry: (entry / "about.json").write_text("{}"), r"blocks"),
        (lambda entry: (entry / "about.json").unlink(), r"No such file"),
    ],
    ids=["bit", "label", "empty", "missing", "json", "fields", "about"],
)
def test_a_damaged_cache_is_told_and_made_anew(
    photos: Path, cache: Path, damage: Callable[[Path], object], reason: str
) -> None:
    first = held(anew(photos))
    damage(entries(cache)[0])
    with pytest.warns(DataWarning, match=rf"photos-\w+-v1: damaged \(.*{reason}.*\): made anew"):
        second = held(anew(photos))
    assert same(first, second)
    assert same(first, held(anew(photos)))
    assert [p.name for p in cache.iterdir() if p.name.endswith(".tmp")] == []


def test_of_a_large_file_blocks_from_all_over_are_checked(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "BLOCK", 256)
    monkeypatch.setattr(caches, "CHECKED_BLOCKS", 4)
    anew(photos)
    file = entries(cache)[0] / "images.npy"
    content = file.read_bytes()
    told = []
    for place in range(0, len(content), 256):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            anew(photos)
        told.append(bool(caught))
        file.write_bytes(content)
    assert told[0]
    assert told[-1]
    assert sum(told) == 4


def test_what_a_killed_process_left_is_cleared(photos: Path, cache: Path) -> None:
    anew(photos)
    name = entries(cache)[0].name
    shutil.rmtree(entries(cache)[0])
    left = cache / f".{name}.12345.tmp"
    left.mkdir()
    (left / "images.npy").write_bytes(b"half")
    anew(photos)
    assert not left.exists()


def test_what_goes_wrong_while_decoding_leaves_nothing(photos: Path, cache: Path) -> None:
    (photos / "b" / "019.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"b/019.png: cannot be read"):
        anew(photos)
    assert entries(cache) == []


def _load_in_process(path: str, results: multiprocessing.Queue[tuple[int, str]]) -> None:
    seen: list[int] = []
    original = fill._tried
    fill._tried = lambda *given: (seen.append(1), original(*given))[1]  # type: ignore[func-returns-value]
    data = load_dataset(path)
    results.put((len(seen), data.train.digest))


def test_of_processes_at_once_one_decodes_and_all_get_it(photos: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[int, str]] = context.Queue()
    workers = [context.Process(target=_load_in_process, args=(str(photos), results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(count for count, _ in found) == [0, 0, 0, 20]
    assert len({digest for _, digest in found}) == 1
    assert len(entries(cache)) == 1


def test_a_cache_that_cannot_be_written_names_the_way_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONNSEARCH_CACHE", str(tmp_path / "file"))
    message = (
        r"file/datasets: the cache of data sets cannot be written: .*; set the environment variable CONN"
    )
    with pytest.raises(DataError, match=message):
        anew(photos)


def test_a_hint_that_cannot_be_written_is_not_needed(
    photos: Path, cache: Path, decodings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cache that is shared, and only read."""
    first = held(anew(photos))
    assert not (cache / "seen").exists()
    (cache / "seen").touch()  # no folder, for root may write to any
    monkeypatch.setattr("connsearch.data.content.SETTLED_S", -1.0)
    assert same(held(anew(photos)), first)

    def refused(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("connsearch.data.content.Path.read_text", refused)
        assert content_key(photos, sorted(photos.rglob("*.png")), {})
    assert len(decodings) == 20


def test_a_disk_without_room_is_told_before(
    photos: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    with pytest.raises(
        DataError, match=r"photos: its decoded images take 0\.0 GB in .*: set the environment"
    ):
        anew(photos)
    assert entries(cache) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONNSEARCH_CACHE", "/x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert cache_directory() == Path("/x/datasets")
    monkeypatch.delenv("CONNSEARCH_CACHE")
    assert cache_directory() == Path("/y/connsearch/datasets")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "connsearch" / "datasets"


def test_about_says_what_people_want_to_know(photos: Path, cache: Path) -> None:
    data = anew(photos)
    about = json.loads((entries(cache)[0] / "about.json").read_text())
    assert about["source"] == str(photos)
    assert about["counts"] == [16, 2, 2]
    assert about["class_names"] == ["a", "b"]
    np.testing.assert_allclose(about["mean"], data.mean)
