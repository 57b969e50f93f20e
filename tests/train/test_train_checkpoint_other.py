"""A checkpoint that is of another training, or none: refused, left alone, nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from stopping import config, forged
from torch import nn

from connsearch.data import Augment, Dataset, Split
from connsearch.errors import TrainError
from connsearch.nn import build
from connsearch.spec import NetworkSpec
from connsearch.train import CheckpointError, train
from connsearch.train.checkpoint import DIGEST, HEAD, LENGTH_BYTES, MARK

MakeNet = Callable[..., nn.Sequential]


def bomb(marker: Path) -> object:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    return Bomb()


def legacy(found: object) -> bytes:
    """The bytes of the archive that `torch.save` wrote long ago."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(found)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def saved(found: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("form", [pickle.dumps, saved, legacy], ids=["pickle", "torch.save", "archive"])
def test_a_malicious_file_is_refused_and_nothing_of_it_runs(
    small: Dataset, make_net: MakeNet, path: Path, form: Callable[[object], bytes]
) -> None:
    marker = path.with_name("exploded")
    content = form(bomb(marker))
    path.write_bytes(content)
    with pytest.raises(TrainError, match=r"\.checkpoint: is no checkpoint of a training: name another file"):
        train(make_net(), small, config(), seed=0, checkpoint=path)
    assert path.read_bytes() == content
    path.unlink()
    train(make_net(), small, config(), seed=0, checkpoint=path)
    assert_refused(small, make_net, path, header_part(path.read_bytes()) + content, "SafetensorError")
    assert not marker.exists()
    pickle.loads(pickle.dumps(bomb(marker)))
    assert marker.exists(), "the test can fail"


def header_part(content: bytes) -> bytes:
    """A safetensors file but for the numbers."""
    return content[: LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")]


def assert_refused(small: Dataset, make_net: MakeNet, path: Path, content: bytes, error: str) -> None:
    """With the right checksum, as a forger would write it, content makes no sense and stays."""
    path.write_bytes(forged(content))
    with pytest.raises(
        TrainError, match=rf"\.checkpoint: does not hold what its header says, {error}\(.*: name another file"
    ):
        train(make_net(), small, config(), seed=0, checkpoint=path)
    assert path.read_bytes() == forged(content)


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (b"", "JSONDecodeError"),
        (b"[" * 100_000, "JSONDecodeError"),
        (b"\xff", "UnicodeDecodeError"),
        (rb"\", " + b"[" * 100_000 + b'"}}', "JSONDecodeError"),
        (rb"\", \"training\": " + b"[" * 100_000 + b'"}}', "RecursionError"),
        (rb'\"}"}}', "KeyError"),
    ],
)
def test_a_header_that_is_none_is_refused(
    small: Dataset, make_net: MakeNet, path: Path, rest: bytes, error: str
) -> None:
    header = HEAD + b"0" * (DIGEST.stop - DIGEST.start) + rest
    content = len(header).to_bytes(LENGTH_BYTES, "little") + header
    assert_refused(small, make_net, path, content, error)


def test_tensors_that_are_not_there_are_refused(small: Dataset, make_net: MakeNet, path: Path) -> None:
    train(make_net(), small, config(), seed=0, checkpoint=path)
    content = path.read_bytes()
    renamed = content.replace(b'"model/0.weight":', b'"model/0.height":')
    assert_refused(small, make_net, path, renamed, "KeyError")
    retyped = content.replace(b'"dtype":"I64"', b'"dtype":"I65"')
    assert_refused(small, make_net, path, retyped, "SafetensorError")


OTHERS = {
    "text": b"[train]\nlr = 1\n",
    "not only zeros": b"\0\0\1",
    "archive": b"PK\3\4",
    "the head elsewhere": HEAD * 2,
    "about checkpoints": f"the file is a {MARK}\n".encode(),
    "safetensors": save({"model/0.weight": torch.zeros(3)}),
    "safetensors with metadata": save({"model/0.weight": torch.zeros(3)}, {"format": "pt"}),
    "safetensors with the name": save({MARK: torch.zeros(3)}),
    "safetensors with half the name": save({}, {MARK[:10]: "{}"}),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS.keys())
