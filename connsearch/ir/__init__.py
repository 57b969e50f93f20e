"""The compiler's view of a network: programs, their text, and passes that rewrite them. Free of torch."""

from connsearch.ir.evaluation import moved_in_evaluation
from connsearch.ir.floor import least_moved
from connsearch.ir.lower import lower
from connsearch.ir.pipelines import PIPELINES, list_passes, optimize
from connsearch.ir.program import Op, Program, Step
from connsearch.ir.saved import least_saved, saved_elements
from connsearch.ir.text import parse
from connsearch.ir.traffic import Traffic, bytes_moved, op_traffic
from connsearch.ir.verify import verify

__all__ = [
    "PIPELINES",
    "Op",
    "Program",
    "Step",
    "Traffic",
    "bytes_moved",
    "least_moved",
    "least_saved",
    "list_passes",
    "lower",
    "moved_in_evaluation",
    "op_traffic",
    "optimize",
    "parse",
    "saved_elements",
    "verify",
]
