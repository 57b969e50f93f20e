"""What a step moves and keeps by the model of `connsearch.ir`, beside the least."""

from __future__ import annotations

from typing import NamedTuple

from connsearch.ir import bytes_moved, least_saved, lower, optimize, saved_elements
from connsearch.ir.evaluation import moved_in_evaluation
from connsearch.ir.floor import least_moved
from connsearch.ir.pipelines import INFERENCE
from connsearch.nn.ways import pipeline_of
from connsearch.spec.network import NetworkSpec


class Modelled(NamedTuple):
    """What a step moves and keeps, in bytes of a batch.

    Attributes:
        bytes_moved: Between memory and processor; None for ways that run no program of this package.
        least_bytes_moved: The least that a step of the network can move.
        saved_bytes: Kept of the forward pass for backward; 0 in evaluation, None as above.
        least_saved_bytes: The least that can be kept.
    """

    bytes_moved: int | None
    least_bytes_moved: int
    saved_bytes: int | None
    least_saved_bytes: int


def modelled(spec: NetworkSpec, way: str, element_bytes: int, *, training: bool) -> Modelled:
    """Return what a step of a network moves and keeps.

    Args:
        spec: The network.
        way: One of `connsearch.nn.ways.WAYS`.
        element_bytes: Bytes of an element, times the images of a batch.
        training: Whether it is a step of training, or of evaluation without gradients.
    """
    lowered, pipeline = lower(spec), pipeline_of(way)
    least = least_moved(lowered, training=training) * element_bytes
    least_kept = least_saved(lowered) * element_bytes if training else 0
    if pipeline is None:
        return Modelled(None, least, None, least_kept)
    if training:
        program = optimize(lowered, pipeline)
        moved = bytes_moved(program, batch=1, bytes_per_element=element_bytes)
        return Modelled(moved, least, saved_elements(program) * element_bytes, least_kept)
    folded = pipeline != "none"
    program = optimize(lowered, INFERENCE) if folded else lowered
    return Modelled(moved_in_evaluation(program, folded=folded) * element_bytes, least, 0, least_kept)
