"""Attention, channel norms, depth-weighted averages, fractal and random wiring, against their formulas."""

from __future__ import annotations

import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import measured
from connsearch.cost import network_cost
from connsearch.nn import Network
from connsearch.nn.chain import build_op
from connsearch.spec import NetworkSpec
from connsearch.spec.ops import Attention, Conv, Norm, Position
from connsearch.spec.presets import preset
from connsearch.spec.presets.fractal import fractal
from connsearch.spec.presets.random_wiring import randomly_wired
from connsearch.spec.presets.transformers import transformer

State = dict[str, Tensor]


def randomised(spec: NetworkSpec, *, training: bool = False) -> tuple[Any, State]:
    """Return a network with random parameters and statistics in double precision, and what it is made of."""
    torch.manual_seed(0)
    network = Network(spec).double().train(training)
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            noise = torch.rand_like(value) + 0.5 if "var" in name else 0.3 * torch.randn_like(value)
            value.data.copy_(noise)
    return network, {key: value.clone() for key, value in network.state_dict().items()}


def images(spec: NetworkSpec, batch: int = 3) -> Tensor:
    shape = (batch, spec.input.channels, spec.input.height, spec.input.width)
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


# ---- operations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "d"), [(1, 1), (1, 5), (3, 2), (4, 1)])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (2, 3, 4), (3, 1, 5)])
def test_attention_is_its_formula_in_numpy(heads: int, d: int, batch: int, height: int, width: int) -> None:
    """Pixel n of head g sees sum_m softmax_m(q_n . k_m / sqrt(d)) v_m."""
    rng = np.random.default_rng(0)
    h = rng.normal(size=(batch, heads, 3, d, height * width))
    expected = np.zeros((batch, heads, d, height * width))
    for b, g, n in np.ndindex(batch, heads, height * width):
        q, k, v = h[b, g]
        scores = np.array([q[:, n] @ k[:, m] / math.sqrt(d) for m in range(height * width)])
        weights = np.exp(scores - scores.max())
        expected[b, g, :, n] = v @ (weights / weights.sum())
    read = torch.from_numpy(h).reshape(batch, 3 * heads * d, height, width)
    for given_ in (read, read.to(memory_format=torch.channels_last)):
        found = build_op(Attention(heads * d, heads))(given_)
        assert found.shape == (batch, heads * d, height, width)
        np.testing.assert_allclose(found.numpy().reshape(expected.shape), expected, rtol=1e-10)


def test_attention_is_torchs() -> None:
    h = torch.randn(2, 4 * 3 * 5, 3, 6, dtype=torch.float64)
    q, k, v = h.reshape(2, 4, 3, 5, 18).transpose(3, 4).unbind(2)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(2, 20, 3, 6)
    torch.testing.assert_close(build_op(Attention(20, 4))(h), expected)


def test_a_channel_norm_is_torchs_layer_norm_at_each_pixel() -> None:
    norm = build_op(Norm("channel", 6)).double()
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    h = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    for row, column in np.ndindex(3, 4):
        expected = F.layer_norm(h[:, :, row, column], (6,), norm.weight, norm.bias)
        torch.testing.assert_close(norm(h)[:, :, row, column], expected)
    assert norm(h).is_contiguous()


