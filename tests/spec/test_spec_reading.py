"""Where lines first mix channels: over all units, stems of lines that do not, and narrower lines."""

from __future__ import annotations

import pytest

from connsearch.spec.chains import HEADS, LINES, TRANSITIONS, UNITS, chain
from connsearch.spec.ops import Conv, Deconv, DepthwiseConv, GlobalPool, Linear, Norm, Shape, Slice
from connsearch.spec.reading import Reading, narrowed, reading_of
from connsearch.spec.shaped import shaped


@pytest.mark.parametrize("name", sorted(UNITS))
def test_a_unit_that_reads_fewer_channels_is_the_narrowed_one(name: str) -> None:
    ref = UNITS.parse(name)
    wide = chain(UNITS, ref, 12, 8)
    reading = reading_of(wide, 12)
    assert reading is not None
    assert reading.axis == 1
    assert narrowed(wide, reading, 5) == chain(UNITS, ref, 5, 8)
    shaped(ref, narrowed(wide, reading, 5), Shape(5, 8, 8))


@pytest.mark.parametrize(
    ("registry", "label"),
    [(TRANSITIONS, "conv"), (TRANSITIONS, "pool"), (HEADS, "pool"), (HEADS, "flat"), (HEADS, "pixels"),
     (LINES, "deconv"), (LINES, "transition(kind=max)"), (LINES, "projection(order=pre)")],
)  # fmt: skip
def test_ends_and_lines_likewise(registry, label: str) -> None:
    ref = registry.parse(label)
    wide = chain(registry, ref, 12, 8)
    reading = reading_of(wide, 12)
    assert reading is not None
    assert narrowed(wide, reading, 5) == chain(registry, ref, 5, 8)


def test_a_linear_layer_of_pixels_has_several_entries_for_each_channel() -> None:
    ref = HEADS.parse("flat")
    assert reading_of(chain(HEADS, ref, 6, 10), 6) == Reading(("norm1", "act1", "pool1"), "linear1", 1, 9)


def test_a_transposed_convolution_reads_channels_along_its_first_axis() -> None:
    assert reading_of((Norm("batch", 4), Deconv(4, 2)), 4) == Reading(("norm1",), "deconv1", 0)


@pytest.mark.parametrize(
    "line",
    [(), (Norm("batch", 4),), (Slice(0, 2), Conv(2, 2)), (Conv(4, 4, groups=2),),
     (Conv(4, 4, groups=4), Linear(4, 2))],
)  # fmt: skip
def test_lines_that_mix_nothing_or_groups_have_no_reading(line) -> None:
    assert reading_of(line, 4) is None


def test_a_depthwise_convolution_comes_along() -> None:
    line = (DepthwiseConv(4), GlobalPool(), Linear(4, 3))
    reading = reading_of(line, 4)
    assert reading == Reading(("conv1", "pool1"), "linear1", 1)
    assert narrowed(line, reading, 3) == (DepthwiseConv(3), GlobalPool(), Linear(3, 3))
