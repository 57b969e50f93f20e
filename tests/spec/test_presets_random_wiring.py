"""The random graphs of presets: the ones that networkx draws, pinned by what they cost."""

from __future__ import annotations

import networkx as nx
import pytest

from connsearch.cost import network_cost
from connsearch.spec.presets import preset


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("randwire-ws-small", 5_527_480),
        ("randwire-er-small", 5_640_587),
        ("randwire-ba-small", 5_929_688),
    ],
)
def test_graphs_of_seeds_stay_the_same(name: str, params: int) -> None:
    counted = network_cost(preset(name)).params
    assert counted == params, f"networkx {nx.__version__} draws other graphs for the seeds of {name}"
