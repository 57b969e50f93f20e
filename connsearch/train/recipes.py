"""Recipes: which values of a training belong together?

A recipe fills the keys of `[train]` that are not given. What is given wins, whatever the recipe says. A key
that says how a machine does it and not what is computed (`threads`, `accumulate`) belongs in none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connsearch.errors import SpecError, did_you_mean


@dataclass(frozen=True)
class Recipe:
    """Values of a training by key.

    Attributes:
        about: What it is and where it is from, in one line.
        values: Of keys of `TrainConfig`.
    """

    about: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Return its values as TOML writes them between braces.

        >>> str(Recipe("Few.", {"milestones": (0.5, 0.75), "augment": True, "schedule": "step"}))
        'milestones = [0.5, 0.75], augment = true, schedule = "step"'
        """
        return ", ".join(f"{key} = {_toml(value)}" for key, value in self.values.items())


RECIPES: dict[str, Recipe] = {
    "delugenet": Recipe(
        "As DelugeNets were trained on CIFAR (J. Kuen et al., arXiv 1611.05552).",
        {
            "epochs": 300,
            "batch_size": 64,
            "optimizer": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "decay_norms": True,
            "schedule": "step",
            "milestones": (0.5, 0.75),
            "gamma": 0.1,
            "warmup_epochs": 0.0,
            "label_smoothing": 0.0,
            "grad_clip": 0.0,
            "augment": True,
            "cutout": 0,
            "mixup": 0.0,
            "ema": 0.0,
            "precision": "float32",
        },
    ),
    "fast": Recipe(
        "For few epochs: one cycle (arXiv 1708.07120), smoothed labels, averaged weights, bfloat16.",
        {
            "batch_size": 64,
            "optimizer": "sgd",
            "lr": 0.2,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "decay_norms": False,
            "schedule": "one_cycle",
            "peak": 0.25,
            "warmup_epochs": 0.0,
            "label_smoothing": 0.1,
            "augment": True,
            "ema": 0.99,
            "precision": "bfloat16",
            "layout": "channels_last",
            "pipeline": "fused",
        },
    ),
    "segmentation": Recipe(
        "For label maps from scratch: small batches, AdamW, one cycle, averaged weights, bfloat16.",
        {
            "batch_size": 8,
            "optimizer": "adamw",
            "lr": 0.004,
            "momentum": 0.9,
            "weight_decay": 0.01,
            "decay_norms": False,
            "schedule": "one_cycle",
            "peak": 0.25,
            "warmup_epochs": 0.0,
            "label_smoothing": 0.0,
            "class_weights": "none",
            "augment": True,
            "ema": 0.99,
            "precision": "bfloat16",
            "layout": "channels_last",
        },
    ),
}
"""All recipes by name. What a released one says stays: better values are another recipe."""


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a training with those that its recipe fills, and whose they are.

    A record of a training has `filled_from`, and says all that the recipe said then: nothing is filled again,
    so that neither a change of the recipe nor its end changes the record.

    Args:
        given: The keys that are given; `recipe` names the recipe.

    Raises:
        SpecError: if there is no such recipe, nothing is left for it to fill, or the values were filled from
            another one.

    >>> filled({"recipe": "fast", "lr": 1.0})["lr"]
    1.0
    >>> filled({"recipe": "gone", "filled_from": "gone", "lr": 1.0})
    {'recipe': 'gone', 'filled_from': 'gone', 'lr': 1.0}
    """
    recipe, before = given.get("recipe", ""), given.get("filled_from", "")
    if before and before != recipe:
        raise SpecError(
            f"these values were filled from recipe {before!r}, not from {recipe!r}: "
            "leave out filled_from, and the values that you have not chosen",
            place="filled_from",
        )
    if before or not recipe or not isinstance(recipe, str):
        return dict(given)
    if recipe not in RECIPES:
        raise SpecError(f"unknown recipe {recipe!r}. {did_you_mean(recipe, RECIPES)}", place="recipe")
    values = RECIPES[recipe].values
    if values.keys() <= given.keys() and any(_toml(given[key]) != _toml(values[key]) for key in values):
        raise SpecError(
            f"{recipe!r} fills nothing, all that it says is given: leave it out, or what it is to fill",
            place="recipe",
        )
    return {**values, **given, "filled_from": recipe}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:g}" if isinstance(value, int | float) else f'"{value}"'
