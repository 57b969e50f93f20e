"""What functions of several families are given: images of a common size."""

from __future__ import annotations

from connsearch.spec.network import InputConfig

LARGE = InputConfig(height=224, width=224)
