"""Networks without connections that carry nothing compute what they did; the others come near."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.nn import Network, build
from connsearch.nn.aggregations import Gated
from connsearch.nn.pruned import pruned_network
from connsearch.nn.shares import source_shares
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.pruned import Edge, Pruner
from connsearch.spec.reading import reading_of

IMAGES = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def make(aggregation: str, *, topology: str = "dense", unit: str = "conv", **settings: Any) -> Network:
    """Return a network in which every number is drawn, in double precision."""
    block = {"topology": topology, "aggregation": aggregation, "unit": unit}
    spec = NetworkSpec.from_dict({
        "name": "net", "input": {"channels": 3, "height": 8, "width": 8}, "n_classes": 5,
        "blocks": [{**block, "n_layers": 4, "width": 4}, {**block, "n_layers": 3, "width": 6}], **settings,
    })  # fmt: skip
    network = Network(spec).double()
    draw = torch.Generator().manual_seed(0)
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            drawn = torch.rand(value.shape, dtype=value.dtype, generator=draw)
            value.data.copy_(drawn + 0.5 if "var" in name else drawn - 0.4)
    return network.eval()


def silence(network: Network, edge: Edge) -> None:
    """Let a connection carry exactly nothing."""
    source, reader = edge
    plan = resolve(network.spec)
    node = plan.nodes[plan.graph.index(reader)]
    place = node.sources.index(plan.graph.index(source))
    module = network.node(reader)
    assert node.aggregation is not None
    with torch.no_grad():
        if node.aggregation.name == "concat":
            reading = reading_of(node.chain, node.in_shape.channels)
            assert reading is not None
            weight = module.get_submodule(reading.mixer).weight.transpose(0, reading.axis)
            starts = [sum(node.source_channels[:i]) * reading.per_channel for i in (place, place + 1)]
            weight[starts[0] : starts[1]] = 0
        elif isinstance(module.aggregation, Gated):
            assert place > 0
            module.aggregation.gates[place - 1].weight.zero_()
            module.aggregation.gates[place - 1].bias.fill_(-1e4)
        elif node.aggregation.name == "routed":
            gates = network.node(plan.nodes[node.gated_by[place]].node.name).gates
            assert isinstance(gates, nn.Sequential)
            last = gates.get_submodule("linear2")
            slot = node.slots[place]
            assert slot is not None
            last.weight[slot] = 0
            last.bias[slot] = -1e4
        else:
            sigmoid = getattr(module.aggregation, "activation", "none") == "sigmoid"
            module.aggregation.weight[place] = -1e4 if sigmoid else 0


def drawn_edges(network: Network, seed: int, share: float = 0.45) -> set[Edge]:
    """Return connections that can go, such that no node is left without a reader but by chance."""
    rng = random.Random(seed)
    pruner = Pruner(network.spec)
    strengths = {
        (pruner.names[source], node.node.name): rng.random()
        for node in pruner.plan.nodes
        for place, source in enumerate(node.sources)
        if not (node.aggregation is not None and node.aggregation.name == "gated" and place == 0)
    }
    return pruner.weak(strengths, share)


def dead_edges(spec: NetworkSpec, left: NetworkSpec) -> set[Edge]:
    """Return what nodes read that are not there any more."""
    names = [node.name for node in spec.graph().nodes]
    kept = {node.name for node in left.graph().nodes}
    return {
        (names[s], names[t]) for s, t in spec.graph().edges() if names[t] not in kept and names[s] in kept
    }


CASES = [
    ("weighted", {}),
    ("weighted(activation=sigmoid)", {}),
    ("depthwise", {}),
    ("depthwise(form=paper)", {"topology": "log_dense"}),
    ("depthwise", {"unit": "bottleneck", "transition": "pool"}),
    ("gated", {}),
    ("concat", {}),
    ("concat", {"unit": "bottleneck", "compression": 0.5, "transition": "pool"}),
    ("concat", {"unit": "separable", "compression": 0.4}),
    ("concat", {"unit": "conv(order=post)", "head": "flat(cells=4)"}),
    ("concat", {"scope": "global", "topology": "log_dense", "unit": "dense_bottleneck"}),
    ("concat", {"unit": "basic(norm=instance)", "head": "pixels"}),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("aggregation", "settings"), CASES, ids=[f"{a}-{'-'.join(map(str, s.values()))}" for a, s in CASES]
)
def test_without_what_carries_nothing_the_outputs_are_the_same(
    aggregation: str, settings: dict[str, Any], seed: int
) -> None:
    network = make(aggregation, **settings)
    removed = drawn_edges(network, seed)
    assert removed
    before = network(IMAGES)
    for edge in removed:
        silence(network, edge)
    silent = network(IMAGES)
    assert not torch.allclose(before, silent)  # they did carry something
    left = pruned_network(network, removed)
    torch.testing.assert_close(left(IMAGES), silent, rtol=1e-9, atol=1e-9)
    cost = network_cost(left.spec)
    assert cost.params == sum(p.numel() for p in left.parameters()) < network_cost(network.spec).params
    assert cost.macs <= network_cost(network.spec).macs
    assert cost.n_edges <= network_cost(network.spec).n_edges - len(removed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hidden", [1, 5])
def test_routed_likewise_if_readers_that_go_had_no_share(hidden: int, seed: int) -> None:
    network = make(f"routed(hidden={hidden})")
    readers = network.gate_readers()
    for attempt in range(100 * seed, 100 * seed + 100):
        removed = drawn_edges(network, attempt, share=0.3)
        gone = removed | dead_edges(network.spec, Pruner(network.spec).without(removed))
        emptied = any(all((owner, reader) in gone for reader in names) for owner, names in readers.items())
        if not emptied and all(reader in readers.get(owner, ()) for owner, reader in removed):
            break  # else gates that add up to one would all have to be 0
    else:
        pytest.fail("no draw leaves each node a reader")
    assert removed
    for owner, reader in gone:
        if reader in readers.get(owner, ()):
            silence(network, (owner, reader))
    left = pruned_network(network, removed)
    torch.testing.assert_close(left(IMAGES), network(IMAGES), rtol=1e-9, atol=1e-9)


def test_without_a_reader_the_other_gates_of_a_node_grow_by_its_share() -> None:
    network = make("routed")
    edge = ("stem", "block1.layer3")
    before = source_shares(network, IMAGES)
    left = pruned_network(network, {edge})
    after = source_shares(left, IMAGES)
    assert edge not in after
    for reader in ("block1.layer2", "block1.layer4", "transition1"):
        expected = before["stem", reader] / (1 - before[edge])
        torch.testing.assert_close(after["stem", reader], expected)


def test_two_readers_less_one_need_no_gate() -> None:
    network = make("routed")
    left = pruned_network(network, {("block1.layer3", "block1.layer4")})
    assert network.node("block1.layer3").gates is not None
    assert left.node("block1.layer3").gates is None
    assert source_shares(left, IMAGES)["block1.layer3", "transition1"].eq(1).all()


def test_the_oldest_sources_of_gates_go_where_a_later_gate_is_open() -> None:
    network = make("gated")
    gated = network.node("block1.layer4").aggregation
    assert isinstance(gated, Gated)
    with torch.no_grad():
        gated.gates[1].weight.zero_()
        gated.gates[1].bias.fill_(1e4)  # x_3 = h_3
    left = pruned_network(network, {("stem", "block1.layer4"), ("block1.layer1", "block1.layer4")})
    torch.testing.assert_close(left(IMAGES), network(IMAGES))
    remaining = left.node("block1.layer4").aggregation
    assert isinstance(remaining, Gated)
    assert len(remaining.gates) == 1


def test_a_removed_source_leaves_its_bias_to_the_newest() -> None:
    network = make("depthwise")
    old = network.node("block1.layer3").aggregation
    left = pruned_network(network, {("stem", "block1.layer3")})
    new = left.node("block1.layer3").aggregation
    torch.testing.assert_close(new.bias[1], old.bias[2] + old.bias[0])
    torch.testing.assert_close(new.bias[0], old.bias[1], rtol=0, atol=0)
    torch.testing.assert_close(new.running_var, old.running_var[1:], rtol=0, atol=0)
    assert old.bias.shape == (3, 4)  # the network itself stays as it is


def test_a_norm_over_all_channels_counts_those_that_nothing_reads() -> None:
    network = make("concat", unit="conv(norm=layer)")
    edge = ("stem", "block1.layer3")
    silence(network, edge)
    left = pruned_network(network, {edge})
    assert not torch.allclose(left(IMAGES), network(IMAGES))


def test_weights_that_were_not_zero_leave_outputs_near() -> None:
    network = make("depthwise")
    edge = ("stem", "block1.layer4")
    with torch.no_grad():
        network.node("block1.layer4").aggregation.weight[0] = 1e-4
    difference = (pruned_network(network, {edge})(IMAGES) - network(IMAGES)).abs().max().item()
    assert 0 < difference < 0.01


def test_all_that_stays_keeps_its_weights_bit_for_bit() -> None:
    network = make("concat")
    left = pruned_network(network, {("transition1", "block2.layer3")})
    new, old = left.state_dict(), network.state_dict()
    assert new.keys() == old.keys()
    changed = [name for name in new if new[name].shape != old[name].shape]
    assert changed
    assert all(name.startswith("block2.layer3.") for name in changed)
    assert all(torch.equal(new[name], old[name]) for name in new if name not in changed)
    cut: Tensor = old["block2.layer3.conv1.weight"][:, 6:]
    assert torch.equal(new["block2.layer3.conv1.weight"], cut)


def test_what_is_left_can_be_trained_and_compiled() -> None:
    network = make("depthwise", unit="basic").float().train()
    left = pruned_network(network, {("stem", "block1.layer2"), ("block1.layer1", "block1.layer4")})
    assert left.training
    compiled = build(left.spec)
    compiled.load_state_dict(left.state_dict())
    left.eval()
    compiled.eval()
    torch.testing.assert_close(compiled(IMAGES.float()), left(IMAGES.float()), rtol=1e-4, atol=1e-5)
    left.train()
    left(IMAGES.float()).sum().backward()
    assert all(p.grad is not None for p in left.parameters())


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    network = make("weighted")
    state = torch.get_rng_state()
    pruned_network(network, {("stem", "block1.layer3")})
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_go_is_an_error() -> None:
    with pytest.raises(SpecError, match="cannot be removed: 'sum' does not weigh its sources"):
        pruned_network(make("sum"), {("stem", "block1.layer2")})
