"""Everything that is exported of a network, written and verified: all of it, or nothing."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from connsearch import __version__
from connsearch.cost import network_cost
from connsearch.errors import ConnsearchError, SpecError, VerifyError, did_you_mean
from connsearch.export.description import Description, describe
from connsearch.export.fold import Folded, fold
from connsearch.export.programs import OnnxProgram, check_onnx, exported, with_state, write_program
from connsearch.export.source import model_source
from connsearch.export.verify import Case, Verified, cases, outputs_of, run_alone, verified
from connsearch.nn.network import Network
from connsearch.nn.verify import randomise
from connsearch.spec.network import NetworkSpec
from connsearch.train.trained import MARK, weights_content

State = dict[str, Tensor]

FILES = {
    "toml": ("network.toml",),
    "python": ("model.py", "weights.safetensors"),
    "torch": ("model.pt2",),
    "onnx": ("model.onnx",),
}
DEFAULT = ("toml", "python", "torch")
SEED = 0  # of images and random parameters


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        directory: Where to.
        files: Their names.
        verified: What comparisons found, one for each format that runs.
        folded: How many norms were folded, and how many are left; None if that was not asked.
    """

    directory: Path
    files: tuple[str, ...]
    verified: tuple[Verified, ...]
    folded: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        norms = {} if self.folded is None else {"norms_folded": self.folded[0], "norms_left": self.folded[1]}
        return {
            "directory": str(self.directory),
            "files": {name: (self.directory / name).stat().st_size for name in self.files},
            "verified": [found._asdict() for found in self.verified],
            **norms,
        }

    def __str__(self) -> str:
        lines = [f"wrote {self.directory / name}" for name in self.files]
        if self.folded is not None:
            lines.append(f"folded {self.folded[0]} norms, {self.folded[1]} are left")
        return "\n".join([*lines, *map(str, self.verified)])


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return formats in the order in which they are written, each once.

    Raises:
        SpecError: if one is unknown.
        ConnsearchError: if ONNX is asked for and not installed.
    """
    for name in formats:
        if name not in FILES:
            raise SpecError(f"unknown format {name!r}. {did_you_mean(name, FILES)}")
    if "onnx" in formats:
        check_onnx()
    return tuple(name for name in FILES if name in (formats or DEFAULT))


def export_network(
    spec: NetworkSpec,
    directory: str | os.PathLike[str],
    *,
    state: State | None = None,
    formats: Sequence[str] = DEFAULT,
    folded: bool = False,
    origin: str = "",
) -> Exported:
    """Write a network in some formats, each verified against its definition.

    Args:
        spec: The network.
        directory: Where to; made if it is not there. Files of the same names are replaced.
        state: Its state dict; by default initial weights, the same every time.
        formats: Of "toml", "python", "torch", "onnx".
        folded: Whether norms are folded, for inference.
        origin: Where the network and its weights come from, for the file's docstring.

    Raises:
        SpecError: if a format is unknown, or the weights are of another network.
        ConnsearchError: if nothing can be written there, or ONNX is not installed.
        VerifyError: if what is exported is not the network; nothing is written then.
    """
    formats = check_formats(formats)
    job = _Job(spec, state, folded=folded, origin=origin)
    target = Path(directory)
    try:
        if target.exists() and not target.is_dir():
            raise ConnsearchError(f"{target}: is a file: give a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        near = target if target.exists() else target.parent  # on the same disk, and writable if it must be
        with tempfile.TemporaryDirectory(dir=near, prefix=f".{target.name}.") as name:
            found = [job.write(what, Path(name)) for what in formats]
            files = tuple(file for what in formats for file in FILES[what])
            target.mkdir(exist_ok=True)
            for file in files:
                shutil.move(Path(name) / file, target / file)
    except OSError as error:
        raise ConnsearchError(f"{target}: cannot be written: {error.strerror or error}") from None
    norms = None if job.folded is None else (job.folded.norms, job.folded.left)
    return Exported(target, files, tuple(v for v in found if v is not None), norms)


class _Job:
    """One network on its way out.

    Attributes:
        network: With its weights, in evaluation.
        drawn: With random ones.
        folded: Without norms, if that is asked.
    """

    def __init__(self, spec: NetworkSpec, state: State | None, *, folded: bool, origin: str) -> None:
        self.spec, self.origin = spec, origin
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.network = Network(spec).eval()
            self.drawn = Network(spec).eval()
            if state is not None:
                _load(self.network, state)
            self.drawn.load_state_dict(self.network.state_dict())
            randomise(self.drawn)
        self.description = describe(spec)
        self.image = self.description.image
        self.folded: Folded | None = fold(self.description, self.network) if folded else None
        self._program: Any = None
        self.real = cases(self.network, self.image, dtype=torch.float32, seed=SEED)
        self._check_finite(self.real, "with these weights: nothing can be compared, or used")

    def write(self, what: str, directory: Path) -> Verified | None:
        """Write one format, and compare it."""
        writers: dict[str, Callable[[Path], Verified | None]] = {
            "toml": self._toml,
            "python": self._python,
            "torch": self._torch,
            "onnx": self._onnx,
        }
        return writers[what](directory)

    def _toml(self, directory: Path) -> None:
        path = directory / FILES["toml"][0]
        path.write_text(self.spec.to_toml(), encoding="utf-8")
        if NetworkSpec.from_toml(path) != self.spec:
            raise VerifyError(f"{path.name}: what is read back is not the network: nothing is written")

    def _python(self, directory: Path) -> Verified:
        model, weights = (directory / name for name in FILES["python"])
        model.write_text(self.source(), encoding="utf-8")
        weights.write_bytes(weights_content(self._state(self.network), self._metadata()))
        self.drawn.double()
        random = self._random(torch.float64)
        states = [self._state(self.network), self._state(self.drawn)]
        self.drawn.float()
        with tempfile.TemporaryDirectory() as scratch:
            ours, others = run_alone(model, states, [self.real, random], Path(scratch))
        return verified("model.py", (ours, self.real), (others, random), torch.float64)

    def _torch(self, directory: Path) -> Verified:
        run = write_program(self._exported(), directory / FILES["torch"][0])
        random = self._random()
        others = outputs_of(with_state(self._exported(), self._state(self.drawn)), random)
        real = outputs_of(run, self.real), self.real
        return verified("model.pt2", real, (others, random), torch.float32)

    def _onnx(self, directory: Path) -> Verified:
        program, path, random = OnnxProgram(self._exported()), directory / FILES["onnx"][0], self._random()
        others = outputs_of(program.write(path, self._state(self.drawn)), random)
        run = program.write(path, self._state(self.network))
        real = outputs_of(run, self.real), self.real
        return verified("model.onnx", real, (others, random), torch.float32)

    def _random(self, dtype: torch.dtype = torch.float32) -> list[Case]:
        """Return what the network makes of images with random parameters, in their present type."""
        found = cases(self.drawn, self.image, dtype=dtype, seed=SEED + 1)
        kind = str(dtype).removeprefix("torch.")
        self._check_finite(found, f"with random parameters in {kind}: nothing can be compared")
        return found

    def _check_finite(self, found: Sequence[Case], told: str) -> None:
        if not all(bool(torch.isfinite(case.logits).all()) for case in found):
            raise VerifyError(f"{self.spec.name}: outputs are not finite {told}")

    def _state(self, network: Network) -> State:
        """Return the state dict of what is exported, with the weights of a network."""
        state = network.state_dict() if self.folded is None else fold(self.description, network).state
        return {key: value.detach().clone().contiguous() for key, value in state.items()}

    def _metadata(self) -> dict[str, str]:
        """Return what a file of weights says: which network it is of, unless norms are folded."""
        named = {} if self.folded is not None else {MARK: json.dumps(self.spec.to_full_dict())}
        return {"format": "pt", **named}

    def _exported(self) -> Any:
        if self._program is None:
            self._program = exported(self._module(), self.image)
        return self._program

    def _module(self) -> nn.Module:
        """Return what is exported as a program: the definition, or what it becomes without norms."""
        if self.folded is None:
            return copy.deepcopy(self.network)
        scope: dict[str, Any] = {"__name__": "model"}
        exec(compile(self.source(), "model.py", "exec"), scope)
        module: nn.Module = scope["Network"]()
        module.load_state_dict(self._state(self.network))
        return module

    def source(self) -> str:
        """Return the network as Python."""
        inference = self.folded is not None
        description: Description = self.description if self.folded is None else self.folded.description
        return model_source(description, self._docstring(), inference=inference)

    def _docstring(self) -> list[str]:
        cost, image = network_cost(self.spec), self.spec.input
        size = f"{image.channels} x {image.height} x {image.width}"
        folded = ["", "For inference: norms are folded into what they read."] if self.folded else []
        lines = [
            f"{self.spec.name}, exported by connsearch {__version__}; it needs PyTorch alone.",
            "",
            *([f"Origin: {self.origin}."] if self.origin else []),
            f"Reads images B x {size}, gives logits of {self.spec.n_classes} classes.",
            f"{cost.params:,} parameters, {cost.macs:,} multiply-accumulates for one image.",
            *folded,
            "",
            '    network = load("weights.safetensors")',
            "    logits = network(images)",
        ]
        return [line.replace("\\", "\\\\").replace('"""', "'''") for line in lines]


def _load(network: Network, state: State) -> None:
    """Give a network its weights.

    Raises:
        SpecError: naming a key or shape that is another one.
    """
    own = network.state_dict()
    for key in sorted(own.keys() ^ state.keys()):
        where = "the weights lack" if key in own else "the network has no"
        raise SpecError(f"the weights are of another network: {where} {key!r}")
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise SpecError(
                f"the weights are of another network: {key!r} is {tuple(state[key].shape)}, "
                f"not {tuple(value.shape)}"
            )
    network.load_state_dict(state)
