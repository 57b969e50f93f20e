"""Drops: what training does at random to edges, and what evaluation does instead."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from connsearch.graph import ConnectivityGraph, Node
from connsearch.nn import Network
from connsearch.nn.drops import Draws
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.plan import NodePlan


def residual(drop: str, n_units: int = 4) -> NetworkSpec:
    """x_l = x_{l-1} + F_l(x_{l-1}) with joins of their own."""
    nodes, sources = [Node("stem", "stem")], [()]
    for i in range(n_units):
        state = len(nodes) - 1
        nodes += [Node(f"f{i}", "unit"), Node(f"x{i}", "join")]
        sources += [(state,), (state, len(nodes) - 2)]
    nodes.append(Node("head", "head"))
    sources.append((len(nodes) - 2,))
    graph = ConnectivityGraph(tuple(nodes), tuple(sources))
    return NetworkSpec.from_graph(
        graph, width=4, drop=drop, n_classes=3, input={"channels": 3, "height": 6, "width": 6}
    )


def plan_of(drops: tuple[EdgeDrop | None, ...]) -> NodePlan:
    plan = resolve(residual("stochastic_depth")).nodes[2]
    return plan._replace(drops=drops, sources=tuple(range(len(drops))))


def kept(network: Network, x: Tensor) -> Tensor:
    """Return the logits of a network of which only the given sums are left, by hand."""
    h = network.node("stem").conv1(x)
    for i in range(4):
        h = h + (1 - (i + 1) / 4 * 0.5) * unit(network, f"f{i}", h)
    return unit(network, "head", h)


def unit(network: Network, name: str, h: Tensor) -> Tensor:
    module = network.node(name)
    for operation in module.line:
        h = getattr(module, operation)(h)
    return h


def test_stochastic_depth_decays_linearly_and_evaluation_scales_by_it() -> None:
    spec = residual("stochastic_depth(survival=0.5)")
    survivals = [p.drops[1].survival for p in resolve(spec).nodes if p.drops]
    assert survivals == [0.875, 0.75, 0.625, 0.5]
    assert all(p.drops[0] is None for p in resolve(spec).nodes if p.drops)
    network = Network(spec).eval()
    x = torch.randn(5, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(network(x), kept(network, x))


def test_stochastic_depth_drops_a_unit_for_all_its_readers_alike() -> None:
    """With every earlier output added, a dropped unit counts for none of its readers."""
    spec = NetworkSpec(
        blocks=[{"topology": "dense", "n_layers": 6, "width": 4}],
        input={"height": 4, "width": 4},
        drop="stochastic_depth(survival=0.0)",
    )
    plan = resolve(spec)
    reader = next(i for i, p in enumerate(plan.nodes) if p.node.name == "block1.layer6")
    last = next(i for i, p in enumerate(plan.nodes) if p.node.kind == "head")
    torch.manual_seed(0)
    for _ in range(20):
        draws = Draws(1, training=True)
        ones = [torch.ones(1, 1, 1, 1) for _ in plan.nodes[reader].sources]
        first = draws.weaken(plan.nodes[reader].drops, plan.nodes[reader].sources, ones)
        again = draws.weaken(
            plan.nodes[last].drops, plan.nodes[last].sources, [*ones, torch.ones(1, 1, 1, 1)]
        )
        assert [h.item() for h in first] == [h.item() for h in again][: len(first)]
        assert first[0].item() == 1  # the stem is no unit
        assert again[-1].item() == 0  # the last unit survives with probability 0


def test_stochastic_depth_keeps_as_often_as_it_says() -> None:
    plan = plan_of((None, EdgeDrop("source", 0.3)))
    torch.manual_seed(0)
    kept_ones = [
        Draws(1, training=True).weaken(plan.drops, plan.sources, [torch.ones(1), torch.ones(1)])[1].item()
        for _ in range(2000)
    ]
    assert set(kept_ones) == {0.0, 1.0}
    assert sum(kept_ones) / 2000 == pytest.approx(0.3, abs=0.04)


def test_swapout_draws_each_element_of_every_source_and_evaluation_takes_the_mean() -> None:
    plan = plan_of((EdgeDrop("element", 0.25), EdgeDrop("element", 0.25)))
    torch.manual_seed(0)
    h = torch.randn(4, 4, 50, 50)
    skip, branch = Draws(1, training=True).weaken(plan.drops, plan.sources, [h, h])
    assert bool(((skip == 0) | (skip == h)).all())
    assert not torch.equal(skip, branch)
    assert (skip != 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    for scaled in Draws(1, training=False).weaken(plan.drops, plan.sources, [h, h]):
        torch.testing.assert_close(scaled, 0.25 * h)


@pytest.mark.parametrize("rate", [0.15, 0.9, 1.0])
def test_local_drop_path_takes_the_mean_of_some_branches_never_none(rate: float) -> None:
    plan = plan_of(tuple(EdgeDrop("path", 1 - rate, 0.0, column) for column in range(3)))
    torch.manual_seed(0)
    counts = torch.zeros(3)
    for _ in range(1000):
        factors = [
            h.item() for h in Draws(3, training=True).weaken(plan.drops, plan.sources, [torch.ones(1)] * 3)
        ]
        n_kept = sum(f > 0 for f in factors)
        assert n_kept >= 1
        assert factors == [pytest.approx(3 / n_kept) if f else 0.0 for f in factors]
        counts += torch.tensor([float(f > 0) for f in factors])
    alone = rate**3 / 3  # all dropped, and this one drawn to stay
    torch.testing.assert_close(counts / 1000, torch.full((3,), 1 - rate + alone), atol=0.05, rtol=0)


def test_global_drop_path_keeps_one_column_throughout_a_pass() -> None:
    plans = [
        plan_of(tuple(EdgeDrop("path", 0.85, 1.0, column) for column in columns))
        for columns in ((0, 1, 2), (0, 1), (0, 1, 2))
    ]
    torch.manual_seed(0)
    columns = set()
    for _ in range(60):
        draws = Draws(3, training=True)
        full, partial, again = [
            [h.item() for h in draws.weaken(plan.drops, plan.sources, [torch.ones(1)] * len(plan.drops))]
            for plan in plans
        ]
        column = full.index(3.0)
        columns.add(column)
        assert full == again == [3.0 if i == column else 0.0 for i in range(3)]
        # a node that the column does not pass keeps all: only other columns read it
        assert partial == ([1.0, 1.0] if column == 2 else [2.0 if i == column else 0.0 for i in range(2)])
    assert columns == {0, 1, 2}


def test_drop_path_leaves_evaluation_alone() -> None:
    plan = plan_of((EdgeDrop("path", 0.5, 0.5, 0), EdgeDrop("path", 0.5, 0.5, 1)))
    h = torch.randn(3)
    assert all(found is h for found in Draws(2, training=False).weaken(plan.drops, plan.sources, [h, h]))


@pytest.mark.parametrize("drop", ["stochastic_depth", "swapout"])
def test_training_is_random_and_follows_the_seed(drop: str) -> None:
    network = Network(residual(f"{drop}(survival=0.2)")).train()
    x = torch.randn(8, 3, 6, 6)

    def logits(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return network(x)

    assert torch.equal(logits(1), logits(1))
    assert len({tuple(logits(seed).flatten().tolist()) for seed in range(20)}) > 5
    network.eval()
    assert torch.equal(logits(1), logits(2))


def test_gradients_reach_only_what_was_kept() -> None:
    network = Network(residual("stochastic_depth(survival=0.0)")).train()
    network(torch.randn(4, 3, 6, 6)).square().sum().backward()
    gradients = [float(network.node(f"f{i}").conv1.weight.grad.abs().max()) for i in range(4)]
    assert gradients[3] == 0  # survives with probability 0
