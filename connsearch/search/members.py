"""Members of a space as text and as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connsearch.cost.table import cost_record
from connsearch.search.space import Member, label
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.text import si, table


def member_record(member: Member) -> dict[str, Any]:
    """Return a member as plain data: knobs, budget, the network and its cost."""
    return {
        "knobs": {name: label(value) for name, value in member.knobs.items()},
        "budget": member.budget.bounds(),
        "network": member.spec.to_dict(),
        "cost": cost_record(member.spec),
    }


def member_table(members: Sequence[Member]) -> str:
    """Return a row for each member."""
    rows = []
    for member in members:
        cost, name = cost_record(member.spec), describe(member)
        share = cost["macs"] / member.budget.macs if member.budget.macs else 0.0
        rows.append([*name, si(cost["macs"]), f"{100 * share:.1f} %", si(cost["params"])])
    header = ["topology", "aggregation", "layers", "widths", "MACs", "of budget", "params"]
    return table(header, rows, left=["topology", "aggregation", "layers", "widths"])


def describe(member: Member) -> tuple[str, str, str, str]:
    """Return topologies, aggregations, depths and widths in words; ways that differ as `down/up`."""
    blocks = member.spec.blocks
    return (
        _by_way([block.topology.label for block in blocks], member.spec.layout),
        _by_way([block.aggregation.label for block in blocks], member.spec.layout),
        "-".join(str(block.n_layers) for block in blocks),
        "-".join(str(block.width) for block in blocks),
    )


def _by_way(labels: Sequence[str], layout: str) -> str:
    """Return the labels of blocks, each once, of either way.

    >>> _by_way(["dense", "dense", "chain"], "encoder_decoder"), _by_way(["sum", "mean", "sum"], "encoder")
    ('dense/chain', 'sum+mean')
    """
    middle = len(labels) // 2 + 1 if layout == ENCODER_DECODER else len(labels)
    ways = ["+".join(dict.fromkeys(way)) for way in (labels[:middle], labels[middle:]) if way]
    return "/".join(dict.fromkeys(ways))