def test_patches_do_not_overlap_and_have_positions() -> None:
    cut, position = build_op(Conv(3, 5, 4, stride=4, bias=True, padding=0)), build_op(Position(5, 2, 3))
    image = torch.randn(2, 3, 8, 12)
    tokens = image.unfold(2, 4, 4).unfold(3, 4, 4)  # B 3 2 3 4 4
    expected = torch.einsum("bcyxij,ocij->boyx", tokens, cut.weight) + cut.bias[:, None, None]
    torch.testing.assert_close(position(cut(image)), expected + position.weight, rtol=1e-4, atol=1e-5)
    assert build_op(Position(40, 20, 20)).weight.std().item() == pytest.approx(0.02, rel=0.05)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_transformers_of_any_heads_cost_what_torch_says(
    heads: int, d: int, depth: int, dilation: int, flat: bool
) -> None:
    spec = transformer(depth, heads * d, heads, patch=16 if flat else 8, dilation=dilation)
    cost, network = network_cost(spec), Network(spec)
    assert cost.params == sum(p.numel() for p in network.parameters())
    x = torch.zeros(1, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    assert cost.flops() == counter.get_total_flops()
    with pytest.MonkeyPatch.context() as patch:  # heads are rows too
        patch.setattr(measured, "is_activation", lambda t: t.dim() > 1 and t.shape[0] % measured.BATCH == 0)
        x = measured.images(spec)
        assert cost.inference_bytes == measured.inference_bytes(network, x)
        assert cost.training_bytes == measured.training_bytes(network, x)


# ---- transformers ----------------------------------------------------------------------------------------


def channel_norm(state: State, key: str, h: Tensor) -> Tensor:
    weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
    return F.layer_norm(h, h.shape[-1:], weight, bias)


def dense(state: State, key: str, h: Tensor) -> Tensor:
    return h @ state[f"{key}.weight"].flatten(1).T + state[f"{key}.bias"]


def run_transformer(state: State, x: Tensor, depth: int, heads: int, dilation: int, period: int) -> Tensor:
    """Tokens in rows, B N C; averages as DenseFormer's code accumulates them, group by group."""
    h = F.conv2d(x, state["stem.conv1.weight"], state["stem.conv1.bias"], stride=16)
    h = (h + state["stem.position1.weight"]).flatten(2).transpose(1, 2)
    groups: list[list[Tensor]] = [[] for _ in range(max(dilation, 1))]
    groups[0].append(h)
    for i in range(depth):
        name = f"block{i + 1}"
        qkv = dense(state, f"{name}.attention.conv1", channel_norm(state, f"{name}.attention.norm1", h))
        q, k, v = qkv.unflatten(2, (heads, 3, -1)).permute(3, 0, 2, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + dense(state, f"{name}.attention.conv2", seen)
        inner = dense(state, f"{name}.mlp.conv1", channel_norm(state, f"{name}.mlp.norm1", h))
        h = h + dense(state, f"{name}.mlp.conv2", F.gelu(inner))
        if dilation:
            group = groups[(i + 1) % dilation]
            group.append(h)
            if (i + 1) % period == 0:
                h = torch.einsum(
                    "l,lbnc->bnc", state[f"{name}.average.aggregation.weight"], torch.stack(group)
                )
    return dense(state, "head.linear1", channel_norm(state, "head.norm1", h).mean(1))


@pytest.mark.parametrize(("dilation", "period"), [(0, 1), (1, 1), (2, 1), (3, 2), (9, 1)])
def test_transformers_compute_their_definition(dilation: int, period: int) -> None:
    spec = transformer(5, 6, 2, patch=16, dilation=dilation, period=period)
    network, state = randomised(spec)
    expected = run_transformer(state, images(spec), 5, 2, dilation, period)
    torch.testing.assert_close(network(images(spec)), expected, rtol=1e-9, atol=1e-9)


def test_a_denseformer_starts_as_a_transformer() -> None:
    """1 on the newest output and 0 elsewhere: the averages change nothing until they are trained."""
    plain, dense_ = Network(preset("transformer-small")).eval(), Network(preset("denseformer-small")).eval()
    missing = dense_.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert missing.missing_keys == [f"block{i}.average.aggregation.weight" for i in range(1, 7)]
    x = images(plain.spec, 1).float()
    with torch.no_grad():
        torch.testing.assert_close(dense_(x), plain(x), rtol=0, atol=0)
    dense_(x).sum().backward()
    assert all(dense_.node(f"block{i}.average").aggregation.weight.grad.abs().min() > 0 for i in range(1, 7))


# ---- fractal and random wiring -----------------------------------------------------------------------------


def unit(state: State, name: str, h: Tensor, *, training: bool) -> Tensor:
    """Convolution of any size - batch norm - ReLU."""
    weight = state[f"{name}.conv1.weight"]
    return F.relu(normal(state, f"{name}.norm1", F.conv2d(h, weight, padding=weight.shape[2] // 2), training))


def normal(state: State, key: str, h: Tensor, training: bool) -> Tensor:
    mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
    return F.batch_norm(h, mean.clone(), var.clone(), state[f"{key}.weight"], state[f"{key}.bias"], training)


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4])
@pytest.mark.parametrize("widen", [False, True])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_fractal_network_is_its_recursion(n_columns: int, widen: bool, training: bool) -> None:
    """f_1(z) = {conv(z)}, f_{C+1}(z) = f_C(mean f_C(z)) and conv(z): the branches that meet last."""
    size = {"height": 17, "width": 16}
    spec = fractal(n_columns, (4, 4, 5), widen=widen, n_classes=2, input=size)
    network, state = randomised(spec, training=training)

    def branches(z: Tensor, depth: int, block: int, done: dict[int, int]) -> list[Tensor]:
        column = n_columns - depth
        inner: list[Tensor] = []
        if depth > 1:
            first = branches(z, depth - 1, block, done)
            inner = branches(torch.stack(first).mean(0), depth - 1, block, done)
        done[column] = done.get(column, 0) + 1
        name = f"block{block}.column{column}.conv{done[column]}"
        return [unit(state, name, z, training=training), *inner]

    h = images(spec)
    for block in (1, 2, 3):
        if widen and block != 2:  # the second is as wide as the first
            h = unit(state, "stem" if block == 1 else "block3.widened", h, training=training)
        last = branches(h, n_columns, block, {})
        assert len(last) == n_columns
        h = torch.stack([F.max_pool2d(branch, 2) for branch in last]).mean(0)
    expected = h.mean((2, 3)) @ state["head.linear1.weight"].T + state["head.linear1.bias"]
    torch.testing.assert_close(network(images(spec)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_randomly_wired_network_is_its_rule(seed: int, training: bool) -> None:
    """Node by node over the undirected graphs: ReLU(sum_j sigmoid(w_j) h_j) - separable - norm."""
    stages = [nx.watts_strogatz_graph(7, 4, 0.75, seed=seed), nx.gnp_random_graph(5, 0.3, seed=seed)]
    spec = randomly_wired(stages, width=4, n_classes=2, input={"height": 9, "width": 7})
    network, state = randomised(spec, training=training)
    h = F.conv2d(images(spec), state["stem.conv1.weight"], padding=1)
    h = normal(state, "stem.norm1", h, training)
    for number, stage in enumerate(stages, start=1):
        out: dict[int, Tensor] = {}
        for v in sorted(stage):
            name = f"stage{number}.node{v + 1}"
            earlier = sorted(u for u in stage[v] if u < v)
            read = [out[u] for u in earlier] or [h]
            weight = torch.sigmoid(state[f"{name}.aggregation.weight"])
            x = F.relu(torch.einsum("l,lbchw->bchw", weight, torch.stack(read)))
            depthwise = state[f"{name}.conv1.weight"]
            x = F.conv2d(x, depthwise, stride=1 if earlier else 2, padding=1, groups=len(depthwise))
            out[v] = normal(state, f"{name}.norm1", F.conv2d(x, state[f"{name}.conv2.weight"]), training)
        h = torch.stack([out[v] for v in stage if all(u < v for u in stage[v])]).mean(0)
    expected = F.relu(h).mean((2, 3)) @ state["head.linear1.weight"].T + state["head.linear1.bias"]
    torch.testing.assert_close(network(images(spec)), expected, rtol=1e-9, atol=1e-9)


def test_a_graph_of_ones_own_in_three_lines() -> None:
    graph = nx.watts_strogatz_graph(12, 4, 0.75, seed=1)
    network = Network(randomly_wired(graph, width=8, n_classes=10))
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
