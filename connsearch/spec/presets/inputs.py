"""What functions of several families are given: images of a common size, depths of blocks."""

from __future__ import annotations

from collections.abc import Sequence

from connsearch.errors import SpecError
from connsearch.spec.network import InputConfig

LARGE = InputConfig(height=224, width=224)


def check_depths(depths: Sequence[int]) -> None:
    """Refuse blocks without a layer.

    Raises:
        SpecError: if there is no block, or a depth is no integer of at least 1.
    """
    if not depths or any(type(depth) is not int or depth < 1 for depth in depths):
        raise SpecError(f"depths: each block needs an integer of at least 1, got {list(depths)}")
