"""What a session of trainings refuses, and that it leaves everything as it was then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import filelock
import pytest
from sessions import DATA, SPEC, Told, make_session

from connsearch.errors import DataError, SpecError, TrainError
from connsearch.train import Session, train_seeds


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with seed 0."""
    path = tmp_path_factory.mktemp("session") / "out"
    train_seeds(path, make_session(), [0])
    return path


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (
            make_session(epochs=4),
            r"train\.epochs is 3 there, 4 here: give the same, or name another directory",
        ),
        (make_session(join=True), r"splits\[1\] is 'unset' there, 'val' here \(and \d+ more\)"),
        (
            make_session(spec=SPEC.model_copy(update={"stem": "conv(channels=6)"})),
            r"network\.stem\S* is .* there, .* here",
        ),
        (
            make_session(dataset=DATA.replace("noise=0.3", "noise=0.4")),
            r"train\.dataset\.noise is 0\.3 there",
        ),
    ],
    ids=["configuration", "splits", "network", "data"],
)
def test_another_session_in_the_same_directory(done: Path, session: Session, message: str) -> None:
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    with pytest.raises(TrainError, match=rf"^{done}: holds other trainings: {message}"):
        train_seeds(done, session, (0,))
    assert {path: path.read_bytes() for path in done.rglob("*") if path.is_file()} == before


def test_another_name_of_the_network_is_no_other_session(done: Path) -> None:
    told = Told()
    train_seeds(done, make_session(spec=SPEC.model_copy(update={"name": "x"})), (0,), watcher=told)
    assert told.ends == [(0, False)]


def test_two_at_once(done: Path) -> None:
    with (
        filelock.FileLock(done / "lock"),
        pytest.raises(TrainError, match=rf"^{done}: another process trains there: wait until it is done"),
    ):
        train_seeds(done, make_session(), (0,))
    train_seeds(done, make_session(), (0,))  # nothing is left of it


@pytest.mark.parametrize(
    ("seeds", "message"),
    [((), "^name at least one seed$"), ((0, -1), "^seeds are 0 to 9223372036854775807, got -1$")],
)
def test_bad_seeds(tmp_path: Path, seeds: Sequence[int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        train_seeds(tmp_path / "out", make_session(), seeds)
    assert not (tmp_path / "out").exists()


def test_images_that_do_not_fit_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^dataset 'synthetic' holds 3 x 16 x 16 images of 10 classes, the network takes"
    ):
        train_seeds(tmp_path / "out", make_session(dataset="synthetic"), (0,))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(TrainError, match=r"out: is a file: name a directory \(-o\)$"):
        train_seeds(tmp_path / "out", make_session(), (0,))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is damaged: .*: delete it"), ("[]", "holds no table"), ("{}", "'seed' is missing")],
)
def test_a_damaged_result(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "result.json").write_text(content)
    with pytest.raises(TrainError, match=rf"^{tmp_path}/seed-0/result\.json: .*{message}"):
        train_seeds(tmp_path, make_session(), (0,))
