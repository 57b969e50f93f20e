"""How a study names a data set: a registered name, or simply where it lies."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from connsearch.registry import Ref, Registry, Scalar

_CALL = re.compile(r"(?P<name>[\w-]+)\(.*\)", re.DOTALL)
_PATH = re.compile(r"([(,]\s*path=)([^(),]*?)(?=\s*[),])")
"""The path among the parameters of a name, as `Registry.parse` reads them."""


class PathRegistry(Registry[Callable[..., Any]]):
    """A registry of data sets in which a path stands for what lies there: the entry that reads its layout.

    Paths are made absolute when they are read, so that a record of them holds wherever it is read.
    """

    def parse(self, data: object) -> Ref:
        """Read a reference: as of any registry, or the path of a folder or archive.

        Raises:
            DataError: if nothing that is known lies at the path.
        """
        if isinstance(data, str) and self._is_path(data):
            from connsearch.data.layout import layout

            path = _absolute(data)
            return self.ref(layout(path), path=path)
        return super().parse(data)

    def ref(self, name: str, /, **params: Scalar) -> Ref:
        """Return a checked reference whose `path`, if it has one, is absolute; raises as of any registry."""
        path = params.get("path")
        if isinstance(path, str) and path:
            params["path"] = _absolute(path)
        return super().ref(name, **params)

    def _is_path(self, text: str) -> bool:
        """Say whether a text is a path; a registered name, with parameters or without, never is.

        What looks like a name with parameters is one, though mistyped, unless it is there.
        """
        if text in self:
            return False
        if call := _CALL.fullmatch(text):
            return call["name"] not in self and os.path.exists(_absolute(text))
        return text.startswith(("~", ".")) or "/" in text or os.sep in text or Path(text).is_dir()

    def beside(self, data: Any, file: str | Path) -> Any:
        """Return what a file says of a data set, with a relative path in it taken from the file's folder.

        Only what is there is taken so; anything else is left for `parse` to judge.
        """
        if isinstance(data, Mapping):
            return {key: _beside(value, file) if key == "path" else value for key, value in data.items()}
        if not isinstance(data, str) or data in self:
            return data
        if (call := _CALL.fullmatch(data)) and call["name"] in self:
            return _PATH.sub(lambda found: found[1] + _beside(found[2], file), data)
        return _beside(data, file)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _beside(path: Any, file: str | Path) -> Any:
    """Return a path as it is from a file's folder, if it is there; else as it was."""
    if not isinstance(path, str) or not path or os.path.isabs(os.path.expanduser(path)):
        return path
    there = Path(file).absolute().parent / path
    return str(there) if there.exists() else path
