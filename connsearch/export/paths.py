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
            if dot and "." not in name.tail:
                return f"{self.layer(outer)}[{_formatted(last, name.tail)}]"
            return f"self.get_submodule({_formatted(name.head, name.tail)})"
        top, *inner = name.split(".")
        base = f"self.{top}" if _is_attribute(top) else f"self.get_submodule({quoted(top)})"
        return base + "".join(f"[{quoted(word)}]" for word in inner)

    def assign(self, name: str | Counted, made: str) -> str:
        """Return the statement that adds a module."""
        if isinstance(name, str):
            if "." not in name and not _is_attribute(name):
                return f"self.add_module({quoted(name)}, {made})"
            return f"{self.layer(name)} = {made}"
        if "." in name.tail:  # it is what contains the modules that counts
            outer, _, last = name.tail.rpartition(".")
            return f"self.get_submodule({_formatted(name.head, outer)})[{quoted(last)}] = {made}"
        if "." not in name.head:
            return f"self.add_module({_formatted(name.head, name.tail)}, {made})"
        return f"{self.layer(name)} = {made}"


def _is_attribute(word: str) -> bool:
    return word.isidentifier() and not keyword.iskeyword(word)


def quoted(text: str) -> str:
    """Return a text as Python writes it, whatever is in it.

    >>> print(quoted('say "ä"'))
    "say \\"ä\\""
    """
    return f'"{_escaped(text)}"'


def _formatted(head: str, tail: str) -> str:
    """Return what is around the loop's index as a formatted string."""
    before, after = (_escaped(text).replace("{", "{{").replace("}", "}}") for text in (head, tail))
    return f'f"{before}{{{INDEX}}}{after}"'


def _escaped(text: str) -> str:
    return "".join(_written(letter) for letter in text)


def _written(letter: str) -> str:
    if letter in '\\"':
        return f"\\{letter}"
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
