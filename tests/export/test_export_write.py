"""What is written: every format verified, all of it or nothing; errors name what is wrong."""

from __future__ import annotations

import errno
import importlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from connsearch.errors import ConnsearchError, SpecError, VerifyError
from connsearch.export import programs, write
from connsearch.export.verify import Case, differences
from connsearch.export.write import export_network
from connsearch.nn import Network
from connsearch.nn.verify import randomise
from connsearch.spec import NetworkSpec
from connsearch.spec.ops import Shape

SPEC = NetworkSpec.from_dict(
    {
        "name": "small",
        "input": {"channels": 1, "height": 8, "width": 8},
        "n_classes": 4,
        "blocks": [
            {"topology": "log_dense", "aggregation": "depthwise", "n_layers": 4, "width": 4},
            {"topology": "dense", "aggregation": "routed", "n_layers": 3, "width": 4},
        ],
    }
)


@pytest.fixture(scope="module")
def network() -> Network:
    made = Network(SPEC).eval()
    randomise(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True])
def test_every_format(network: Network, tmp_path: Path, folded: bool) -> None:
    pytest.importorskip("onnxruntime")
    formats = ("onnx", "torch", "python", "toml")
    found = export_network(
        SPEC, tmp_path / "out", state=network.state_dict(), formats=formats, folded=folded, origin="a test"
    )
    names = ("network.toml", "model.py", "weights.safetensors", "model.pt2", "model.onnx")
    assert found.files == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [v.format for v in found.verified] == ["model.py", "model.pt2", "model.onnx"]
    assert all(v.relative < 1e-5 and v.outputs == 6 for v in found.verified)
    assert found.verified[0].random < 1e-12
    if not folded:
        assert found.verified[0].difference == 0
        weights = safetensors.torch.load_file(tmp_path / "out" / "weights.safetensors")
        assert weights.keys() == network.state_dict().keys()
    assert NetworkSpec.from_toml(tmp_path / "out" / "network.toml") == SPEC
    assert "Origin: a test." in (tmp_path / "out" / "model.py").read_text()
    _check_batches(network, tmp_path / "out")


