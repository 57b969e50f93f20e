"""A GPU that is not there: Triton compiles for it, and runs nothing."""

from __future__ import annotations

from typing import Any


class NoDevice:
    """Triton's driver of a GPU of a compute capability: 80, 90."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        """Return what to compile for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """Return a number that tells apart what is compiled for different capabilities."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """Return a stream."""
        return 0
