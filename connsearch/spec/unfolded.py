"""The same network with its graph given, node by node, in place of a layout that makes it."""

from __future__ import annotations

from typing import Any

from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.spec.chains import LINES
from connsearch.spec.network import NetworkSpec, PartConfig
from connsearch.spec.plan import NodePlan
from connsearch.spec.resolve import resolve


def unfolded(spec: NetworkSpec) -> NetworkSpec:
    """Return a network of layout `encoder_decoder` over a graph of its own, with the same keys of weights.

    Every node that changes resolution or width becomes a part of that width.

    Raises:
        SpecError: if the specification describes no network, or such a node can be no part.
    """
    plan = resolve(spec)
    own = {part.name: part.line for part in spec.node_parts}
    parts: dict[tuple[Ref, float], PartConfig] = {}
    nodes: list[dict[str, Any]] = []
    for node in plan.nodes:
        entry = {"name": node.node.name, "kind": node.node.kind, "block": node.node.block}
        if node.node.kind in ("transition", "carry"):
            line = own.get(node.node.part) or _as_line(spec, node)
            key = line, (node.out_shape.channels + 0.5) / spec.blocks[node.node.block - 1].width
            part = PartConfig(name=f"part{len(parts) + 1}", line=line, ratio=key[1])  # it is rounded down
            entry["part"] = parts.setdefault(key, part).name
        nodes.append({**entry, "scale": node.node.scale})
    names = [node.node.name for node in plan.nodes]
    edges = [[names[source], names[target]] for source, target in plan.graph.edges()]
    left_out = {"layout", "scope", "hubs", "up", "compression", "blocks", "own_graph"}
    left_out |= {"stem_ratio"} if 1 in spec.even_blocks() else set()
    given = {name: getattr(spec, name) for name in spec.model_fields_set - left_out}
    values = {
        "parts": tuple(parts.values()),
        "blocks": tuple(block.model_dump(exclude={"topology", "n_layers"}) for block in spec.blocks),
        "graph": {"nodes": nodes, "edges": edges},
    }
    return NetworkSpec.from_dict(given | values)


def as_line(transition: Ref) -> Ref | None:
    """Return a transition as a line of a part; None if there is none like it."""
    if transition.name == "pool":
        return LINES.ref("transition", **dict(transition.params))
    if transition.name == "conv":
        params: dict[str, Any] = {"kernel": 3, "norm": "batch", **dict(transition.params)}
        return LINES.ref("projection", stride=2, order="pre", **params)
    return None


def _as_line(spec: NetworkSpec, node: NodePlan) -> Ref:
    ref = spec.carry if node.node.kind == "carry" else spec.transition
    line = as_line(ref)
    if line is None:
        raise SpecError(f"{ref.label!r} can be no part of a given graph", place=node.node.name)
    return line