def _check_batches(network: Network, directory: Path) -> None:
    """Run the programs as a user would, with a batch size that verification did not use."""
    images = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        expected = network(images)
        read = torch.export.load(directory / "model.pt2").module()
        torch.testing.assert_close(read(images), expected, rtol=1e-4, atol=1e-5)
    session = importlib.import_module("onnxruntime").InferenceSession(str(directory / "model.onnx"))
    (logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_weights_are_not_changed_by_verification(network: Network, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in network.state_dict().items()}
    export_network(SPEC, tmp_path / "out", state=state, formats=("torch", "python"))
    written = safetensors.torch.load_file(tmp_path / "out" / "weights.safetensors")
    assert all(torch.equal(written[key], value) for key, value in network.state_dict().items())


@pytest.mark.slow
def test_initial_weights_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_network(SPEC, tmp_path / name, formats=("python",))
    for name in ("model.py", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_wrong_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = write.model_source

    def swapped(*args: Any, **kwargs: Any) -> str:
        text = right(*args, **kwargs)
        assert "(8, 4, 2, 1)" in text
        return text.replace("(8, 4, 2, 1)", "(8, 4, 3, 1)")

    monkeypatch.setattr(write, "model_source", swapped)
    spec = SPEC.with_depths([12, 3])
    with pytest.raises(VerifyError, match=r"model\.py: .* its outputs differ from the network's by"):
        export_network(spec, tmp_path / "out", formats=("python",))
    assert not list(tmp_path.iterdir())


def test_a_file_that_imports_connsearch_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = write.model_source

    def importing(*args: Any, **kwargs: Any) -> str:
        return right(*args, **kwargs).replace("import json", "import json, connsearch")

    monkeypatch.setattr(write, "model_source", importing)
    with pytest.raises(VerifyError, match=r"model\.py does not run by itself: .*connsearch"):
        export_network(SPEC, tmp_path / "out", formats=("python",))
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network(network: Network, tmp_path: Path) -> None:
    state = network.state_dict()
    key = "block1.layer1.conv1.weight"
    with pytest.raises(SpecError, match=f"the weights lack '{key}'"):
        export_network(SPEC, tmp_path / "out", state={k: v for k, v in state.items() if k != key})
    with pytest.raises(SpecError, match="the network has no 'more'"):
        export_network(SPEC, tmp_path / "out", state={**state, "more": torch.zeros(1)})
    with pytest.raises(SpecError, match=rf"'{key}' is \(2,\), not \(4, 4, 3, 3\)"):
        export_network(SPEC, tmp_path / "out", state={**state, key: torch.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite(network: Network, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["head.linear1.bias"][0] = torch.nan
    with pytest.raises(VerifyError, match="small: outputs are not finite with these weights"):
        export_network(SPEC, tmp_path / "out", state=state)


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown format 'onx'\. Did you mean 'onnx'"):
        export_network(SPEC, tmp_path, formats=("onx",))


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = programs.importlib.util.find_spec
    monkeypatch.setattr(
        programs.importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name)
    )
    message = r"^ONNX needs onnx, onnxscript, onnxruntime: pip install 'connsearch\[onnx\]'$"
    with pytest.raises(ConnsearchError, match=message):
        export_network(SPEC, tmp_path / "out", formats=("toml", "onnx"))
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConnsearchError, match="out: is a file: give a directory"):
        export_network(SPEC, tmp_path / "out", formats=("toml",))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_directory_below_one_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tempfile.mkdtemp

    def refused(*args: Any, **kwargs: Any) -> str:
        path = Path(made(*args, **kwargs))
        if path.parent == tmp_path:  # root may write anywhere: the mode of a folder says nothing to it
            path.rmdir()
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return str(path)

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    (tmp_path / "out").mkdir()
    export_network(SPEC, tmp_path / "out", formats=("toml",))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["network.toml"]
    with pytest.raises(ConnsearchError, match="new: cannot be written: Permission denied"):
        export_network(SPEC, tmp_path / "new", formats=("toml",))


@pytest.mark.slow
def test_a_parameter_of_an_onnx_model_without_a_value(network: Network, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    program = programs.OnnxProgram(programs.exported(network, Shape(1, 8, 8)))
    state = {key: value for key, value in network.state_dict().items() if key != "head.linear1.bias"}
    message = r"^model\.onnx: no value is given for the model's parameter 'head\.linear1\.bias'$"
    with pytest.raises(ConnsearchError, match=message):
        program.write(tmp_path / "model.onnx", state)


def test_differences() -> None:
    cases = [Case(torch.zeros(1), torch.tensor([[2.0, 4.0]]))]
    assert differences([torch.tensor([[2.0, 5.0]])], cases) == (1.0, 0.25)
    assert differences([torch.tensor([[2.0, torch.nan]])], cases) == (float("inf"), float("inf"))
    assert differences([torch.zeros(1, 3)], cases) == (float("inf"), float("inf"))
    infinite = torch.tensor([[2.0, torch.inf]])
    assert differences([infinite], cases) == (float("inf"), float("inf"))
    for found in (infinite, torch.tensor([[2.0, 4.0]])):
        assert differences([found], [Case(torch.zeros(1), infinite)]) == (float("inf"), float("inf"))
    near, far = Case(torch.zeros(1), torch.zeros(1, 2)), Case(torch.zeros(1), infinite)
    assert differences([torch.zeros(1, 2), infinite], [near, far]) == (float("inf"), float("inf"))


def test_random_parameters_that_show_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def without_bound(network: Network) -> None:
        randomise(network)
        dict(network.named_parameters())["head.linear1.bias"].data[0] = torch.inf

    monkeypatch.setattr(write, "randomise", without_bound)
    message = "small: outputs are not finite with random parameters in float64: nothing can be compared"
    with pytest.raises(VerifyError, match=message):
        export_network(SPEC, tmp_path / "out", formats=("python",))
    assert not list(tmp_path.iterdir())
