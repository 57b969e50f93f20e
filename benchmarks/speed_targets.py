"""What was promised of kernels and built networks, on CPUs and in batches of 64, with the usual malloc."""

from __future__ import annotations

from typing import NamedTuple

from speed_records import COMPILED, DEFINITION, EAGER, NORM_ACT, NORMALIZED, PAPER, STACKED, Line, Run

from connsearch.memory import DEFAULT

BUILT = "fused"  # the pipeline of `build`
PLAIN, HALF = ("float32", False), ("bfloat16", True)  # dtype, whether channels are last
BATCH = 64
EVALUATION, FIRST_CALL_S = 2.0, 3.0  # times faster than the definition, at least; at most

_EARLY, _LATE, _WIDE = (64, 128, 16, 16), (64, 256, 8, 8), (64, 64, 32, 32)  # maps, B C H W
_KERNELS = {  # times faster than a way, at least, in float32 and NCHW
    (PAPER, _EARLY): {STACKED: 6.0, COMPILED: 1.1},
    (PAPER, _LATE): {STACKED: 7.0, COMPILED: 1.1},
    (NORMALIZED, _EARLY): {EAGER: 4.0, COMPILED: 1.1},
    (NORMALIZED, _LATE): {EAGER: 4.0, COMPILED: 1.1},
    (NORM_ACT, _EARLY): {EAGER: 2.0},
    (NORM_ACT, _WIDE): {EAGER: 2.0},
}


class Promise(NamedTuple):
    """What was promised of a built network in training.

    Attributes:
        network: Its preset.
        format: dtype, and whether channels are last.
        what: "step": times faster, at least; "first": the first step in steps of another way, at most;
            "peak": memory in that of another way, at most.
        than: The other way.
        bound: The number.
    """

    network: str
    format: tuple[str, bool]
    what: str
    than: str
    bound: float

    def words(self) -> str:
        """Return of what."""
        than = self.than if self.than != DEFINITION else "the definition"
        return {
            "step": f"times faster than {than}",
            "first": f"first step, in steps of {than}",
            "peak": f"peak, in that of {than}",
        }[self.what]

    def value(self, run: Run) -> float | None:
        """Return what it is in a run, or None if that was not measured."""
        if not {BUILT, self.than} <= run.ways.keys():
            return None
        ours, theirs = run.ways[BUILT], run.ways[self.than]
        return {
            "step": theirs["step_s"] / ours["step_s"],
            "first": ours["first_s"] / theirs["step_s"],
            "peak": ours["peak_bytes"] / theirs["peak_bytes"],
        }[self.what]

    def kept(self, value: float) -> bool:
        """Return whether a value is as promised."""
        return value >= self.bound if self.what == "step" else value <= self.bound


PROMISES = (
    *(
        Promise("delugenet-146", form, *promise)
        for form in (PLAIN, HALF)
        for promise in (("step", STACKED, 1.8), ("step", COMPILED, 1.0), ("first", DEFINITION, 1.5))
    ),
    Promise("densenet-bc-100-12", PLAIN, "step", DEFINITION, 1.0),
    Promise("densenet-bc-100-12", PLAIN, "peak", DEFINITION, 0.5),
)


def format_of(line: Line) -> tuple[str, bool]:
    """Return dtype, and whether channels are last in memory."""
    return line["dtype"], line["channels_last"]


def of_kernel(line: Line) -> dict[str, float]:
    """Return how many times faster than each way a kernel was to be."""
    promised = format_of(line) == PLAIN and is_usual(line)
    return _KERNELS.get((line["operation"], tuple(line["shape"])), {}) if promised else {}


def apply_to(line: Line) -> bool:
    """Return whether promises are about what a line says was measured: training on a CPU, in such batches."""
    trained = line["mode"] == "train" and line["device"] == "cpu" and line["batch"] == BATCH
    return trained and is_usual(line)


def is_usual(line: Line) -> bool:
    """Return whether what is freed became what the C library makes of it, as in other programs."""
    return bool(line.get("malloc", DEFAULT) == DEFAULT)
