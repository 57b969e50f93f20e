"""What is registered under which name, with one line about each."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from connsearch.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connsearch.registry import Registry
    from connsearch.train.recipes import Recipe

CATALOGS = {  # and where each is, imported when it is asked for
    "topologies": "connsearch.graph:TOPOLOGIES",
    "aggregations": "connsearch.spec.aggregations:AGGREGATIONS",
    "units": "connsearch.spec.chains:UNITS",
    "lines": "connsearch.spec.chains:LINES",
    "stems": "connsearch.spec.chains:STEMS",
    "transitions": "connsearch.spec.chains:TRANSITIONS",
    "heads": "connsearch.spec.chains:HEADS",
    "drops": "connsearch.spec.drops:DROPS",
    "presets": "connsearch.spec.presets:PRESETS",
    "datasets": "connsearch.data.registry:DATASETS",
    "samplers": "connsearch.search.samplers:SAMPLERS",
    "recipes": "connsearch.train.recipes:RECIPES",
    "passes": "connsearch.ir.pipelines:PASSES",
}


def entries_of(kind: str) -> Registry[Any] | Mapping[str, Any]:
    """Return a catalogue's entries by name.

    Raises:
        SpecError: if there is no such catalogue.
    """
    if kind not in CATALOGS:
        raise SpecError(f"unknown kind {kind!r}. {did_you_mean(kind, CATALOGS)}")
    module, _, name = CATALOGS[kind].partition(":")
    found: Registry[Any] | Mapping[str, Any] = getattr(import_module(module), name)
    return found


def catalog(kind: str) -> str:
    """Return a line for each entry of a catalogue: its name, what it is, parameters with their defaults.

    Of a preset: its parameters, MACs and input. Of a recipe: what it fills.

    Raises:
        SpecError: if there is no such catalogue.
    """
    if kind == "presets":
        return _presets()
    entries = entries_of(kind)
    width = max(map(len, entries))
    about: Callable[[Any, str], str] = {"recipes": _recipe, "passes": _documented}.get(kind, _registered)
    return "\n".join(f"{name:<{width}}  {about(entries, name)}" for name in sorted(entries))


def _presets() -> str:
    from connsearch.cost import network_cost
    from connsearch.spec.presets import list_presets, preset
    from connsearch.text import si

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


def _recipe(recipes: Mapping[str, Recipe], name: str) -> str:
    return f"{recipes[name].about} [{recipes[name]}]"


def _documented(entries: Registry[Any] | Mapping[str, Any], name: str) -> str:
    return (inspect.getdoc(entries[name]) or "").partition("\n\n")[0].replace("\n", " ")


def _registered(entries: Registry[Any], name: str) -> str:
    first = _documented(entries, name)
    params = ", ".join(f"{key}={value!r}" for key, value in entries.parameters(name).items())
    return f"{first} [{params}]" if params else first
