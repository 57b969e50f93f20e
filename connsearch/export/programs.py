"""Networks as programs that need no Python: torch.export and ONNX, any number of images in a batch."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from connsearch.errors import ConnsearchError
from connsearch.spec.ops import Shape

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPSET = 20
NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "logits"


def check_onnx() -> None:
    """Refuse to export as ONNX where that cannot be done.

    Raises:
        ConnsearchError: naming the extra that is not installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConnsearchError(f"ONNX needs {', '.join(missing)}: pip install 'connsearch[onnx]'")


def exported(network: nn.Module, image: Shape) -> ExportedProgram:
    """Return a network in evaluation as a program for any number of images."""
    from torch.export import Dim, export

    images = torch.randn(2, *image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch deprecates inside itself
        return export(network.eval(), (images,), dynamic_shapes=({0: Dim("batch", min=1)},))


def write_program(program: ExportedProgram, path: Path) -> Callable[[Tensor], Tensor]:
    """Write a program, read it again, and return what runs it."""
    torch.export.save(program, path)
    read = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        logits: Tensor = read(images)
        return logits

    return run


def with_state(program: ExportedProgram, state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what runs a program with other parameters; its own, which it shares with the network, stay."""
    module = program.module()

    def run(images: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(module, dict(state), (images,))
        return logits

    return run


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """Keep a logger from telling what concerns nobody here, such as that torchvision is not installed."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class OnnxProgram:
    """A network as ONNX.

    Args:
        program: As `exported` returns it.
    """

    def __init__(self, program: ExportedProgram) -> None:
        with warnings.catch_warnings(), _errors_only("torch.onnx"):
            warnings.simplefilter("ignore")  # what torch and onnxscript deprecate inside themselves
            found = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                optimize=False,
                verbose=False,
            )
        assert found is not None
        self._program: Any = found
        self._own = frozenset(program.state_dict)

    def write(self, path: Path, state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
        """Write the model with these parameters, and return what runs it in onnxruntime.

        Raises:
            ConnsearchError: if one of the model's is not among them.
        """
        import onnx_ir
        from onnxruntime import InferenceSession, SessionOptions

        for name, initializer in self._program.model.graph.initializers.items():
            if name in state:
                initializer.const_value = onnx_ir.tensor(state[name].numpy(), name=name)
            elif name in self._own:  # others are constants
                raise ConnsearchError(f"{path.name}: no value is given for the model's parameter {name!r}")
        onnx_ir.save(self._program.model, path)
        options = SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
            return torch.from_numpy(logits)

        return run
