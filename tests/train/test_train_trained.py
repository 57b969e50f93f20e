"""Files of trained networks: checkpoints and weights, read back; what is wrong with others, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from connsearch.data import Dataset
from connsearch.errors import ConnsearchError, TrainError
from connsearch.nn import Network, build
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec
from connsearch.train import TrainConfig, train
from connsearch.train.checkpoint import header_of
from connsearch.train.trained import Trained, load_trained, save_trained, weights_content


def spec(width: int = 4, **settings: Any) -> NetworkSpec:
    block = {"topology": "dense", "aggregation": "depthwise", "unit": "conv", "n_layers": 2, "width": width}
    return NetworkSpec.from_dict({
        "name": "small", "input": {"channels": 2, "height": 6, "width": 6}, "n_classes": 3,
        "blocks": [block], **settings,
    })  # fmt: skip


CONFIG = TrainConfig.from_dict({"dataset": "synthetic(n_train=70)", "epochs": 2, "batch_size": 32})


@pytest.fixture
def checkpoint(small: Dataset, path: Path) -> Path:
    train(build(spec()), small, CONFIG, seed=0, checkpoint=path)
    return path


def test_a_checkpoint_says_which_network_it_is_and_what_it_was_trained_on(small: Dataset, path: Path) -> None:
    model = build(spec())
    train(model, small, CONFIG, seed=0, checkpoint=path)
    trained = load_trained(path)
    assert trained.network.spec == spec()
    assert trained.dataset == Ref("synthetic", (("n_train", 70),))
    assert trained.epochs == 2
    assert not trained.network.training
    images = small.val.images
    torch.testing.assert_close(trained.network(images), model.eval()(images), rtol=1e-4, atol=1e-5)


def test_the_random_state_is_left_alone(checkpoint: Path) -> None:
    state = torch.get_rng_state()
    load_trained(checkpoint)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_come_back_as_they_were_written(tmp_path: Path) -> None:
    network = Network(spec())
    written = save_trained(Trained(network, Ref("digits")), tmp_path / "w.safetensors")
    back = load_trained(written)
    assert back.network.spec == network.spec
    assert (back.dataset, back.epochs) == (Ref("digits"), None)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in back.network.state_dict().items())
    assert header_of(written.read_bytes()) is None  # no checkpoint
    assert set(safetensors.torch.load_file(written)) == set(network.state_dict())


def test_equal_weights_are_equal_bytes() -> None:
    """The library's own metadata come in another order in about half of all calls."""
    tensors = {"b": torch.arange(3.0), "a": torch.zeros(2, 2, dtype=torch.bfloat16), "c": torch.tensor(7)}
    metadata = {"format": "pt", "network": "{}", "dataset": '"dígits"'}
    contents = {weights_content(tensors, dict(metadata)) for _ in range(30)}
    assert len(contents) == 1
    content = contents.pop()
    found = safetensors.torch.load(content)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], value) for key, value in tensors.items())
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])["__metadata__"] == metadata
    assert length % 8 == 0


def test_a_bare_file_of_weights_needs_the_network(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    network = Network(spec())
    safetensors.torch.save_file(network.state_dict(), path)
    with pytest.raises(
        TrainError, match=r"bare.safetensors: does not say which network its \d+ tensors are of"
    ):
        load_trained(path)
    assert load_trained(path, spec()).network.spec == spec()
    other = (
        r"another network than 'small': stem.conv1.weight is 4x2x3x3 there, 6x2x3x3 in the network \(and \d+"
    )
    with pytest.raises(TrainError, match=other):
        load_trained(path, spec(width=6))


def test_a_file_that_names_its_network_is_of_no_other(checkpoint: Path) -> None:
    assert load_trained(checkpoint, spec(name="called otherwise")).network.spec == spec()
    with pytest.raises(TrainError, match="holds the network 'small', not 'small': leave out --net"):
        load_trained(checkpoint, spec(width=6))


def test_a_checkpoint_of_some_other_module_is_told(small: Dataset, path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    train(module, small, CONFIG, seed=0, checkpoint=path)
    with pytest.raises(TrainError, match="of the training of a Sequential, not of a network of connsearch"):
        load_trained(path)
    with pytest.raises(
        TrainError, match=r"the weights of another network than 'small': stem.conv1.weight is no such"
    ):
        load_trained(path, spec())


def test_missing_files_directories_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="gone: no such file: name a training's checkpoint"):
        load_trained(tmp_path / "gone")
    with pytest.raises(TrainError, match="is a directory: name a checkpoint or a file of weights"):
        load_trained(tmp_path)
    for content in (b"", b"[blocks]\n", b"\0" * 64, b"x" * 100, b"PK\x03\x04" + b"\0" * 99):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(TrainError, match=r"other: is (no safetensors file|damaged)"):
            load_trained(tmp_path / "other")


@pytest.mark.parametrize("place", [0.5, 0.99])
def test_a_damaged_checkpoint_is_told(checkpoint: Path, place: float) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[int(len(content) * place)] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(TrainError, match=r"is damaged: its .* bytes do not match its checksum"):
        load_trained(checkpoint)
    checkpoint.write_bytes(content[:-7])
    with pytest.raises(TrainError, match="is damaged"):
        load_trained(checkpoint)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"network": "{}"}, "names a network that cannot be built: .*blocks: is missing"),
        ({"network": "[1]"}, "names a network that cannot be built: a table is expected"),
        ({"network": "{"}, "does not hold what its header says"),
        (
            {"network": json.dumps(spec().to_full_dict()), "dataset": "7"},
            "does not hold what its header says",
        ),
    ],
)
def test_forged_metadata_are_one_line(tmp_path: Path, metadata: dict[str, str], match: str) -> None:
    path = tmp_path / "forged.safetensors"
    safetensors.torch.save_file(Network(spec()).state_dict(), path, metadata)
    with pytest.raises(TrainError, match=match):
        load_trained(path)


def test_weights_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConnsearchError, match="cannot be written"):
        save_trained(Trained(Network(spec())), tmp_path / "no" / "where.safetensors")
