"""Is a file what a command takes: a network, a space or a study?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from connsearch.errors import SpecError

Kind = Literal["network", "space", "study"]
TAKE = {"network": "cost", "space": "sample", "study": "plan"}
"""A command that takes each."""


def kind_of(tables: Mapping[str, Any]) -> Kind | None:
    """Return what a file describes, by its keys; None if they tell nothing.

    >>> kind_of({"space": "digits.toml"}), kind_of({"blocks": {"count": 2}}), kind_of({"blocks": [{}]})
    ('study', 'space', 'network')
    """
    blocks = tables.get("blocks")
    if "space" in tables:
        return "study"
    if isinstance(blocks, list) or "graph" in tables:
        return "network"
    return "space" if isinstance(blocks, Mapping) or "budget" in tables else None


def refuse_another(path: str | Path, expected: Kind) -> None:
    """Refuse a file of another kind than a command takes; what is wrong with the right kind, others say.

    Raises:
        SpecError: if it is of another kind, is not there, or is no TOML.
    """
    from connsearch.config import read_toml

    kind = kind_of(read_toml(path))
    if kind is not None and kind != expected:
        raise SpecError(
            f"is a {kind}, and a {expected} is asked for: try `connsearch {TAKE[kind]} {path}`",
            place=str(path),
        )
