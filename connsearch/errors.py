"""What can go wrong, as types: every error of ours names the value, the place and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConnsearchError(Exception):
    """Base of every error that connsearch raises on purpose; the command line prints it as one line.

    Attributes:
        told: Whether another process of the same training prints it, so that it is printed once; None if it
            did not arise while they trained together.
    """

    told: bool | None = None


class SpecError(ConnsearchError, ValueError):
    """A description (graph, network, space, study, data set) is wrong.

    Attributes:
        detail: What is wrong.
        place: Where in the description, such as `blocks[0].topology`; empty if the whole.
    """

    def __init__(self, detail: str, *, place: str = "") -> None:
        super().__init__(f"{place}: {detail}" if place else detail)
        self.detail = detail
        self.place = place


class BudgetError(ConnsearchError, ValueError):
    """No network of the asked shape fits the budget."""


class VerifyError(ConnsearchError):
    """A compiler stage produced a program that is not valid."""


class KernelError(ConnsearchError):
    """A kernel cannot run on the tensors it was given."""


class StudyError(ConnsearchError):
    """A study cannot be opened, resumed or read."""


class DataError(ConnsearchError):
    """A data set is missing, damaged, or not what the network expects."""


class TrainError(ConnsearchError):
    """Training cannot start or cannot go on."""


MOST_NAMES = 40  # listed in one message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known word, then all of them, or of many how many.

    >>> did_you_mean("logdense", ["chain", "dense", "log_dense"])
    "Did you mean 'log_dense'? Known: chain, dense, log_dense."
    >>> did_you_mean("zzz", ["chain"])
    'Known: chain.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    if len(names) > MOST_NAMES:
        similar = difflib.get_close_matches(word, names, n=4)[1:]
        more = f"Similar: {', '.join(similar)}. " if similar else ""
        return f"{hint}{more}{len(names)} are known."
    return f"{hint}Known: {', '.join(names) or 'none'}."
