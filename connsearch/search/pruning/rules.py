"""Pruning: does a trial go on after an epoch, given what earlier trials of like cost had reached by then?

Every rule compares *the least validation error so far* with that of earlier trials at the same epoch, among
those of its *band*: trials whose MACs are at most `band` times more or less (so the band is symmetric in the
logarithm). A rule is a pure function of recorded curves: what it decides can be replayed, and tested on the
records of studies that never pruned (`connsearch.search.pruning.replay`).

Whatever the rule, a trial goes on

- before `first_epoch`, and at the last epoch, where nothing is left to save;
- while its band holds fewer than `min_peers` earlier trials;
- unless at least `dominated_by` trials of its band *dominate it at this epoch*: they cost no more in every
  counted objective, and had a lower error. A network that is cheaper than the better ones of its band
  could enter the front whatever its rank, and is trained to the end.

Trials that diverged count as worse than all others at every epoch; trials that were pruned as worse than
all others at the epochs that they did not reach. Both make it harder to prune. Trials that failed do not
count.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from connsearch.errors import SpecError
from connsearch.registry import Ref, Registry

End = Literal["whole", "pruned", "diverged"]
PRUNED = "pruned"
"""The attribute of a trial that was ended before its last epoch, with the reason."""


@dataclass(frozen=True)
class Curve:
    """What a rule knows of a trial.

    Attributes:
        macs: Multiply-accumulates of an image.
        errors: Validation errors after epochs 1, 2, ..., as far as it went.
        costs: Values of the objectives other than the error, as losses: less is better.
        end: How it ended: after its last epoch, pruned, diverged. "whole" also while it runs.
    """

    macs: int
    errors: tuple[float, ...]
    costs: tuple[float, ...] = ()
    end: End = "whole"

    def at(self, epoch: int) -> float:
        """Return the least error up to an epoch; infinite if it diverged, or was pruned before.

        >>> Curve(1, (0.5, 0.3, 0.4)).at(3)
        0.3
        >>> Curve(1, (0.5,), end="pruned").at(2)
        inf
        """
        if self.end == "diverged" or (self.end == "pruned" and len(self.errors) < epoch):
            return math.inf
        return min(self.errors[:epoch], default=math.inf)

    def until(self, epoch: int) -> Curve:
        """Return the trial as it was after an epoch."""
        return Curve(self.macs, self.errors[:epoch], self.costs)


@dataclass(frozen=True)
class Pruned:
    """Why a trial was pruned.

    Attributes:
        epoch: After which epoch.
        val_error: The least error that it had reached.
        bound: What that would have had to be at most.
        peers: How many trials of its band it was compared with.
        dominated_by: How many of them cost no more and had a lower error.
    """

    epoch: int
    val_error: float
    bound: float
    peers: int
    dominated_by: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the reason in words."""
        error, bound = 100 * self.val_error, 100 * self.bound
        return (
            f"pruned after epoch {self.epoch}: error {error:.1f} %, over {bound:.1f} % of {self.peers} trials"
        )


Rule = Callable[[Curve, Sequence[Curve]], Pruned | None]
"""Takes a running trial and the earlier ones; returns why it ends after its latest epoch, or None."""
Bound = Callable[[int, Sequence[Curve]], tuple[float, int] | None]
"""Takes an epoch and the trials of a band; returns the greatest error that goes on, and of how many trials
that is; None if any goes on."""

PRUNERS: Registry[Callable[..., Rule]] = Registry("pruner")


def make_pruner(ref: Ref, epochs: int | None = None) -> Rule:
    """Return a rule.

    Args:
        ref: Its name and parameters.
        epochs: Epochs of a trial; it never acts after the last.

    Raises:
        SpecError: if a parameter is out of its range, or the rule could never act within these epochs.
    """
    params: dict[str, Any] = PRUNERS.bind(ref)
    rule, first = PRUNERS[ref.name](**params), params.get("first_epoch", 0)
    if epochs is None:
        return rule
    if first >= epochs:
        raise SpecError(
            f"pruner {ref.name!r} could never act: its first_epoch is {first}, the last of a trial {epochs}; "
            "lower first_epoch, or train for more epochs"
        )
    return lambda curve, peers: rule(curve, peers) if len(curve.errors) < epochs else None


