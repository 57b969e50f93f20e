"""What is left of a trained network without what it hardly reads? Its cost, and how far outputs move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from connsearch.cost.cost import NetworkCost
from connsearch.cost.model import network_cost
from connsearch.errors import ConnsearchError, SpecError
from connsearch.nn.connectivity import connection_strengths
from connsearch.nn.network import Network
from connsearch.nn.pruned import pruned_network
from connsearch.nn.shares import has_gates
from connsearch.spec.pruned import Pruner
from connsearch.text import counted, si, table
from connsearch.train.evaluation import evaluate
from connsearch.train.learned import Images, images_of, needed_images
from connsearch.train.trained import Trained

if TYPE_CHECKING:
    import pandas as pd

_DRAWN = 64  # images of noise, where there are no others
_SPARED = {1: "a reader needs a source", 2: "all that the reader does is to merge two sources"}


@dataclass(frozen=True)
class Pruning:
    """What came of pruning a network.

    Attributes:
        before: The network.
        after: What is left of it, with its weights.
        below: Connections weaker than this were removed, where their readers could spare them.
        removed: How many connections were removed for being weak.
        kept: How many weak ones were kept, by the reason.
        difference: The largest difference of a logit, over the images.
        images: What these were, in words.
        errors: Error on the images before and after, of label maps that of pixels; None without images.
    """

    before: Trained
    after: Trained
    below: float
    removed: int
    kept: dict[str, int]
    difference: float
    images: str
    errors: tuple[float, float] | None

    @property
    def costs(self) -> tuple[NetworkCost, NetworkCost]:
        """The exact cost before and after."""
        return network_cost(self.before.network.spec), network_cost(self.after.network.spec)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        before, after = (cost.to_dict() for cost in self.costs)
        return {
            "name": self.before.network.spec.name,
            "below": self.below,
            "removed_connections": self.removed,
            "kept_weak_connections": self.kept,
            "before": before,
            "after": after,
            "largest_logit_difference": self.difference,
            "images": self.images,
            "error_before": self.errors[0] if self.errors else None,
            "error_after": self.errors[1] if self.errors else None,
        }

    def __str__(self) -> str:
        """Return a table of costs before and after, and what it did to the outputs."""
        specs = (self.before.network.spec, self.after.network.spec)
        rows = []
        for spec, cost in zip(specs, self.costs, strict=True):
            numbers = [str(cost.n_edges), str(cost.n_layers), si(cost.params), si(cost.macs)]
            rows.append([spec.name, *numbers])
        if self.errors is not None:
            rows = [[*row, f"{100 * e:.2f} %"] for row, e in zip(rows, self.errors, strict=True)]
        header = ["name", "edges", "layers", "params", "MACs", *(["error"] if self.errors else [])]
        removed = counted(self.removed, "connection")
        lines = [f"removed {removed} of less than {self.below:g} of the strongest"]
        lines += [f"kept {n} that are weak: {reason}" for reason, n in self.kept.items()]
        lines += [table(header, rows, left=["name"])]
        return "\n".join([*lines, f"largest difference of a logit: {self.difference:.3g}, on {self.images}"])


def prune(trained: Trained, below: float, dataset: str | None = None, split: str = "val") -> Pruning:
    """Return a network without its weak connections, and without the nodes that only they read.

    Args:
        trained: The network; stays as it is.
        below: Connections whose `relative` strength is less are removed; a reader keeps its strongest.
        dataset: Whose images gates are looked at with, and both networks compared with; by default the
            training's. Without any, or if that is not here, networks without gates are compared with noise.
        split: Which images.

    Raises:
        SpecError: if `below` is not above 0 and at most 1, nothing is learned between layers, no connection
            is that weak, or it has gates and no data set is known.
    """
    if not 0 < below <= 1:
        raise SpecError(f"below is a share of the reader's strongest connection, in (0, 1], got {below}")
    network = trained.network
    pruner = Pruner(network.spec)
    gates = has_gates(network)
    images, missing = _images(trained, dataset, split, needed=gates)
    frame = connection_strengths(network, images.batches() if images is not None and gates else None)
    relative = {
        (s, r): v for s, r, v in zip(frame["source"], frame["reader"], frame["relative"], strict=True)
    }
    removed = pruner.weak(relative, below)
    if not removed:
        raise SpecError(
            f"{network.spec.name!r} has no connection of less than {below:g} of its reader's strongest that "
            f"can go: {_weakest(frame)}"
        )
    after = Trained(pruned_network(network, removed), trained.dataset)
    kept: dict[str, int] = {}
    for edge, value in relative.items():
        if value < below and edge not in removed:
            reason = pruner.obstacle(edge[1]) or _SPARED[pruner.least_sources(edge[1])]
            kept[reason] = kept.get(reason, 0) + 1
    difference, words = _difference(network, after.network, images, split)
    if missing:
        words += f", as {missing}"
    errors = None
    if images is not None:
        errors = (_error(network, images), _error(after.network, images))
    return Pruning(trained, after, below, len(removed), kept, difference, words, errors)


def _images(trained: Trained, dataset: str | None, split: str, *, needed: bool) -> tuple[Images | None, str]:
    """Return the images to compare with; if nobody asked for them and they cannot be had, why."""
    if needed or dataset is not None:
        return needed_images(trained, dataset, split), ""
    try:
        return images_of(trained, dataset, split), ""
    except ConnsearchError as error:
        return None, str(error)


def _error(network: Network, images: Images) -> float:
    return evaluate(network, images.split, void=images.dataset.void)[1]


def _weakest(frame: pd.DataFrame) -> str:
    row = frame.iloc[int(frame["relative"].argmin())]
    return f"the weakest is {row['source']} -> {row['reader']} with {row['relative']:.3g}"


def _difference(before: Network, after: Network, images: Images | None, split: str) -> tuple[float, str]:
    """Return the largest difference of two networks' logits, and what images they were compared with."""
    c, h, w = before.spec.input.channels, before.spec.input.height, before.spec.input.width
    noise = torch.randn(_DRAWN, c, h, w, generator=torch.Generator().manual_seed(0))
    batches = [noise] if images is None else images.batches()
    words = f"{_DRAWN} images of noise"
    if images is not None:
        words = f"the {len(images.split)} images of {images.dataset.name}'s {split} split"
    with torch.inference_mode():
        found = [(before(batch) - after(batch)).abs().max().item() for batch in batches]
    return max(found), words
