"""What is registered under which name, with one line about each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from connsearch.data.registry import DATASETS
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Registry
from connsearch.search.samplers import SAMPLERS
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import HEADS, STEMS, TRANSITIONS, UNITS
from connsearch.spec.presets import PRESETS

CATALOGS: dict[str, Registry[Any] | Mapping[str, Any]] = {
    "topologies": TOPOLOGIES,
    "aggregations": AGGREGATIONS,
    "units": UNITS,
    "stems": STEMS,
    "transitions": TRANSITIONS,
    "heads": HEADS,
    "presets": PRESETS,
    "datasets": DATASETS,
    "samplers": SAMPLERS,
}


def catalog(kind: str) -> str:
    """Return a line for each entry of a catalogue: name, parameters with their defaults, what it is."""
    entries = CATALOGS[kind]
    if not isinstance(entries, Registry):
        return "\n".join(sorted(entries))
    width = max(map(len, entries))
    return "\n".join(f"{name:<{width}}  {_about(entries, name)}" for name in sorted(entries))


def _about(entries: Registry[Any], name: str) -> str:
    first = (inspect.getdoc(entries[name]) or "").partition("\n\n")[0].replace("\n", " ")
    params = ", ".join(f"{key}={value!r}" for key, value in entries.parameters(name).items())
    return f"{first} [{params}]" if params else first