@PRUNERS.register("none")
def none() -> Rule:
    """Every trial is trained to its end."""
    return lambda curve, peers: None


@PRUNERS.register("median")
def median(*, first_epoch: int = 3, min_peers: int = 8, band: float = 2.0, dominated_by: int = 4) -> Rule:
    """At every epoch, a trial goes on that is no worse than the median of its band.

    As trials that were pruned stay in the comparison, about half of all are pruned at most, however many
    epochs there are.
    """
    _check("median", first_epoch=first_epoch, min_peers=min_peers, band=band, dominated_by=dominated_by)

    def bound(epoch: int, peers: Sequence[Curve]) -> tuple[float, int] | None:
        if epoch < first_epoch or len(peers) < min_peers:
            return None
        return statistics.median(peer.at(epoch) for peer in peers), len(peers)

    return lambda curve, peers: _judge(curve, peers, band, dominated_by, bound)


@PRUNERS.register("successive_halving")
def successive_halving(
    *, first_epoch: int = 2, reduction: int = 2, min_peers: int = 8, band: float = 2.0, dominated_by: int = 4
) -> Rule:
    """After epochs `first_epoch`, `first_epoch` x `reduction`, ..., one in `reduction` goes on.

    Asynchronously, as in ASHA (Li et al., 2020, algorithm 2) where a trial that stops is never taken up
    again: a trial is compared with those of its band that reached this rung before it; of n with itself,
    the best ceil(n / reduction) go on.
    """
    _check(
        "successive_halving",
        first_epoch=first_epoch,
        min_peers=min_peers,
        band=band,
        dominated_by=dominated_by,
    )
    if reduction < 2:
        raise SpecError(f"pruner 'successive_halving': reduction must be 2 or more, got {reduction}")

    def bound(epoch: int, peers: Sequence[Curve]) -> tuple[float, int] | None:
        here = sorted(peer.at(epoch) for peer in peers if peer.end != "pruned" or len(peer.errors) >= epoch)
        if not _is_rung(epoch, first_epoch, reduction) or len(here) < min_peers:
            return None
        return here[math.ceil((len(here) + 1) / reduction) - 1], len(here)

    return lambda curve, peers: _judge(curve, peers, band, dominated_by, bound)


def _is_rung(epoch: int, first: int, reduction: int) -> bool:
    while epoch > first and epoch % reduction == 0:
        epoch //= reduction
    return epoch == first


def _judge(
    curve: Curve, earlier: Sequence[Curve], band: float, dominated_by: int, bound_of: Bound
) -> Pruned | None:
    """Return why a trial ends after its latest epoch, or None: what all rules share."""
    epoch = len(curve.errors)
    peers = [peer for peer in earlier if in_band(peer.macs, curve.macs, band)]
    found, error = bound_of(epoch, peers), curve.at(epoch)
    if found is None or error <= found[0]:
        return None
    stronger = sum(_dominates(peer, curve, epoch) for peer in peers)
    return Pruned(epoch, error, *found, stronger) if stronger >= dominated_by else None


def in_band(macs: int, other: int, band: float) -> bool:
    """Return whether two networks cost the same within a factor.

    >>> in_band(100, 200, 2.0), in_band(200, 100, 2.0), in_band(100, 201, 2.0)
    (True, True, False)
    """
    return max(macs, other) <= band * min(macs, other)


def _dominates(peer: Curve, curve: Curve, epoch: int) -> bool:
    cheap = all(theirs <= own for theirs, own in zip(peer.costs, curve.costs, strict=True))
    return cheap and peer.at(epoch) < curve.at(epoch)


def _check(pruner: str, *, first_epoch: int, min_peers: int, band: float, dominated_by: int) -> None:
    counts = {"first_epoch": (first_epoch, 1), "min_peers": (min_peers, 1), "dominated_by": (dominated_by, 0)}
    for name, (value, low) in counts.items():
        if value < low:
            raise SpecError(f"pruner {pruner!r}: {name} must be {low} or more, got {value}")
    if band < 1:
        raise SpecError(f"pruner {pruner!r}: band must be 1 or more, got {band:g}")
