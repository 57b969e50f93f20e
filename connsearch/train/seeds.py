"""Which seeds are asked for?"""

from __future__ import annotations

from collections.abc import Sequence

from connsearch.errors import SpecError

MOST_SEED = 2**63


def checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return seeds in their order, each once.

    Raises:
        SpecError: if there is none, or one is out of range.
    """
    for seed in seeds:
        if not 0 <= seed < MOST_SEED:
            raise SpecError(f"seeds are 0 to {MOST_SEED - 1}, got {seed}")
    if not seeds:
        raise SpecError("name at least one seed")
    return tuple(dict.fromkeys(seeds))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a text lists.

    Raises:
        SpecError: if it is no list of whole numbers.

    >>> parse_seeds("0,1, 2")
    (0, 1, 2)
    """
    try:
        return checked_seeds([int(part) for part in text.split(",")])
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(
            f"seeds are whole numbers with commas between them, such as 0,1,2, got {text!r}"
        ) from None
