"""The file: what is in it, and what is damaged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings, strategies as st
from stopping import StoppedError, assert_same, config, forged, header_of, stop_at
from torch import nn

from connsearch.data import Dataset
from connsearch.errors import TrainError
from connsearch.train import CheckpointWarning, train
from connsearch.train.checkpoint import HEAD, LENGTH_BYTES, MARK, Checkpoint

MakeNet = Callable[..., nn.Sequential]


def make_checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(path, {"seed": 0, "config": {"lr": 0.1}})


def save(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Checkpoint:
    checkpoint = make_checkpoint(path)
    checkpoint.save(safetensors.torch.save(tensors, checkpoint.metadata(header)))
    return checkpoint


# What is in it


def test_the_metadata_say_in_json_what_the_file_is_of(small: Dataset, make_net: MakeNet, path: Path) -> None:
    result = train(make_net(), small, config(), seed=2**80, checkpoint=path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert list(file.metadata()) == [MARK]
    header = header_of(path)
    assert list(header) == ["sha256", "training", "curve", "seconds"]
    assert path.read_bytes() == forged(path.read_bytes()), "the checksum is that of the other bytes"
    assert header["curve"] == [record.to_dict() for record in result.curve]
    assert header["seconds"] == result.seconds
    assert header["training"]["seed"] == 2**80
    assert header["training"]["config"]["batch_size"] == 16
    assert header["training"]["model"]["tensors"]["0.weight"] == "float32 8 2 3 3, trained"
    assert header["training"]["model"]["tensors"]["1.num_batches_tracked"] == "int64"
    assert os.listdir(path.parent) == [path.name]


def test_any_reader_of_safetensors_finds_the_tensors(small: Dataset, make_net: MakeNet, path: Path) -> None:
    model = make_net()
    train(model, small, config(optimizer="adam"), seed=0, checkpoint=path)
    tensors = safetensors.torch.load_file(path)
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[f"model/{name}"], value)
    assert tensors["optimizer/0/exp_avg"].shape == (8, 2, 3, 3)
    assert {name.partition("/")[0] for name in tensors} == {"model", "optimizer", "generator"}
    assert {name for name in tensors if name.startswith("gen")} == {
        "generator/order", "generator/changes", "generator/cpu"
    }  # fmt: skip


HEADERS = st.dictionaries(
    st.text(max_size=5), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(HEADERS, st.lists(st.lists(st.integers(0, 255), max_size=40), max_size=3))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], numbers: list[list[int]]
) -> None:
    tensors = {str(i): torch.tensor(values, dtype=torch.uint8) for i, values in enumerate(numbers)}
    found = save(tmp_path_factory.mktemp("drawn") / "x", header, tensors).load()
    assert found is not None
    assert found.header.items() >= header.items()
    loaded = safetensors.torch.load(found.content)
    assert {name: value.tolist() for name, value in loaded.items()} == {
        str(i): values for i, values in enumerate(numbers)
    }


def test_reading_needs_no_pickle(
    small: Dataset, make_net: MakeNet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(make_net(), small, config(), seed=0, checkpoint=path)
    for place in ("pickle.loads", "pickle.load", "pickle.Unpickler", "torch.load", "torch.save"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("pickle was used"))
    assert train(make_net(), small, config(), seed=0, checkpoint=path) == expected


# What is damaged


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Expect one warning, that the checkpoint is damaged."""
    size = path.stat().st_size
    message = (
        f"^{re.escape(str(path))}: the checkpoint is damaged, its {size} bytes do not match its checksum: "
    )
    with pytest.warns(CheckpointWarning, match=message) as found:
        yield
    assert len(found) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A checkpoint of some hundred bytes, and its content."""
    path = tmp_path_factory.mktemp("whole") / "x.checkpoint"
    tensors = {"a": torch.randn(75), "b": torch.zeros(0), "c": torch.arange(5, dtype=torch.uint8)}
    save(path, {"curve": [1.5] * 9}, tensors)
    return path, path.read_bytes()


NOT_ENOUGH = len(HEAD) // 2
"""So many bytes of the head may be of any file; one more tells a checkpoint."""


@given(data=st.data())
def test_a_file_cut_off_anywhere_is_damaged(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    least = LENGTH_BYTES + NOT_ENOUGH + 1
    path.write_bytes(content[: data.draw(st.just(0) | st.integers(least, len(content) - 1))])
    with damaged(path):
        assert make_checkpoint(path).load() is None


@pytest.mark.parametrize("size", [1, LENGTH_BYTES, LENGTH_BYTES + NOT_ENOUGH])
def test_a_few_bytes_may_be_of_anything_and_are_left_alone(whole: tuple[Path, bytes], size: int) -> None:
    path, content = whole
    path.write_bytes(content[:size])
    with pytest.raises(TrainError, match=r"x\.checkpoint: is no checkpoint of a training: name another file"):
        make_checkpoint(path).load()
    assert path.read_bytes() == content[:size]


@settings(max_examples=200)
@given(data=st.data())
def test_a_file_with_a_changed_byte_is_damaged(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    place, change = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
    with damaged(path):
        assert make_checkpoint(path).load() is None


@given(data=st.data())
def test_a_file_with_a_part_overwritten_is_damaged(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    start = data.draw(st.integers(0, len(content) - 1))
    at = max(start, LENGTH_BYTES)
    tells = LENGTH_BYTES + len(HEAD) - at <= NOT_ENOUGH  # what is left of the head
    end = data.draw(st.integers(start + 1, len(content) if tells else at + NOT_ENOUGH))
    part = data.draw(st.sampled_from([b"\0", b"\xff", b"\n"])) * (end - start)
    changed = content[:start] + part + content[end:]
    path.write_bytes(changed)
    if changed != content:
        with damaged(path):
            assert make_checkpoint(path).load() is None


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_file_of_zeros_is_what_a_loss_of_power_leaves(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))
    with damaged(path):
        assert make_checkpoint(path).load() is None


@pytest.mark.parametrize("more", [b"\0", b"\n", b"more" * 100])
def test_a_file_with_something_behind_it_is_damaged(whole: tuple[Path, bytes], more: bytes) -> None:
    path, content = whole
    path.write_bytes(content + more)
    with damaged(path):
        assert make_checkpoint(path).load() is None


def test_a_file_that_could_not_be_told_again_is_not_written(path: Path) -> None:
    """As if safetensors put the metadata elsewhere one day."""
    content = safetensors.torch.save({"x": torch.zeros(3)})
    with pytest.warns(
        CheckpointWarning, match=r"cannot be written: it would begin with b'.*\{\"x\":\{.*, not b"
    ):
        make_checkpoint(path).save(content)
    assert not path.exists()


@pytest.mark.parametrize("spoil", [lambda content: content[:-100], lambda content: b"?" + content[1:]])
def test_a_damaged_checkpoint_costs_its_epochs_and_no_more(
    small: Dataset, make_net: MakeNet, path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    expected = make_net()
    whole = train(expected, small, config(), seed=0), expected
    with pytest.raises(StoppedError):
        train(make_net(), small, config(), seed=0, on_epoch=stop_at(2), checkpoint=path)
    path.write_bytes(spoil(path.read_bytes()))
    model = make_net()
    with pytest.warns(CheckpointWarning, match="is damaged") as found:
        result = train(model, small, config(), seed=0, checkpoint=path)
    assert_same((result, model), whole)
    assert [warning.filename for warning in found] == [__file__]
    assert train(make_net(), small, config(), seed=0, checkpoint=path) == result, "written anew"
