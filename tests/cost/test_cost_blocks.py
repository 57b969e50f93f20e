"""Cost block by block is the cost node by node, and is what networks of alike blocks are costed by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given, strategies as st

from connsearch.cost import CostModel
from connsearch.cost.blocks import BlockPlan, resolve_blocks
from connsearch.cost.model import cost_plan, plan_cost
from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec, register_aggregation, resolve
from connsearch.spec.aggregations import Aggregation, Footprint, Owned
from connsearch.spec.network import BlockConfig
from strategies import refs, specs, topologies


@st.composite
def alike_blocks(draw: st.DrawFn, aggregation: st.SearchStrategy[Ref]) -> NetworkSpec:
    """Draw a network of blocks up to 12 layers deep, each with maps of one shape."""
    unit = draw(refs(UNITS))
    groups = int(UNITS.bind(unit).get("groups", 1))
    blocks = [
        BlockConfig(
            topology=draw(topologies()),
            aggregation=draw(aggregation),
            unit=unit,
            n_layers=draw(st.integers(2, 12)),
            width=groups * draw(st.integers(1, 4)),
            entry_unit=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    size = draw(st.integers(16, 19))
    return NetworkSpec(
        blocks=blocks,
        transition=draw(st.sampled_from(["conv", "conv(kernel=1, norm=none)", "conv(activation=silu)"])),
        input={"channels": draw(st.integers(1, 3)), "height": size, "width": size + 1},
    )


def check(spec: NetworkSpec) -> None:
    """Compare ways to count, with integers and with symbols for the widths."""
    by_blocks = resolve_blocks(spec)
    assert by_blocks is not None
    by_nodes = plan_cost(resolve(spec))
    assert plan_cost(by_blocks) == by_nodes
    assert isinstance(cost_plan(spec), BlockPlan)
    assert CostModel(spec).cost(spec.widths) == by_nodes


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_blocks_cost_what_their_nodes_cost(aggregation: str) -> None:
    @given(alike_blocks(refs(AGGREGATIONS, [aggregation])))
    def drawn(spec: NetworkSpec) -> None:
        check(spec)

    drawn()


@given(specs(drops=True))
def test_any_network_costs_what_its_nodes_cost(spec: NetworkSpec) -> None:
    assert plan_cost(cost_plan(spec)) == plan_cost(resolve(spec))


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
def test_deep_blocks_of_every_pair_are_costed_as_blocks(topology: str, aggregation: str) -> None:
    block = {"topology": topology, "aggregation": aggregation}
    check(NetworkSpec(blocks=[{**block, "n_layers": 17}, {**block, "n_layers": 10, "width": 24}]))


@pytest.mark.parametrize("values", [
    {"stem_ratio": 2},
    {"compression": 0.5},
    {"scope": "global"},
    {"drop": "stochastic_depth"},
], ids=str)  # fmt: skip
def test_other_networks_are_costed_node_by_node(values: dict[str, Any]) -> None:
    aggregation = "sum" if "drop" in values else "concat"
    block = {"topology": "dense", "aggregation": aggregation, "n_layers": 3}
    spec = NetworkSpec(blocks=[block, block], **values)
    assert resolve_blocks(spec) is None
    assert CostModel(spec).cost(spec.widths) == plan_cost(resolve(spec))


def test_gates_made_before_the_block_are_left_to_the_nodes() -> None:
    block = {"topology": "dense", "aggregation": "routed(gates_of=parent)", "n_layers": 2, "entry_unit": True}
    spec = NetworkSpec(blocks=[block])
    assert resolve_blocks(spec) is None
    assert plan_cost(cost_plan(spec)) == plan_cost(resolve(spec))


@pytest.mark.parametrize("values", [
    {"unit": "basic(groups=3)", "width": 4},
    {"unit": "basic(kernel=2)"},
    {"topology": "nearest(k=-1)"},
    {"aggregation": "routed(hidden=0)"},
], ids=str)  # fmt: skip
def test_a_wrong_specification_is_told_by_its_nodes(values: dict[str, Any]) -> None:
    spec = NetworkSpec(blocks=[{"n_layers": 2, **values}])
    assert resolve_blocks(spec) is None
    with pytest.raises(SpecError, match=r"^block") as by_nodes:
        resolve(spec)
    with pytest.raises(SpecError, match=f"^{re.escape(str(by_nodes.value))}$"):
        cost_plan(spec)


@dataclass(frozen=True, kw_only=True)
class Uneven(Aggregation):
    """Everything that a rule may let depend on how many sources there are, and on which is the oldest."""

    ordered: ClassVar[bool] = True

    def applies(self, n: int) -> bool:
        return n != 0

    def node(self, n: int, channels: int, pixels: int) -> Owned:
        return Owned(params=n * n * channels, adds=n * pixels)

    def first_edge(self, channels: int, pixels: int) -> Owned:
        return Owned(params=5, source_macs=channels)

    def edge(self, channels: int, pixels: int) -> Owned:
        return Owned(params=channels * channels, conv_macs=pixels, source_macs=7)

    def footprint(self, n: int) -> Footprint:
        return Footprint(temporaries=n % 3, saved=n, saves_sources=n % 2 == 0)


@pytest.fixture
def uneven() -> Iterator[str]:
    register_aggregation("uneven")(Uneven)
    yield "uneven"
    AGGREGATIONS.unregister("uneven")


@dataclass(frozen=True, kw_only=True)
class UnevenConcat(Uneven):
    """The same, where channels add up."""

    equal_channels: ClassVar[bool] = False

    def out_channels(self, channels: Sequence[int]) -> int:
        return sum(channels)


@pytest.fixture
def uneven_concat() -> Iterator[str]:
    register_aggregation("uneven_concat")(UnevenConcat)
    yield "uneven_concat"
    AGGREGATIONS.unregister("uneven_concat")


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
def test_what_depends_on_how_many_are_read_is_counted_so(
    topology: str, uneven: str, uneven_concat: str
) -> None:
    for aggregation in (uneven, uneven_concat):
        block = {"topology": topology, "aggregation": aggregation, "n_layers": 9}
        spec = NetworkSpec(blocks=[block, {**block, "entry_unit": True, "width": 5}])
        by_blocks = resolve_blocks(spec)
        assert by_blocks is not None
        assert plan_cost(by_blocks) == plan_cost(resolve(spec))
