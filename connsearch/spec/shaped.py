"""What a node computes at the shape that it reads: its registered line, its width, the shapes in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from connsearch.errors import SpecError
from connsearch.registry import Ref, Registry, entry_cache
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS, UNITS, ChainRule, chain, unit_channels
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.spec.network import NetworkSpec, PartConfig
from connsearch.spec.ops import Chain, Linear, Norm, Position, Shape, output_shape
from connsearch.spec.plan import Line

T = TypeVar("T")

_IDENTITY = Ref("identity")


class Lines:
    """The operations of a network's nodes, by what a node is and the shape that it reads.

    Args:
        spec: The network.
        widths: Of its blocks.

    Raises:
        SpecError: if a unit does not take its width.
    """

    def __init__(self, spec: NetworkSpec, widths: Sequence[int]) -> None:
        self.spec = spec
        self.widths = widths
        self.block_out = [
            placed(f"blocks[{number}].unit", unit_channels, block.unit, width)
            for number, (block, width) in enumerate(zip(spec.blocks, widths, strict=True))
        ]
        self.parts = {part.name: part for part in spec.node_parts}
        self.even = spec.even_blocks()
        self._known: dict[tuple[str, int, Shape, str], Line] = {}

    def line(self, kind: str, block: int, shape: Shape, part: str = "") -> Line:
        """Return the operations of a node that reads `shape`, the same object for nodes alike.

        Args:
            kind: Of the node.
            block: That it belongs to, from 1.
            shape: Of its one input.
            part: The node's part.

        Raises:
            SpecError: if the operations do not take that input.
        """
        key = (kind, block, shape, part)
        line = self._known.get(key)
        if line is None:
            line = self._known[key] = _line(*self._rule(kind, block, shape.channels, part), shape)
            if kind == "head" and line.out_shape.channels != self.spec.n_classes:
                raise SpecError(
                    f"a head gives out {self.spec.n_classes} classes, but its part gives out "
                    f"{line.out_shape.channels} channels: leave out its line and unit"
                )
        return line

    def _rule(
        self, kind: str, block: int, in_channels: int, part: str
    ) -> tuple[Registry[ChainRule], Ref, int]:
        """Return which registered line of operations a node is, and the width it is asked for."""
        spec = self.spec
        if part and spec.layout == ENCODER_DECODER:
            line = self.parts[part].line
            assert line is not None  # of both parts that this layout has
            return LINES, line, self._passed_on(in_channels, block)
        if part:
            found = self._part(self.parts[part], block - 1)
            if found is not None:
                return found
        if kind == "unit":
            return UNITS, spec.blocks[block - 1].unit, self.widths[block - 1]
        if kind == "head":
            return HEADS, spec.head, spec.n_classes
        if kind == "stem":
            own = spec.stem_ratio and 1 not in self.even
            return STEMS, spec.stem, self.widths[0] * spec.stem_ratio if own else self.block_out[0]
        width = self._passed_on(in_channels, block)
        if kind == "join":
            return LINES, _IDENTITY, width
        return TRANSITIONS, spec.carry if kind == "carry" else spec.transition, width

    def _passed_on(self, in_channels: Any, block: int) -> Any:
        """Return the channels of what enters a block: a share of those read, or what its units give out."""
        if self.spec.compression and block not in self.even:
            return _floor_times(in_channels, self.spec.compression)
        return self.block_out[block - 1]

    def _part(self, part: PartConfig, block: int) -> tuple[Registry[ChainRule], Ref, int] | None:
        """Return the line of a part and its width; None for a part that has no line of its own."""
        if part.ratio:
            width = _times(self.widths[block], part.ratio, part.multiple)
        else:
            width = self.block_out[block] if part.line is not None else self.widths[block]
        if part.line is not None:
            return LINES, part.line, width
        if part.unit is not None or part.ratio:
            return UNITS, part.unit or self.spec.blocks[block].unit, width
        return None


def placed(place: str, ask: Callable[..., T], *args: Any) -> T:
    """Return what a function gives, its error with a place."""
    try:
        return ask(*args)
    except SpecError as error:
        raise SpecError(str(error), place=place) from None


@entry_cache
def _line(registry: Registry[ChainRule], ref: Ref, width: int, shape: Shape) -> Line:
    return shaped(ref, chain(registry, ref, shape.channels, width), shape)


def shaped(ref: Ref, ops: Chain, shape: Shape) -> Line:
    """Return operations with the shapes that they read and give out.

    Raises:
        SpecError: naming `ref`, whose operations they are, if they do not take that input.
    """
    after = shape
    for op in ops:
        if isinstance(op, Norm) and op.kind != "batch" and _normalised_together(op, after) == 1:
            what = f"norm {op.kind!r} of a single value is always 0"
            raise SpecError(f"{what}: use a larger input or norm 'batch'")
        if isinstance(op, Linear) and op.in_features != after.size:
            raise SpecError(
                f"{ref.label!r} reads {op.in_features} features, but {after.channels} x {after.height} x "
                f"{after.width} are left: change the input's size"
            )
        if isinstance(op, Position) and (op.height, op.width) != (after.height, after.width):
            raise SpecError(
                f"{ref.label!r} has positions for {op.height}x{op.width} pixels, but {after.height}x"
                f"{after.width} are left: change the input's size"
            )
        after = output_shape(op, after)
    if after.height < 1 or after.width < 1:
        size = f"{shape.height}x{shape.width}"
        raise SpecError(f"no pixel is left of {size}: use fewer blocks or a larger input")
    return Line(ops, shape, after)


def _normalised_together(op: Norm, shape: Shape) -> Any:
    """Return how many values of one image a norm normalises together; 0 where that may be one."""
    if op.kind in ("batch", "channel"):
        return 0
    return (1 if op.kind == "instance" else op.channels) * (shape.height * shape.width)


def _times(channels: Any, ratio: float, multiple: int) -> Any:
    """Return ratio * channels, rounded to the nearest multiple, halves up; multiple = 0: rounded down."""
    if not multiple:
        return _floor_times(channels, ratio)
    exact = Fraction(str(ratio))  # floor(r c / m + 1/2) = floor((2 r c + m) / (2 m)), in whole numbers
    doubled = channels * (2 * exact.numerator) + multiple * exact.denominator
    return _floor_times(doubled, Fraction(1, 2 * multiple * exact.denominator)) * multiple


def _floor_times(channels: Any, ratio: float | Fraction) -> Any:
    """Return floor(ratio * channels), of an integer or of a symbol, at least 1; 0.3 means 3/10."""
    exact = Fraction(str(ratio))
    return max(1, math.floor(channels * exact)) if isinstance(channels, int) else channels.floor_times(exact)
