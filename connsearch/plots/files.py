"""Files that are to be drawn: can they be, and which columns does a front's picture have?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from connsearch.errors import ConnsearchError, did_you_mean
from connsearch.plots.style import SUFFIXES
from connsearch.search.measures import error_of
from connsearch.search.reading.pareto import ParetoFront


def drawn_columns(front: ParetoFront) -> tuple[str, str]:
    """Return the columns of a front's picture, x and y: what networks cost, and how well they do.

    They are the study's objectives; of more than two the error and the first cost; one objective has
    the error, or MACs, beside it.
    """
    names = front.objectives
    error = error_of(names)
    if error not in names and len(names) > 1:
        return front.x, next(name for name in names if name != front.x)
    costs = [name for name in (front.x, *names) if name != error]
    return next(iter(costs), "macs"), error


def check_picture_path(path: str | os.PathLike[str], known: Sequence[str] = SUFFIXES) -> Path:
    """Return the path of a picture that is to be made, if one can be made there.

    Raises:
        ConnsearchError: if the suffix is not a known one, or no file can be written there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ConnsearchError(
            f"{Path(path)}: cannot draw to a file ending in {suffix!r}. {did_you_mean(suffix, known)}"
        )
    return check_path(path)


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that is to be written, if that seems possible; nothing is written.

    Raises:
        ConnsearchError: if there is no such directory, it cannot be written, or the path is one itself.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ConnsearchError(f"{target}: there is no directory {target.parent}: make it first")
    if target.is_dir():
        raise ConnsearchError(f"{target}: is a directory: name a file")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ConnsearchError(f"{target}: cannot be written: {target.parent} does not allow it")
    return target
