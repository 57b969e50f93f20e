"""Parts of a given graph: lines of operations that are no units, in networks that cost what is counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name
from torch.utils.flop_counter import FlopCounterMode

from connsearch.cost import Budget, CostModel, fit_width, network_cost
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.nn.chain import build_op
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.chains import LINES
from connsearch.spec.ops import Deconv, Slice, Subsample, Upsample
from connsearch.spec.presets import preset
from measured import images, inference_bytes, training_bytes

PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "norm_act": [{"norm": "none", "activation": "elu"}, {"norm": "instance"}],
    "projection": [{"stride": 2}, {"kernel": 3, "order": "pre", "norm": "batch", "activation": "relu"}],
    "zero_pad": [{"stride": 1}, {"stride": 3}],
    "slice": [{"start": 1, "stop": 3}, {"start": -2, "stop": 0}],
    "pool": [{"kind": "avg"}, {"kernel": 3, "padding": 1}],
    "upsample": [{"kind": "nearest"}, {"scale": 3}],
    "deconv": [{"kernel": 5, "stride": 3}, {"keep": True, "bias": True, "norm": "batch"}],
}
"""More values of parameters than the defaults, which are always tried."""
INSTEAD: dict[str, dict[str, Any]] = {"patches": {"size": 2, "rows": 3, "columns": 4}}
"""In place of the defaults, which do not fit 7 x 9 pixels."""


def cases() -> list[Ref]:
    return [
        LINES.ref(name, **values)
        for name in sorted(LINES)
        for values in [INSTEAD.get(name, {}), *PARAMETERS.get(name, [])]
    ]


def with_part(line: Ref) -> NetworkSpec:
    """Return stem, unit, the part, another unit, head; the part reads stem and unit."""
    names = ["s", {"name": "a"}, {"name": "x", "kind": "join", "part": "p"}, "b", "h"]
    edges = [["s", "a"], ["s", "x"], ["a", "x"], ["x", "b"], ["b", "h"]]
    return NetworkSpec.from_dict(
        {
            "graph": {"nodes": names, "edges": edges},
            "blocks": [{"width": 5, "unit": "conv"}],
            "parts": [{"name": "p", "line": line.to_data()}],
            "input": {"channels": 2, "height": 7, "width": 9},
            "n_classes": 3,
        }
    )


@pytest.mark.parametrize("line", cases(), ids=lambda ref: ref.label)
def test_a_network_with_a_part_is_built_as_it_is_counted(line: Ref) -> None:
    spec = with_part(line)
    cost, network = network_cost(spec), Network(spec)
    assert sum(p.numel() for p in network.parameters()) == cost.params
    with FlopCounterMode(display=False) as counter:
        network.eval()(images(spec)[:1])
    assert counter.get_total_flops() == 2 * (cost.conv_macs + cost.linear_macs)
    x = images(spec)
    assert inference_bytes(network, x) == cost.inference_bytes
    assert training_bytes(network, x) == cost.training_bytes
    assert CostModel(spec).cost(spec.widths) == cost
    plan = resolve(spec).nodes[2]
    found: list[Tensor] = []
    last = network.node("x")._modules.get(network.node("x").line[-1]) if network.node("x").line else None
    if last is not None:
        last.register_forward_hook(lambda module, args, out: found.append(out))
        network(x)
        assert tuple(found[0].shape[1:]) == plan.out_shape


def test_a_part_takes_the_width_it_is_asked_for() -> None:
    spec = with_part(Ref("projection"))

    def channels(**values: Any) -> int:
        part = spec.parts[0].model_copy(update=values)
        return resolve(spec.model_copy(update={"parts": (part,)})).nodes[2].out_shape.channels

    assert channels() == 5
    assert channels(ratio=2.5) == 12
    assert channels(line=None, unit="basic(expansion=3)") == 15
    assert channels(line=None, unit="basic(expansion=3)", ratio=2.0) == 30


def test_a_part_may_read_in_its_own_way() -> None:
    part = with_part(Ref("identity")).parts[0].model_copy(update={"aggregation": "concat"})
    plan = resolve(with_part(Ref("identity")).model_copy(update={"parts": (part,)}))
    assert plan.nodes[2].aggregation == Ref("concat")
    assert plan.nodes[2].out_shape.channels == 10
    assert plan.nodes[3].in_shape.channels == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("slice(start=3, stop=9)", "no channels 3 .. 9 of 5"),
        ("slice(start=2, stop=2)", "no channels 2 .. 2 of 5"),
        ("pool(kind=mean)", "unknown pool 'mean'. Known: avg, max."),
        ("pool(kernel=9)", "no pixel is left of 7x9: use fewer blocks or a larger input"),
        ("upsample(kind=cubic)", "unknown upsample 'cubic'. Known: bilinear, nearest."),
        ("upsample(scale=0)", "scale must be at least 1, got 0"),
        ("deconv(kernel=2)", "kernel must be odd and at least 1, got 2"),
        ("deconv(kernel=3, stride=4)", "kernel must be at least the stride, 4, or holes are left; got 3"),
        ("pool(padding=3)", "padding must lie between 0 and half the kernel, 1, got 3"),
        ("pool(padding=-1)", "padding must lie between 0 and half the kernel, 1, got -1"),
        ("projection(order=mid)", "unknown order 'mid'. Known: post, pre."),
    ],
)
def test_a_wrong_part_is_refused_by_its_node(line: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(with_part(LINES.parse(line)))
    assert str(caught.value) == f"x: {message}"


def test_a_join_merges_two_at_least() -> None:
    nodes = ["s", {"name": "j", "kind": "join"}, "h"]
    spec = NetworkSpec.from_dict(
        {"graph": {"nodes": nodes, "edges": [["s", "j"], ["j", "h"]]}, "blocks": [{}]}
    )
    with pytest.raises(SpecError, match=r"^j: a node without operations merges two sources at least$"):
        resolve(spec)


def test_a_shortcut_without_weights_takes_every_second_pixel_and_pads_channels() -> None:
    h = torch.randn(2, 3, 5, 4)
    out = build_op(Subsample(3, 8, 2))(h)
    assert out.shape == (2, 8, 3, 2)
    assert torch.equal(out[:, 2:5], h[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 5:].any()


def test_a_slice_is_a_copy_of_some_channels() -> None:
    h = torch.randn(1, 6, 2, 2)
    out = build_op(Slice(2, 5))(h)
    assert torch.equal(out, h[:, 2:5])
    assert out.data_ptr() != h[:, 2:5].data_ptr()


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (3, 3), (5, 2), (5, 4)])
def test_a_transposed_convolution_is_the_gradient_of_a_convolution(kernel: int, stride: int) -> None:
    module = build_op(Deconv(4, 3, kernel, stride)).double()
    h = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    out = module(h)
    assert out.shape == (2, 3, 3 * stride, 5 * stride)
    larger = torch.randn_like(out, requires_grad=True)
    conv = F.conv2d(larger, module.weight, stride=stride, padding=kernel // 2)
    (expected,) = torch.autograd.grad(conv, larger, h)
    torch.testing.assert_close(out, expected)


def test_a_graph_keeps_its_scales_in_files() -> None:
    """A carry that stays at its scale, as a shortcut to more channels does."""
    nodes = ["s", {"name": "c", "kind": "carry", "scale": 0, "part": "p"}, "a", "h"]
    edges = [["s", "c"], ["s", "a"], ["c", "a"], ["a", "h"]]
    spec = NetworkSpec.from_dict(
        {
            "graph": {"nodes": nodes, "edges": edges},
            "blocks": [{}],
            "parts": [{"name": "p", "line": "projection"}],
        }
    )
    assert spec.graph().nodes[1].scale == 0
    assert NetworkSpec.from_json(spec.to_json()) == spec


def test_a_head_gives_out_the_classes_whatever_its_part_says() -> None:
    nodes = ["s", "a", {"name": "h", "kind": "head", "part": "p"}]
    data = {"graph": {"nodes": nodes, "edges": [["s", "a"], ["a", "h"]]}, "blocks": [{}], "n_classes": 3}
    spec = NetworkSpec.from_dict({**data, "parts": [{"name": "p", "line": "projection"}]})
    with pytest.raises(SpecError, match=r"^h: a head gives out 3 classes, but its part gives out 16"):
        resolve(spec)
    assert resolve(NetworkSpec.from_dict({**data, "parts": [{"name": "p"}]})).nodes[2].out_shape == (3, 1, 1)


def test_groups_of_a_parts_unit_divide_the_fitted_width() -> None:
    nodes = ["s", {"name": "a", "part": "p"}, "h"]
    spec = NetworkSpec.from_dict(
        {
            "graph": {"nodes": nodes, "edges": [["s", "a"], ["a", "h"]]},
            "blocks": [{"width": 4}],
            "parts": [{"name": "p", "unit": "conv(groups=4)"}],
        }
    )
    for params in range(600, 4000, 97):
        fitted = fit_width(spec, Budget(params=params))
        assert network_cost(fitted).params <= params
        assert fitted.widths[0] % 4 == 0


def test_a_shortcut_that_pads_keeps_fitted_widths_in_order() -> None:
    spec = preset("resnet-20")
    for params in range(3000, 40_000, 1777):
        widths = fit_width(spec, Budget(params=params)).widths
        assert list(widths) == sorted(widths)


def test_nearest_upsampling_repeats_pixels() -> None:
    h = torch.arange(4.0).reshape(1, 1, 2, 2)
    expected = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(build_op(Upsample("nearest"))(h), expected)
