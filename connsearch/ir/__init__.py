"""The compiler's view of a network: programs, their text, and passes that rewrite them. Free of torch."""

from connsearch.ir.lower import lower
from connsearch.ir.pipelines import PIPELINES, list_passes, optimize
from connsearch.ir.program import Op, Program, Step
from connsearch.ir.text import parse
from connsearch.ir.verify import verify

__all__ = ["PIPELINES", "Op", "Program", "Step", "list_passes", "lower", "optimize", "parse", "verify"]