def test_a_file_of_something_else_is_left_alone(
    small: Dataset, make_net: MakeNet, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    message = f"^{re.escape(str(path))}: is no checkpoint of a training: name another file, or delete this"
    with pytest.raises(TrainError, match=message):
        train(make_net(), small, config(), seed=0, checkpoint=path)
    assert path.read_bytes() == content


def swapped(dataset: Dataset) -> Dataset:
    """The data set with two validation labels exchanged."""
    labels = dataset.val.labels.clone()
    first, second = 0, int((labels != labels[0]).nonzero()[0])
    labels[[first, second]] = labels[[second, first]]
    return replace(dataset, val=Split(dataset.val.images, labels))


@pytest.mark.parametrize(
    ("change", "differs", "message"),
    [
        ({"seed": 1}, ("seed",), "seed is 0 there, 1 here: name"),
        ({"how": {"lr": 0.2}}, ("config.lr",), "config.lr is 0.1 there, 0.2 here: name"),
        ({"how": {"epochs": 4}}, ("config.epochs",), "config.epochs is 3 there, 4 here: name"),
        (
            {"how": {"milestones": [0.5]}},
            ("config.milestones[1]",),
            r"config.milestones\[1\] is 0.75 there, unset here: name",
        ),
        (
            {"how": {"lr": 0.2, "momentum": 0.5}},
            ("config.lr", "config.momentum"),
            r"config.lr is 0.1 there, 0.2 here \(and 1 more\): name another file, or delete this one",
        ),
        ({"how": {"threads": 2}}, ("config.threads", "machine.threads"), "config.threads is 1 there, 2 here"),
        ({"data": {"name": "other"}}, ("data.name",), "data.name is 'synthetic' there, 'other' here"),
        ({"data": {"augment": Augment(shift=1)}}, ("data.shift",), "data.shift is 0 there, 1 here"),
        ({"labels": True}, ("data.sha256",), "data.sha256 is '.*' there, '.*' here"),
        (
            {"net": {"width": 9}},
            None,
            "model.tensors.0.weight is 'float32 8 2 3 3, trained' there, 'float32 9 2 3 3, trained' here",
        ),
        ({"net": {"depth": 2}}, None, "model.tensors.12.bias is unset there, 'float32 3, trained' here"),
        (
            {"frozen": True},
            ("model.tensors.0.weight",),
            "model.tensors.0.weight is 'float32 8 2 3 3, trained' there, 'float32 8 2 3 3' here",
        ),
    ],
)  # fmt: skip
def test_another_training_is_named_with_all_that_differs_and_left_alone(
    small: Dataset,
    make_net: MakeNet,
    path: Path,
    change: dict[str, Any],
    differs: tuple[str, ...] | None,
    message: str,
) -> None:
    train(make_net(), small, config(), seed=0, checkpoint=path)
    before = path.read_bytes()
    model = make_net(**change.get("net", {}))
    if "frozen" in change:
        model[0].weight.requires_grad_(False)
    data = swapped(small) if "labels" in change else replace(small, **change.get("data", {}))
    with pytest.raises(CheckpointError, match=f"is of another training: {message}") as found:
        train(model, data, config(**change.get("how", {})), seed=change.get("seed", 0), checkpoint=path)
    assert found.value.path == path
    assert found.value.differs == differs or (differs is None and len(found.value.differs) > 1)
    assert path.read_bytes() == before
    copy = pickle.loads(pickle.dumps(found.value))
    assert (str(copy), copy.path, copy.differs) == (str(found.value), path, found.value.differs)


def test_networks_of_equal_shapes_are_told_apart(small: Dataset, path: Path) -> None:
    """Sums have no weights: all topologies have the same state dict."""

    def network(topology: str, pipeline: str) -> nn.Module:
        block = {"topology": topology, "aggregation": "sum", "n_layers": 3, "width": 4}
        shape = {"channels": 2, "height": 6, "width": 6}
        return build(NetworkSpec(input=shape, n_classes=3, blocks=[block]), pipeline=pipeline)

    train(network("dense", "none"), small, config(), seed=0, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"topology is 'dense' there, 'chain' here"):
        train(network("chain", "none"), small, config(), seed=0, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"model\.program is '\w{64}' there") as found:
        train(network("dense", "fused"), small, config(), seed=0, checkpoint=path)
    assert found.value.differs == ("model.program",)


@pytest.mark.parametrize(
    ("place", "value", "differs"),
    [
        ("torch.__version__", "1.0", "machine.torch"),
        ("connsearch.train.identity.__version__", "9.9", "machine.connsearch"),
        ("connsearch.train.identity.FORMAT", 99, "format"),
        ("torch.backends.cpu.get_cpu_capability", lambda: "ABACUS", "machine.device"),
        ("torch.get_num_threads", lambda: 77, "machine.threads"),
    ],
)
def test_another_machine_is_told_apart(
    small: Dataset,
    make_net: MakeNet,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    value: object,
    differs: str,
) -> None:
    how = config(threads=0, epochs=1)
    train(make_net(), small, how, seed=0, checkpoint=path)
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr(place, value)
    with pytest.raises(CheckpointError, match=f"is of another training: {differs} is ") as found:
        train(make_net(), small, how, seed=0, checkpoint=path)
    assert found.value.differs == (differs,)


def test_what_training_does_not_read_makes_no_other_training(
    small: Dataset, make_net: MakeNet, path: Path
) -> None:
    expected = train(make_net(), small, config(), seed=0, checkpoint=path)
    std = (small.std[0] * (1 + 1e-12), small.std[1])  # sums depend on threads that far, images do not
    other = replace(small, test=small.val, class_names=("x", "y", "z"), std=std)
    assert train(make_net(), other, config(), seed=0, checkpoint=path) == expected


class Moody(nn.Linear):
    """A layer with a state that is no tensor."""

    def get_extra_state(self) -> object:
        return {"mood": "fine"}

    def set_extra_state(self, state: object) -> None:
        raise AssertionError("never asked")


def test_a_state_that_is_no_tensor_is_refused_before_training(small: Dataset, path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), Moody(72, 3))
    message = "1._extra_state of Sequential is dict, no ordinary tensor, which a checkpoint cannot hold"
    with pytest.raises(TrainError, match=message):
        train(model, small, config(), seed=0, checkpoint=path)
    assert not path.exists()
    assert len(train(model, small, config(), seed=0).curve) == 3


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize(
    ("buffer", "kind"),
    [
        (torch.zeros(2, dtype=torch.complex128), "torch.complex128 laid out as torch.strided"),
        (torch.zeros(2).to_sparse(), "torch.float32 laid out as torch.sparse_coo"),
    ],
    ids=["complex128", "sparse"],
)
def test_a_tensor_that_safetensors_cannot_hold_is_refused_before_training(
    small: Dataset, path: Path, buffer: torch.Tensor, kind: str, persistent: bool
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    model[1].register_buffer("turn", buffer, persistent=persistent)
    message = f"^1.turn of Sequential is {kind}, no ordinary tensor, which a checkpoint cannot hold: train"
    with pytest.raises(TrainError, match=message):
        train(model, small, config(), seed=0, checkpoint=path)
    assert not path.exists()
