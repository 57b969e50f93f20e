"""A checkpoint that cannot be written or read: what stops a training, and what does not."""

from __future__ import annotations

import errno
import os
import re
import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stopping import StoppedError, assert_same, config, curve, epochs_of, stop_at
from torch import nn

from connsearch.data import Dataset
from connsearch.errors import TrainError
from connsearch.train import CheckpointWarning, train

MakeNet = Callable[..., nn.Sequential]


def test_a_full_disk_warns_and_training_goes_on(
    small: Dataset, make_net: MakeNet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs 1, 4 and 6 are written, 2, 3 and 5 are not: the first failure of each streak warns."""
    write, calls, kept = Path.write_bytes, [0], []

    def sometimes_full(self: Path, content: bytes) -> int:
        calls[0] += 1
        if calls[0] in (2, 3, 5):
            write(self, content[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", sometimes_full)
    model, unbroken, how = make_net(), make_net(), config(epochs=6)
    message = f"^{re.escape(str(path))}: cannot be written: No space left on device: training goes on; until"
    with pytest.warns(CheckpointWarning, match=message) as found:
        result = train(
            model, small, how, seed=0, checkpoint=path, on_epoch=lambda _: kept.append(epochs_of(path))
        )
    assert kept == [1, 1, 1, 4, 4, 6]
    assert len(found) == 2
    assert {warning.filename for warning in found} == {__file__}
    assert os.listdir(path.parent) == [path.name]
    assert_same((result, model), (train(unbroken, small, how, seed=0), unbroken))


def test_a_disk_that_is_full_for_real(small: Dataset, make_net: MakeNet, path: Path) -> None:
    """A limit on the size of files stands for it: the second write fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    expected = curve(train(make_net(), small, config(), seed=0))
    try:
        with pytest.raises(StoppedError):
            train(make_net(), small, config(), seed=0, checkpoint=path, on_epoch=stop_at(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.warns(CheckpointWarning, match="cannot be written: File too large: training goes on"):
            result = train(make_net(), small, config(), seed=0, checkpoint=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert curve(result) == expected
    assert epochs_of(path) == 1
    assert os.listdir(path.parent) == [path.name]
    assert curve(train(make_net(), small, config(), seed=0, checkpoint=path)) == expected
    assert epochs_of(path) == 3


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_at_the_start_stops_nothing(
    small: Dataset, make_net: MakeNet, path: Path, monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(full, os.strerror(full))

    for place in ("tempfile.TemporaryFile", "pathlib.Path.write_bytes"):
        monkeypatch.setattr(place, fail)
    with pytest.warns(CheckpointWarning, match=f"cannot be written: {os.strerror(full)}: training goes on"):
        assert len(train(make_net(), small, config(), seed=0, checkpoint=path).curve) == 3


def test_an_interrupt_while_writing_leaves_the_old_file(
    small: Dataset, make_net: MakeNet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        if path.exists():
            raise KeyboardInterrupt

    expected = curve(train(make_net(), small, config(), seed=0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(make_net(), small, config(), seed=0, checkpoint=path)
    assert epochs_of(path) == 1
    assert os.listdir(path.parent) == [path.name]
    assert curve(train(make_net(), small, config(), seed=0, checkpoint=path)) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/x", "nowhere/x: a checkpoint cannot be written there: No such file or directory: name a"),
        ("file/x", "file/x: a checkpoint cannot be written there: Not a directory: name a file in a dir"),
        ("directory", "directory: cannot be read: Is a directory: name another file, or delete this one"),
        ("", "cannot be read: Is a directory: name another file"),
    ],
)
def test_a_place_where_no_file_can_be_is_an_error_before_training(
    small: Dataset, make_net: MakeNet, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(TrainError, match=message):
        train(make_net(), small, config(), seed=0, checkpoint=tmp_path / name, on_epoch=pytest.fail)
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


@contextmanager
def without_rights() -> Iterator[None]:
    """Be nobody, if this is the superuser, whom permissions do not bind."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_that_is_not_ours_is_an_error_before_training(
    small: Dataset, make_net: MakeNet, path: Path
) -> None:
    path.parent.chmod(0o555)
    message = (
        "a checkpoint cannot be written there: Permission denied: name a file in a directory that exists"
    )
    try:
        with without_rights(), pytest.raises(TrainError, match=message):
            train(make_net(), small, config(), seed=0, checkpoint=path, on_epoch=pytest.fail)
    finally:
        path.parent.chmod(0o755)
    assert os.listdir(path.parent) == []


def test_a_checkpoint_that_may_not_be_read_is_an_error_and_kept(
    small: Dataset, make_net: MakeNet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_net(), small, config(), seed=0, checkpoint=path)
    before = path.read_bytes()

    def fail(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(
            TrainError, match=r"\.checkpoint: cannot be read: Permission denied: name another"
        ):
            train(make_net(), small, config(), seed=0, checkpoint=path)
    assert path.read_bytes() == before


def test_what_killed_processes_left_half_written_goes(small: Dataset, make_net: MakeNet, path: Path) -> None:
    for name in (
        f".{path.name}.123.tmp",
        f".{path.name}.99999.tmp",
        ".other.checkpoint.1.tmp",
        path.name[:-1],
    ):
        path.with_name(name).write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make_net(), small, config(), seed=0, checkpoint=path)
    assert sorted(os.listdir(path.parent)) == [".other.checkpoint.1.tmp", path.name[:-1], path.name]
