"""Stochastic depth, Swapout and deep supervision: networks of other families with one property more."""

from __future__ import annotations

import pytest

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.presets import preset
from connsearch.spec.presets.supervised import with_heads


def test_stochastic_depth_is_resnet_110_with_a_linear_decay() -> None:
    spec = preset("stochastic-depth-resnet-110")
    assert network_cost(spec).params == network_cost(preset("resnet-110")).params == 1_727_962
    drops = [p.drops[1] for p in resolve(spec).nodes if p.drops]
    assert len(drops) == 54
    assert [d.survival for d in drops if d] == pytest.approx([1 - (i / 54) * 0.5 for i in range(1, 55)])
    assert all(p.drops[0] is None for p in resolve(spec).nodes if p.drops)  # the skip always counts


def test_swapout_drops_skip_and_unit() -> None:
    spec = preset("swapout-resnet-20-w2")
    drops = [p.drops for p in resolve(spec).nodes if p.drops]
    assert len(drops) == 9
    assert all(len(pair) == 2 and pair[0] == pair[1] for pair in drops)
    assert drops[-1][0] is not None
    assert drops[-1][0].survival == 0.5


def test_supervised_heads_read_the_ends_of_blocks() -> None:
    spec = preset("supervised-resnet-20")
    graph = spec.graph()
    heads = [
        graph.nodes[graph.sources[i][0]].name for i, node in enumerate(graph.nodes) if node.kind == "head"
    ]
    assert heads == ["block1.unit3_sum", "block2.unit3_sum", "block3.unit3_sum"]
    added = (16 + 1) * 10 + (32 + 1) * 10
    assert network_cost(spec).params == network_cost(preset("resnet-20")).params + added


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("delugenet-146", "further heads need a given graph: write the network with its graph first"),
        ("resnet-20", r"no node 'block9'\. "),
    ],
)
def test_a_head_needs_a_node(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        with_heads(preset(name), ["block9"])


def test_a_network_may_be_given_its_graph_and_then_heads() -> None:
    spec = preset("densenet-40-12")
    blocks = [block.model_dump(exclude={"topology", "n_layers", "entry_unit"}) for block in spec.blocks]
    given = NetworkSpec.from_dict({**spec.to_dict(), "graph": spec.graph(), "blocks": blocks})
    assert network_cost(given) == network_cost(spec)
    assert network_cost(with_heads(given, ["block1.layer12"])).n_edges == network_cost(spec).n_edges + 1
