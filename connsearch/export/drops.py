"""What training drops at random, as statements of an exported network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from connsearch.export.description import Layer
from connsearch.spec.drops import EdgeDrop

TRAINING = "self.training"


class Drops:
    """The drops of a network.

    Args:
        layers: Of the network.
        inference: Whether only what evaluation does is written.
    """

    def __init__(self, layers: Sequence[Layer], *, inference: bool) -> None:
        self.layers = layers
        self.inference = inference
        self._weakened: dict[int, str] = {}
        self._readers: dict[int, int] = {}
        for layer in layers:
            for source, drop in zip(layer.sources, layer.drops, strict=False):
                if drop is not None and drop.kind == "source":
                    self._readers[source] = self._readers.get(source, 0) + 1

    def begin(self) -> list[str]:
        """Return the statements that come first: which column a forward pass keeps."""
        drops = [drop for layer in self.layers for drop in layer.drops]
        shares = [drop.global_share for drop in drops if drop is not None and drop.kind == "path"]
        if not shares or self.inference:
            return []
        n = 1 + max(layer.path for layer in self.layers)
        return [f"column = draw_column({n}, {shares[0]}, {TRAINING})"]

    def are_paths(self, layer: Layer) -> bool:
        """Return whether paths into a layer are dropped: what it reads is their mean already."""
        return not self.inference and any(drop is not None and drop.kind == "path" for drop in layer.drops)

    def sources(
        self, index: int, words: Sequence[str], variable: Callable[[str], str]
    ) -> tuple[list[str], list[str]]:
        """Return statements that come before a layer, and what it then reads, source by source.

        Args:
            index: The layer.
            words: What it reads without drops.
            variable: Gives a new variable's name.
        """
        layer = self.layers[index]
        if self.are_paths(layer):
            return self._paths(layer, words)
        lines: list[str] = []
        found = []
        n_drops = sum(drop is not None and drop.survival != 1 for drop in layer.drops)
        for source, drop, word in zip(layer.sources, layer.drops, words, strict=True):
            if drop is None or drop.survival == 1 or drop.kind == "path":
                found.append(word)
            elif self.inference:
                found.append(f"{drop.survival} * {word}")
            elif drop.kind == "source" and (self._readers[source] > 1 or n_drops > 1):
                lines += self._shared(source, drop, word, variable)
                found.append(self._weakened[source])
            else:
                name = "drop_source" if drop.kind == "source" else "drop_elements"
                found.append(f"{name}({word}, {drop.survival}, {TRAINING})")
        return lines, found

    def _shared(self, source: int, drop: EdgeDrop, word: str, variable: Callable[[str], str]) -> list[str]:
        """Return the statement that weakens a source for all its readers, unless it stands there already."""
        if source in self._weakened:
            return []
        self._weakened[source] = variable(f"{self.layers[source].name}_dropped")
        return [f"{self._weakened[source]} = drop_source({word}, {drop.survival}, {TRAINING})"]

    def _paths(self, layer: Layer, words: Sequence[str]) -> tuple[list[str], list[str]]:
        drops = [drop for drop in layer.drops if drop is not None]
        columns = ", ".join(str(drop.column) for drop in drops)
        call = f"drop_paths([{', '.join(words)}], [{columns}], column, {drops[0].survival}, {TRAINING})"
        name = "sum" if layer.aggregation is not None and layer.aggregation.name == "sum" else "mean"
        total = f"sum({call})"
        return [], [total if name == "sum" else f"{total} / {len(words)}"]
