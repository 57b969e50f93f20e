"""Costs and networks as text and as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connsearch.cost.model import edge_costs, network_cost, node_costs
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
    header = [
        "name",
        "params",
        "MACs",
        "conv",
        "linear",
        "aggregation",
        "FLOPs",
        "inference",
        "training",
        "layers",
        "edges",
    ]
    rows = []
    for spec in specs:
        cost = network_cost(spec)
        counts = [
            cost.params,
            cost.macs,
            cost.conv_macs,
            cost.linear_macs,
            cost.aggregation_macs,
            cost.flops(),
        ]
        memory = [f"{si(cost.inference_bytes)}B", f"{si(cost.training_bytes)}B"]
        rows.append([spec.name, *map(si, counts), *memory, str(cost.n_layers), str(cost.n_edges)])
    note = (
        "For one image. FLOPs = 2 (conv + linear). Memory: activations in float32, peak in inference, "
        "kept in training."
    )
    return f"{table(header, rows, left=['name'])}\n{note}"


def node_table(spec: NetworkSpec) -> str:
    """Return a row for each node: what it reads, shapes, parameters and multiply-accumulates."""
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
                reads,
                how,
                _shape(plan.in_shape),
                _shape(plan.out_shape),
                si(cost.params),
                si(cost.macs),
            ]
        )
    header = ["node", "kind", "reads", "aggregation", "in", "out", "params", "MACs"]
    return f"{table(header, rows, left=['node', 'kind', 'aggregation'])}\n\n{cost_table([spec])}"


def graph_text(spec: NetworkSpec) -> str:
    """Return who reads whom, and how far apart nodes are."""
    graph = spec.graph()
    degrees = list(graph.in_degrees().values())
    return (
        f"{graph}\n"
        f"in-degree: max {max(degrees)}, mean {sum(degrees) / len(degrees):.2f}; backpropagation distance: "
        f"max {graph.max_backprop_distance()}, mean {graph.mean_backprop_distance():.2f}"
    )


def _shape(shape: Shape) -> str:
    if (shape.height, shape.width) == (1, 1):
        return str(shape.channels)
    return f"{shape.channels}x{shape.height}x{shape.width}"
