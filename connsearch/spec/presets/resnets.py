"""ResNets (He et al., arXiv 1512.03385 and 1603.05027) and their relatives: wide, grouped, exponential.

Version 1: h_l = ReLU(skip + F_l(h_{l-1})). Small images: shortcuts of option A, without weights (recalled;
parameters as published). Large images: 1x1 projections, and the stride of a bottleneck in its 3x3
convolution, as torchvision and fb.resnet.torch have it; the paper's stride is in the first 1x1.

Version 2: x_l = sum_{j<l} h_j as a running sum, h_l = F_l(x_l), units that begin with norm and ReLU. Small
images as in the authors' resnet-1k-layers (stride in the first 1x1), large ones as in fb.resnet.torch's
preresnet (stride in the 3x3; the first unit reads the activated stem).

Wide ResNets (Zagoruyko and Komodakis, arXiv 1605.07146): version 2 of basic units, widths 16 k, 32 k, 64 k;
for large images version 1 with bottlenecks twice as wide inside. ResNeXts (Xie et al., arXiv 1611.05431):
version 1 with grouped 3x3 convolutions, as in the authors' code. ELU ResNets (Shah et al., arXiv 1604.04112):
conv - ELU - conv - norm and nothing after the sum; the rest of them is recalled, not confirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from connsearch.registry import Ref
from connsearch.spec.chains import STEMS, UNITS
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets.inputs import LARGE
from connsearch.spec.presets.residual import post_activation, pre_activation

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

_WIDTHS = (64, 128, 256, 512)
_STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def _small(depth: int) -> NetworkSpec:
    """ResNet-v1 of 6 n + 2 layers for 32 x 32 pixels: 3 x n basic units."""
    return post_activation(
        ((depth - 2) // 6,) * 3,
        (16, 32, 64),
        Ref("post_basic"),
        shortcut="zero_pad",
        stem=STEMS.ref("conv", norm="batch", activation="relu"),
    )


def _elu(depth: int) -> NetworkSpec:
    """The same with exponential linear units and no activation after the sum."""
    return post_activation(
        ((depth - 2) // 6,) * 3,
        (16, 32, 64),
        UNITS.ref("post_basic", activation="elu", norm_inside=False),
        shortcut="zero_pad",
        activation="none",
        stem=STEMS.ref("conv", activation="elu"),
    )


def _large(depth: int, unit: Ref) -> NetworkSpec:
    """ResNet-v1 for 224 x 224 pixels; only basic units leave the stem's width as it is."""
    return post_activation(
        _STAGES[depth],
        _WIDTHS,
        unit,
        widens=unit.name == "post_bottleneck",
        stem="imagenet",
        input=LARGE,
        n_classes=1000,
    )


def _small_v2(depth: int) -> NetworkSpec:
    """ResNet-v2 of 9 n + 2 layers for 32 x 32 pixels: 3 x n bottlenecks."""
    unit = UNITS.ref("bottleneck", expansion=4, stride_at="first")
    return pre_activation(((depth - 2) // 9,) * 3, (16, 32, 64), unit)


def _large_v2(depth: int) -> NetworkSpec:
    """ResNet-v2 for 224 x 224 pixels."""
    unit = UNITS.ref("bottleneck", expansion=4)
    return pre_activation(
        _STAGES[depth], _WIDTHS, unit, activated_stem=True, stem="imagenet", input=LARGE, n_classes=1000
    )


def _wide(depth: int, k: int) -> NetworkSpec:
    """Wide ResNet of 6 n + 4 layers: the stem's 16 channels, then k times as many as a ResNet."""
    return pre_activation(((depth - 4) // 6,) * 3, (16 * k, 32 * k, 64 * k), Ref("basic"), stem_share=1 / k)


def _grouped(depth: int, groups: int, width: int) -> NetworkSpec:
    """ResNeXt of 9 n + 2 layers for 32 x 32 pixels: stages of 256, 512, 1024 channels."""
    unit = UNITS.ref("post_bottleneck", groups=groups, inner=groups * width // 64)
    return post_activation(
        ((depth - 2) // 9,) * 3,
        _WIDTHS[:3],
        unit,
        widens=True,
        stem=STEMS.ref("conv", norm="batch", activation="relu"),
    )


for _depth in (20, 32, 44, 56, 110):
    PRESETS[f"resnet-{_depth}"] = partial(_small, _depth)
for _depth in (18, 34):
    PRESETS[f"resnet-{_depth}"] = partial(_large, _depth, Ref("post_basic"))
for _depth in (50, 101, 152):
    PRESETS[f"resnet-{_depth}"] = partial(_large, _depth, Ref("post_bottleneck"))
for _depth in (164, 1001):
    PRESETS[f"resnet-v2-{_depth}"] = partial(_small_v2, _depth)
for _depth in (50, 101, 152, 200):
    PRESETS[f"resnet-v2-{_depth}"] = partial(_large_v2, _depth)
for _depth, _k in ((40, 4), (16, 8), (28, 10)):
    PRESETS[f"wrn-{_depth}-{_k}"] = partial(_wide, _depth, _k)
PRESETS["wrn-50-2"] = partial(_large, 50, UNITS.ref("post_bottleneck", inner=2))
PRESETS["resnext-29-8x64d"] = partial(_grouped, 29, 8, 64)
for _depth in (50, 101):
    PRESETS[f"resnext-{_depth}-32x4d"] = partial(
        _large, _depth, UNITS.ref("post_bottleneck", groups=32, inner=2)
    )
PRESETS["elu-resnet-110"] = partial(_elu, 110)
