"""How often Triton compiles for all networks of a search together: a bounded number of times."""

from __future__ import annotations

import os
import random
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from compiling import NoDevice

from connsearch.kernels import use_backend
from connsearch.nn import Network
from connsearch.nn.compiled import build
from connsearch.search.space import SearchSpace

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)
SPACES = Path(__file__).parents[2] / "search_spaces"


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Return what is asked to be compiled: kernels, and what of their arguments they are compiled for."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    asked: set[tuple[str, str]] = set()
    run = JITFunction.run

    def note(*, key: str, fn: Any, **_: Any) -> bool:
        asked.add((fn.name, key))
        return True  # do not compile

    def only_ask(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        run(self, *args, grid=grid, warmup=True, **options)

    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", note)
    monkeypatch.setattr(JITFunction, "run", only_ask)
    monkeypatch.setattr(driver, "_active", None)  # put back afterwards
    driver.set_active(NoDevice(90))
    return asked


def trained(space: SearchSpace, n: int, dtype: torch.dtype, form: torch.memory_format) -> Iterator[None]:
    """Run a step of training of so many networks."""
    rng = random.Random(0)
    for _ in range(n):
        network = Network(space.draw(rng).spec).to(dtype, memory_format=form).train()
        inputs = network.spec.input
        images = torch.randn(8, inputs.channels, inputs.height, inputs.width, dtype=dtype)
        with use_backend("triton"):
            fused = build(network, pipeline="fused")
            fused(images.contiguous(memory_format=form)).float().square().mean().backward()
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "form", "most"),
    [(torch.bfloat16, torch.channels_last, 60), (torch.float32, torch.contiguous_format, 30)],
    ids=["bfloat16-last", "float32-nchw"],
)
def test_the_networks_of_a_search_share_their_kernels(
    dtype: torch.dtype, form: torch.memory_format, most: int, kernels: set[tuple[str, str]]
) -> None:
    space = SearchSpace.model_validate(tomllib.loads((SPACES / "digits.toml").read_text()))
    known = [len(kernels) for _ in trained(space, 50, dtype, form)]
    assert 10 < known[-1] <= most, Counter(name for name, _ in kernels)
    assert known[-1] <= 1.2 * known[24]
