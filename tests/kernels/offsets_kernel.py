# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc, import-untyped, import-not-found"
"""A kernel that says where a value lies."""

from __future__ import annotations

import triton.language as tl

from connsearch.kernels.tiles import kernel, offsets


@kernel
def offsets_kernel(
    out,  # 1
    channel,
    pixel,
    n_pixels,
    pitch,
    LAST: tl.constexpr,
):
    """Write the offset of a channel of a pixel, counted through all images."""
    one = tl.arange(0, 1)
    tl.store(out + one, offsets(channel + one, pixel + one, n_pixels, pitch, LAST, 1))
