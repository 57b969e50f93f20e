"""How a study names a data set: a registered name, or simply where it lies."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from connsearch.registry import Ref, Registry, Scalar

_CALL = re.compile(r"(?P<name>[\w-]+)\(.*\)", re.DOTALL)


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
        """Say whether a text is a path; a registered name, with parameters or without, never is."""
        call = _CALL.fullmatch(text)
        if text in self or (call and call["name"] in self):
            return False
        return text.startswith(("~", ".")) or "/" in text or os.sep in text or Path(text).is_dir()


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def beside(data: Any, file: str | Path) -> Any:
    """Return what a file says of a data set, with a relative path in it taken from the file's folder.

    Only what is there is taken so; anything else is left for `parse` to judge.
    """
    if isinstance(data, Mapping):
        return {key: beside(value, file) if key == "path" else value for key, value in data.items()}
    if isinstance(data, str) and not os.path.isabs(data):
        there = Path(file).absolute().parent / data
        if data.startswith((".", "~")) or "/" in data:
            return str(there) if there.exists() else data
    return data
