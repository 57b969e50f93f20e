"""Presets with images small enough for a test to run them."""

from __future__ import annotations

from functools import cache

from connsearch.cost import network_cost
from connsearch.spec import NetworkSpec
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset

SIDES = {224: 64, 352: 96, 480: 128}


@cache
def macs_of(name: str) -> int:
    """Return the multiply-accumulates of a preset."""
    return network_cost(preset(name)).macs


def with_small_images(spec: NetworkSpec) -> NetworkSpec:
    """Return the same layers for images of 64 x 64 or 96 x 128 instead of 224 x 224 and 352 x 480.

    Networks of smaller images, and those whose head reads a map of one size, are returned themselves.
    """
    height, width = (SIDES.get(side, side) for side in (spec.input.height, spec.input.width))
    if spec.head.name == "flat" or (height, width) == (spec.input.height, spec.input.width):
        return spec
    return spec.replaced(input=InputConfig(channels=spec.input.channels, height=height, width=width))
