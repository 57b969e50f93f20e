"""Is what was exported the network? Both run on random images, with random parameters and with the real ones.

Initial values hide mistakes (weights that are all 1/n do not tell sources apart), so parameters and running
statistics are drawn at random first, and compared in float64 where that is possible.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from connsearch.errors import VerifyError
from connsearch.spec.ops import Shape

BATCHES = (1, 2, 5)
EXACT, SINGLE = 1e-9, 1e-4
"""How far outputs may be apart, as a share of the largest one or of 1, in float64 and in float32."""


class Verified(NamedTuple):
    """What a comparison found.

    Attributes:
        format: What was compared with the network.
        outputs: How many batches of images were compared.
        difference: The largest difference of a logit with the exported weights, float32.
        relative: The same as a share of the largest logit, or of 1 if that is larger.
        random: The largest share with random parameters.
        random_dtype: What those were in.
    """

    format: str
    outputs: int
    difference: float
    relative: float
    random: float
    random_dtype: str

    def __str__(self) -> str:
        return (
            f"{self.format}: verified on {self.outputs} batches, largest difference {self.difference:.1e}; "
            f"with random parameters {self.random:.1e} in {self.random_dtype}"
        )


class Case(NamedTuple):
    """Images and what the network makes of them."""

    images: Tensor
    logits: Tensor


def cases(network: nn.Module, image: Shape, *, dtype: torch.dtype, seed: int) -> list[Case]:
    """Return random images of several batch sizes, and the network's outputs in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(batch, *image, generator=generator, dtype=dtype) for batch in BATCHES]
    with torch.no_grad():
        return [Case(x, network(x)) for x in images]


def differences(found: Sequence[Tensor], expected: Sequence[Case]) -> tuple[float, float]:
    """Return the largest difference, and the largest share of the largest logit or of 1.

    A shape that is another one is infinitely far off, and so is a value that is not finite in either.
    """
    most, share = 0.0, 0.0
    for logits, case in zip(found, expected, strict=True):
        if logits.shape != case.logits.shape:
            return float("inf"), float("inf")
        difference = float((logits.double() - case.logits.double()).abs().max())
        if not math.isfinite(difference):  # inf - inf is nan, which no comparison finds too large
            return float("inf"), float("inf")
        most = max(most, difference)
        share = max(share, difference / max(1.0, float(case.logits.abs().max())))
    return most, share


def verified(
    name: str,
    real: tuple[Sequence[Tensor], Sequence[Case]],
    random: tuple[Sequence[Tensor], Sequence[Case]],
    dtype: torch.dtype,
) -> Verified:
    """Return what a comparison found.

    Args:
        name: What was exported.
        real: Its outputs with the real weights, and those of the network.
        random: The same with random ones.
        dtype: Of the random ones.

    Raises:
        VerifyError: if outputs are further apart than rounding explains.
    """
    difference, relative = differences(*real)
    _, drawn = differences(*random)
    limit = EXACT if dtype == torch.float64 else SINGLE
    for what, share, most in (("the weights", relative, SINGLE), ("random parameters", drawn, limit)):
        if not share <= most:
            raise VerifyError(
                f"{name}: with {what} its outputs differ from the network's by {share:.1e} of the largest, "
                f"more than {most:.0e}: nothing is written"
            )
    kind = str(dtype).removeprefix("torch.")
    return Verified(name, len(real[1]) + len(random[1]), difference, relative, drawn, kind)


_ALONE = """\
import sys
sys.modules["connsearch"] = None
import importlib.util
spec = importlib.util.spec_from_file_location("model", sys.argv[1])
model = importlib.util.module_from_spec(spec)
sys.modules["model"] = model
spec.loader.exec_module(model)
import torch
torch.set_num_threads(int(sys.argv[5]))
cases = torch.load(sys.argv[3])
with torch.no_grad():
    outputs = []
    for weights, images in zip(sys.argv[2].split("|"), cases):
        network = model.Network().to(images[0].dtype)
        network.load_state_dict(model.read_safetensors(weights), strict=True)
        network.eval()
        outputs.append([network(x) for x in images])
torch.save(outputs, sys.argv[4])
"""


def run_alone(
    source: Path, states: Sequence[dict[str, Tensor]], expected: Sequence[Sequence[Case]], directory: Path
) -> list[list[Tensor]]:
    """Return what an exported file makes of images, run by itself: connsearch cannot be imported there.

    Args:
        source: The file.
        states: State dicts, loaded one after the other.
        expected: For each of them, cases whose images it is run on.
        directory: For files on the way.

    Raises:
        VerifyError: if it cannot be run.
    """
    weights = []
    for number, state in enumerate(states):
        weights.append(directory / f"state{number}.safetensors")
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, weights[-1])
    torch.save([[case.images for case in found] for found in expected], directory / "images.pt")
    command = [sys.executable, "-I", "-c", _ALONE, str(source.resolve()), "|".join(map(str, weights))]
    command += [str(directory / "images.pt"), str(directory / "outputs.pt"), str(torch.get_num_threads())]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=directory, check=False)
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise VerifyError(f"{source.name} does not run by itself: {reason}")
    outputs: list[list[Tensor]] = torch.load(directory / "outputs.pt")
    return outputs


def outputs_of(run: Callable[[Tensor], Tensor], expected: Sequence[Case]) -> list[Tensor]:
    """Return what a function makes of the images of cases."""
    with torch.no_grad():
        return [run(case.images) for case in expected]
