"""The file: what is in it, and what is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from stopping import StoppedError, assert_same, config, stop_at
from torch import nn

from connsearch.data import Dataset
from connsearch.train import CheckpointWarning, train
from connsearch.train.checkpoint import HEAD, TAIL, Checkpoint, pack, unpack

MakeNet = Callable[..., nn.Sequential]


def make_checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(path, {"seed": 0, "config": {"lr": 0.1}})


# What is in it


def test_the_second_line_says_in_json_what_the_file_is_of(
    small: Dataset, make_net: MakeNet, path: Path
) -> None:
    result = train(make_net(), small, config(), seed=2**80, checkpoint=path)
    first, second, _ = path.read_bytes().split(b"\n", 2)
    header = json.loads(second)
    assert first + b"\n" == HEAD
    assert list(header) == ["training", "curve", "seconds", "tensors"]
    assert header["curve"] == [record.to_dict() for record in result.curve]
    assert header["training"]["seed"] == 2**80
    assert header["training"]["config"]["batch_size"] == 16
    assert header["training"]["model"]["tensors"]["0.weight"] == "float32 8 2 3 3, trained"
    assert header["training"]["model"]["tensors"]["1.num_batches_tracked"] == "int64"
    assert ["model/0.weight", "float32", [8, 2, 3, 3]] in header["tensors"]
    kinds = {name.partition("/")[0] for name, _, _ in header["tensors"]}
    assert kinds == {"model", "optimizer", "generator"}
    assert os.listdir(path.parent) == [path.name]


HEADERS = st.dictionaries(
    st.text(max_size=5), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(HEADERS, st.lists(st.binary(max_size=40), max_size=3))
def test_what_is_packed_is_unpacked(header: dict[str, Any], numbers: list[bytes]) -> None:
    found = unpack(pack(header, numbers))
    assert found.header == header
    assert bytes(found.numbers) == b"".join(numbers)


def test_reading_needs_no_pickle(
    small: Dataset, make_net: MakeNet, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(make_net(), small, config(), seed=0, checkpoint=path)
    for place in ("pickle.loads", "pickle.load", "pickle.Unpickler", "torch.load", "torch.save"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("pickle was used"))
    assert train(make_net(), small, config(), seed=0, checkpoint=path) == expected


# What is damaged


@contextmanager
def damaged(path: Path, why: str = "") -> Iterator[None]:
    """Expect one warning, that the checkpoint is damaged, blaming the line that called `train`."""
    message = f"^{re.escape(str(path))}: the checkpoint is damaged, .*{why}.*: training starts over from"
    with pytest.warns(CheckpointWarning, match=message) as found:
        yield
    assert len(found) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A checkpoint of some hundred bytes, and its content."""
    path = tmp_path_factory.mktemp("whole") / "x.checkpoint"
    make_checkpoint(path).save({"curve": [], "tensors": []}, [os.urandom(300), b"", os.urandom(5)])
    return path, path.read_bytes()


@given(data=st.data())
def test_a_file_cut_off_anywhere_is_damaged(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    path, content = whole
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with damaged(path, "its end is missing after"):
        assert make_checkpoint(path).load() is None


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
    most = len(content) - len(TAIL) if start < len(HEAD) else len(content)  # one of its ends tells it
    end = data.draw(st.integers(start + 1, most))
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
    with damaged(path, "its end is missing"):
        assert make_checkpoint(path).load() is None


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"1", b"[" * 100_000, b"\xff"])
def test_a_header_that_is_none_is_damage(path: Path, header: bytes) -> None:
    content = pack({}, [b"12"]).replace(b"\n{}\n", b"\n" + header + b"\n", 1)
    digest = hashlib.sha256(HEAD + header + b"\n12").digest()
    path.write_bytes(content[: -len(TAIL) - 32] + digest + TAIL)
    with damaged(path, "its header is no table"):
        assert make_checkpoint(path).load() is None


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
