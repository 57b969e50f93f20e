"""How an exported model names its layers: containers for the words between dots, expressions for a layer."""

from __future__ import annotations

import keyword
from collections.abc import Sequence

from torch import nn

from connsearch.export.series import INDEX, Counted


class Paths:
    """Names of layers as Python.

    Args:
        names: Of all layers that are modules.

    Attributes:
        containers: Names of what contains layers, outermost first, in the order of use.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.containers: list[str] = []
        self._children: dict[str, list[str]] = {}
        for name in names:
            words = name.split(".")
            for end in range(1, len(words)):
                outer = ".".join(words[:end])
                if outer not in self._children:
                    self.containers.append(outer)
                    self._children[outer] = []
                if words[end] not in self._children[outer]:
                    self._children[outer].append(words[end])

    def container_class(self, name: str) -> str:
        """Return the class of a container: ModuleDict, unless that has methods of these names."""
        free = nn.ModuleDict()
        clash = any(hasattr(free, child) for child in self._children[name])
        return "Layers" if clash else "nn.ModuleDict"

    def layer(self, name: str | Counted) -> str:
        """Return the expression of a module; of names that count, in terms of the loop's index."""
        if isinstance(name, Counted):
            outer, dot, last = name.head.rpartition(".")
            if dot and "." not in name.tail and _static(outer):
                return f'{self.layer(outer)}[f"{last}{{{INDEX}}}{name.tail}"]'
            return f'self.get_submodule(f"{name.head}{{{INDEX}}}{name.tail}")'
        top, *inner = name.split(".")
        base = f"self.{top}" if _is_attribute(top) else f'self.get_submodule("{_quoted(top)}")'
        return base + "".join(f'["{_quoted(word)}"]' for word in inner)

    def assign(self, name: str | Counted, made: str) -> str:
        """Return the statement that adds a module."""
        text = f"{name.head}{{{INDEX}}}{name.tail}" if isinstance(name, Counted) else name
        if isinstance(name, Counted) and "." not in text:
            return f'self.add_module(f"{text}", {made})'
        if isinstance(name, str) and "." not in name and not _is_attribute(name):
            return f'self.add_module("{_quoted(name)}", {made})'
        if isinstance(name, Counted) and self.layer(name).startswith("self.get_submodule(f"):
            outer, _, last = text.rpartition(".")
            prefix = "f" if INDEX in outer else ""
            word = f'f"{last}"' if f"{{{INDEX}}}" in last else f'"{last}"'
            return f'self.get_submodule({prefix}"{outer}")[{word}] = {made}'
        return f"{self.layer(name)} = {made}"


def _static(outer: str) -> bool:
    return bool(outer) and "{" not in outer


def _is_attribute(word: str) -> bool:
    return word.isidentifier() and not keyword.iskeyword(word)


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
