"""What a caller gives in place of a network or a budget is refused in a line that says what to give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure

import connsearch as cs

CALLS: dict[str, Callable[[object], object]] = {
    "network_cost": cs.network_cost,
    "node_costs": cs.node_costs,
    "edge_costs": cs.edge_costs,
    "CostModel": cs.CostModel,
    "fit_width": lambda given: cs.fit_width(given, cs.Budget(macs=10**6)),  # type: ignore[arg-type]
    "build": cs.build,
    "plot_graph": cs.plot_graph,
}  # type: ignore[dict-item]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("resnet-20", r"^a NetworkSpec is asked for, got 'resnet-20': give cs\.preset\('resnet-20'\)$"),
        ("a.toml", r"^a Network.* got 'a\.toml': give cs\.NetworkSpec\.from_toml\('a\.toml'\)$"),
        (None, r"^a NetworkSpec is asked for, got None$"),
    ],
)
def test_no_network(name: str, given: object, message: str) -> None:
    with pytest.raises(cs.SpecError, match=message):
        CALLS[name](given)


def test_a_number_is_no_budget() -> None:
    message = r"^a Budget is asked for, got 40000000: give cs\.Budget\(macs=\.\.\.\)$"
    with pytest.raises(cs.SpecError, match=message):
        cs.fit_width(cs.preset("resnet-20"), 40_000_000)  # type: ignore[arg-type]


def test_a_rule_is_registered_first() -> None:
    message = r"^a topology is a name .*: register it first, @cs\.register_topology\('name'\)$"
    with pytest.raises(cs.SpecError, match=message):
        cs.ConnectivityGraph.from_topology(lambda j: [j - 1], n_layers=3)


def test_a_network_is_drawn_as_its_graph() -> None:
    assert isinstance(cs.plot_graph(cs.preset("resnet-20")), Figure)


def test_a_preset_is_no_file() -> None:
    with pytest.raises(cs.SpecError, match=r"^unknown preset 'resnet20'\. Did you mean 'resnet-20'\?"):
        cs.preset("resnet20")
