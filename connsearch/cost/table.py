"""Costs and networks as text and as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connsearch.cost.cost import NOTE, NetworkCost
from connsearch.cost.model import edge_costs, network_cost, node_costs
from connsearch.graph import Node
from connsearch.graph.outline import outline
from connsearch.spec.drops import DROPS
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Shape
from connsearch.spec.resolve import resolve
from connsearch.text import si, table


def cost_record(spec: NetworkSpec) -> dict[str, Any]:
    """Return the cost of a network as plain data, as `cost --json` prints it."""
    shape = [spec.input.channels, spec.input.height, spec.input.width]
    return {
        "name": spec.name,
        "input": shape,
        "n_classes": spec.n_classes,
        **network_cost(spec).to_dict(),
    }


def cost_table(specs: Sequence[NetworkSpec]) -> str:
    """Return a row for each network; memory is activations of one float32 image."""
    rows = [{"name": spec.name} | network_cost(spec).row() for spec in specs]
    header = ["name", *NetworkCost().row()]
    return f"{table(header, [[*row.values()] for row in rows], left=['name'])}\n{NOTE}"


def node_table(spec: NetworkSpec) -> str:
    """Return a row for each node: what it computes and reads, shapes, parameters, multiply-accumulates."""
    costs = node_costs(spec)
    for (_, target), edge in edge_costs(spec).items():
        costs[target] = costs[target] + edge
    rows = []
    for plan in resolve(spec).nodes:
        name = plan.node.name
        cost = costs[name]
        reads = str(len(plan.sources)) if plan.sources else "image"
        how = plan.aggregation.label if plan.aggregation is not None else ""
        rows.append(
            [
                name,
                plan.node.kind,
                _operation(spec, plan.node),
                reads,
                how,
                _shape(plan.in_shape),
                _shape(plan.out_shape),
                si(cost.params),
                si(cost.macs),
            ]
        )
    header = ["node", "kind", "operation", "reads", "aggregation", "in", "out", "params", "MACs"]
    nodes = table(header, rows, left=["node", "kind", "operation", "aggregation"])
    return f"{nodes}\n{_drop_line(spec)}\n{cost_table([spec])}"


def graph_text(spec: NetworkSpec) -> str:
    """Return who reads whom, how far apart nodes are, and what is dropped."""
    graph = spec.graph()
    degrees = list(graph.in_degrees().values())
    return (
        f"{outline(graph)}\n"
        f"in-degree: max {max(degrees)}, mean {sum(degrees) / len(degrees):.2f}; backpropagation distance: "
        f"max {graph.max_backprop_distance()}, mean {graph.mean_backprop_distance():.2f}\n"
        f"{_drop_line(spec)}"
    ).rstrip("\n")


def _operation(spec: NetworkSpec, node: Node) -> str:
    """Return the registered name of what a node computes, "" if it only aggregates."""
    block = spec.blocks[node.block - 1]
    for part in spec.node_parts:
        if part.name == node.part:
            own = part.line or part.unit or (block.unit if part.ratio else None)
            if own is not None:
                return own.name
    by_kind = {
        "stem": spec.stem,
        "unit": block.unit,
        "transition": spec.transition,
        "carry": spec.carry,
        "head": spec.head,
    }
    return by_kind[node.kind].name if node.kind in by_kind else ""


def _drop_line(spec: NetworkSpec) -> str:
    """Return a line about the edges that training drops, "" if there are none."""
    if spec.drop is None:
        return ""
    params = ", ".join(f"{key}={value}" for key, value in DROPS.bind(spec.drop).items())
    n_edges = sum(drop is not None for plan in resolve(spec).nodes for drop in plan.drops)
    return f"drop  {spec.drop.name}({params}): {n_edges} edges\n"


def _shape(shape: Shape) -> str:
    if (shape.height, shape.width) == (1, 1):
        return str(shape.channels)
    return f"{shape.channels}x{shape.height}x{shape.width}"
