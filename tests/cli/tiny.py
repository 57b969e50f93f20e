"""Files of a study that takes a second, calls of the command line and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from typer.testing import CliRunner

from connsearch.cli import app

SPACE = """\
schema = 1
input = { channels = 1, height = 8, width = 8 }
n_classes = 4

[blocks]
count = 1
topology = { any_of = ["chain", "dense"] }
n_layers = { low = 1, high = 3 }

[budget]
macs = { low = 30_000, high = 90_000 }
"""
STUDY = """\
schema = 1
question = "Which one?"
space = "space.toml"
n_trials = 3
sampler = "random"

[train]
epochs = 1
batch_size = 16

[train.dataset]
name = "synthetic"
channels = 1
height = 8
width = 8
n_classes = 4
n_train = 64
n_val = 32
n_test = 32
"""
NETWORK = """\
schema = 1
name = "small"
input = { channels = 1, height = 8, width = 8 }
n_classes = 4

[[blocks]]
topology = "log_dense"
aggregation = "depthwise"
n_layers = 4
width = 4
"""


class Result(NamedTuple):
    """What a call printed and returned."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]


def call(*args: object) -> Result:
    """Call the command line; anything but an exit is a bug, and shows as its traceback."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    return Result(result.exit_code, result.stdout, result.stderr)


def failed(message: str) -> Result:
    """Return what a call gives back that ends with an error of ours."""
    return Result(1, "", f"Error: {message}\n")
