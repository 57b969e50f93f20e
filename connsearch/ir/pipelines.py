"""Pipelines: the order of compilation, as literals. Reading them is reading the compiler."""

from __future__ import annotations

from collections.abc import Callable

from connsearch.errors import SpecError, did_you_mean
from connsearch.ir.passes.eliminate_concat import eliminate_concat
from connsearch.ir.passes.fold_norms import fold_norms
from connsearch.ir.passes.fuse_epilogues import fuse_epilogues
from connsearch.ir.passes.fuse_norm_act import fuse_norm_act
from connsearch.ir.passes.fuse_prologues import fuse_prologues
from connsearch.ir.passes.partial_sums import partial_sums
from connsearch.ir.passes.pool_first import pool_first
from connsearch.ir.passes.pull_backward import pull_backward
from connsearch.ir.passes.recompute import recompute
from connsearch.ir.passes.share_statistics import share_statistics
from connsearch.ir.program import Program
from connsearch.ir.verify import verify

Pass = Callable[[Program], Program]

PIPELINES: dict[str, tuple[Pass, ...]] = {
    "none": (),
    "default": (
        partial_sums,
        fuse_norm_act,
        fuse_epilogues,
        eliminate_concat,
        share_statistics,
        pull_backward,
    ),
    "fused": (
        partial_sums,
        fuse_norm_act,
        fuse_epilogues,
        eliminate_concat,
        recompute,
        share_statistics,
        pull_backward,
    ),
    "inference": (
        partial_sums,
        pool_first,
        fuse_norm_act,
        fold_norms,
        fuse_epilogues,
        eliminate_concat,
        fuse_prologues,
    ),
}
PASSES = {rewrite.__name__: rewrite for passes in PIPELINES.values() for rewrite in passes}
INFERENCE = "inference"  # what evaluation without gradients runs; it has no gradients


def optimize(program: Program, pipeline: str = "fused") -> Program:
    """Return what the passes of a pipeline make of a program, verified after each of them.

    Raises:
        SpecError: if there is no such pipeline.
        VerifyError: if a pass made a program that is not valid; its name is in the message.

    >>> from connsearch.ir import lower
    >>> from connsearch.spec.presets import preset
    >>> program = lower(preset("densenet-40-12"))
    >>> len(program.ops), len(optimize(program, "fused").ops)
    (157, 44)
    """
    if pipeline not in PIPELINES:
        raise SpecError(f"unknown pipeline {pipeline!r}. {did_you_mean(pipeline, PIPELINES)}")
    verify(program)
    for rewrite in PIPELINES[pipeline]:
        made = rewrite(program)
        program = program if made is program else verify(made, after=rewrite.__name__)
    return program


def list_passes() -> list[str]:
    """Return the names of all passes."""
    return sorted(PASSES)
