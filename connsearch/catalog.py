"""What is registered under which name, with one line about each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from connsearch.cost import network_cost
from connsearch.data.registry import DATASETS
from connsearch.graph import TOPOLOGIES
from connsearch.ir.pipelines import PASSES
from connsearch.registry import Registry
from connsearch.search.samplers import SAMPLERS
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import HEADS, LINES, STEMS, TRANSITIONS, UNITS
from connsearch.spec.drops import DROPS
from connsearch.spec.presets import PRESETS, list_presets, preset
from connsearch.text import si
from connsearch.train.recipes import RECIPES

CATALOGS: dict[str, Registry[Any] | Mapping[str, Any]] = {
    "topologies": TOPOLOGIES,
    "aggregations": AGGREGATIONS,
    "units": UNITS,
    "lines": LINES,
    "stems": STEMS,
    "transitions": TRANSITIONS,
    "heads": HEADS,
    "drops": DROPS,
    "presets": PRESETS,
    "datasets": DATASETS,
    "samplers": SAMPLERS,
    "recipes": RECIPES,
    "passes": PASSES,
}


def catalog(kind: str) -> str:
    """Return a line for each entry of a catalogue: its name, what it is, parameters with their defaults.

    Of a preset: its parameters, MACs and input. Of a recipe: what it fills.
    """
    entries = CATALOGS[kind]
    width = max(map(len, entries))
    if entries is PRESETS:
        return _presets()
    if entries is RECIPES:
        return "\n".join(f"{name:<{width}}  {r.about} [{r}]" for name, r in sorted(RECIPES.items()))
    if not isinstance(entries, Registry):
        return "\n".join(f"{name:<{width}}  {inspect.getdoc(entries[name])}" for name in sorted(entries))
    return "\n".join(f"{name:<{width}}  {_about(entries, name)}" for name in sorted(entries))


def _presets() -> str:
    names, params, macs, inputs = [], [], [], []
    for name in list_presets():
        spec = preset(name)
        cost, image = network_cost(spec), spec.input
        names.append(name)
        params.append(f"{si(cost.params)} parameters")
        macs.append(f"{si(cost.macs)} MACs")
        inputs.append(f"{image.channels} x {image.height} x {image.width}, {spec.n_classes} classes.")
    justified = [[cell.rjust(max(map(len, column))) for cell in column] for column in (params, macs)]
    width = max(map(len, names))
    rows = zip((name.ljust(width) for name in names), *justified, inputs, strict=True)
    return "\n".join("  ".join(row) for row in rows)


def _about(entries: Registry[Any], name: str) -> str:
    first = (inspect.getdoc(entries[name]) or "").partition("\n\n")[0].replace("\n", " ")
    params = ", ".join(f"{key}={value!r}" for key, value in entries.parameters(name).items())
    return f"{first} [{params}]" if params else first
