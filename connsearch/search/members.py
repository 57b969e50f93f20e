"""Members of a space as text and as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from connsearch.cost.table import cost_record
from connsearch.search.space import Member, label
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
    """Return topologies, aggregations, depths and widths in words."""
    blocks = member.spec.blocks
    return (
        "+".join(dict.fromkeys(block.topology.label for block in blocks)),
        "+".join(dict.fromkeys(block.aggregation.label for block in blocks)),
        "-".join(str(block.n_layers) for block in blocks),
        "-".join(str(block.width) for block in blocks),
    )
