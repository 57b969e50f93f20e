"""The standings of a tournament as people read them in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from connsearch.search.tournament.statistics import SIGNIFICANT, Interval
from connsearch.text import si, table

if TYPE_CHECKING:
    from connsearch.search.tournament.standings import Standing, Standings

_HEADER = ("rank", "network", "params", "MACs", "error %", "95 %", "behind", "95 %", "p")


def text_of(standings: Standings) -> str:
    """Return the table, what it leaves out, and the findings."""
    rows = [_row(row) for row in standings.rows]
    lines = [*_head(standings), table(_HEADER, rows, left=["network"]), *_notes(standings)]
    return "\n".join([*lines, "", *_findings(standings)])


def _head(standings: Standings) -> Iterator[str]:
    n, rounds = len(standings.rows), standings.rounds
    yield f"{n} networks x {rounds} seed{'s' if rounds > 1 else ''} at {standings.shape}"
    if not standings.is_complete:
        yield (
            f"unfinished: {rounds} of {standings.asked} rounds {'is' if rounds == 1 else 'are'} complete, "
            "and the table is over these alone; the same command goes on"
        )


def _row(row: Standing) -> list[str]:
    first = row.rank == 1
    return [
        str(row.rank),
        row.contestant.pair,
        si(row.params),
        si(row.macs),
        f"{100 * row.mean:.2f}",
        _span(row.interval),
        "" if first else f"{100 * row.behind:.2f}",
        "" if first else _span(row.behind_interval),
        "" if first else p_word(row.p),
    ]


def _span(interval: Interval) -> str:
    return "-" if math.isnan(interval.low) else f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"


def p_word(p: float) -> str:
    """Return a p value as a table shows it.

    >>> p_word(0.04321), p_word(0.0001)
    ('0.043', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.2g}" if p < 0.995 else "1"


def _notes(standings: Standings) -> Iterator[str]:
    for row in standings.rows:
        if row.contestant.same_as:
            yield f"one network, counted once: {' = '.join(row.contestant.pairs)}"
    for row in standings.rows:
        if row.diverged:
            times = f"{row.diverged} of {len(row.errors)} trainings diverged"
            yield f"{row.contestant.pair}: {times}, which counts as an error of 100 %"
    for left in standings.left_out:
        yield f"left out: {left.pair}: {left.reason}"
    rounds = standings.rounds
    if rounds == 1:
        yield "95 %: an interval needs a second seed; p: one seed ranks nothing"
        return
    yield (
        "behind: error above the best's in points, seed by seed; 95 %: bootstrap over seeds; p: how likely "
        f"the luck of seeds alone puts it so far behind, corrected for all {len(standings.rows)}, if the "
        "errors of all spread alike"
    )
    needed = next(n for n in range(1, 10) if 2 / 2**n <= SIGNIFICANT)
    if rounds < needed:
        yield (
            f"with {rounds} seeds the second cannot be told from the best (p is {2 / 2**rounds:.2g} at "
            f"least): that takes {needed}"
        )


def _findings(standings: Standings) -> Iterator[str]:
    found, n = [each for each in standings.comparisons if each.significant], len(standings.comparisons)
    if n == 0:
        return
    what = "comparison of two aggregations or two topologies" if n == 1 else f"of {n} comparisons"
    if not found:
        yield f"no {what} is significant at 5 %" if n == 1 else f"none {what} is significant at 5 %"
        yield from _too_few(standings)
        return
    yield f"significant at 5 %, corrected for {n} comparison{'s' if n > 1 else ''}:"
    for each in found:
        yield f"  {each.sentence(si(standings.shape.macs))}"
    yield from _too_few(standings)


def _too_few(standings: Standings) -> Iterator[str]:
    """Say which comparisons cannot become significant, as the same few trainings are behind all they have."""
    few = [each for each in standings.comparisons if 2 / 2**each.n > SIGNIFICANT]
    names = [{each.better, each.worse} for each in few]
    common = sorted(set.intersection(*names)) if names else []
    if few and standings.rounds > 1:
        which = f"{len(few)} comparisons" + (
            f" with {common[0]}" if len(common) == 1 and len(few) > 1 else ""
        )
        n = max(each.n for each in few)
        yield f"{which} rest on {n} differences or fewer, too few for 5 %: add seeds"
