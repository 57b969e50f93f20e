"""Reading a study's record: trials as a table, a status, the reference point of the hypervolume."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from connsearch.registry import Ref
from connsearch.search.choices import values
from connsearch.search.failures import failed, reached
from connsearch.search.layouts import PER_BLOCK
from connsearch.search.measures import ERRORS, order_of
from connsearch.search.pruning.rules import PRUNED
from connsearch.search.reading.hypervolume import dominated_volume, losses_of
from connsearch.search.reading.pace import Pace, pace_of
from connsearch.search.storages.claims import Timing, lease_of
from connsearch.spec.encoder_decoder import ENCODER_DECODER
from connsearch.text import duration, human

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import FrozenTrial

    from connsearch.search.config import StudyConfig

EXPIRY = Timing().expiry
COUNTED = ("macs", "params", "inference_bytes", "training_bytes")
"""What is counted of a network, in whole numbers."""


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Attributes:
        asked: Trials that the study is to have.
        states: Number of trials by state: complete, failed, pruned, unfinished.
        best: Trial number and objectives of the trial that is best in the first objective, of equal ones in
            the next; none that diverged or was pruned.
        seconds_per_trial: Median wall time of complete trials; 0 if there is none.
        reasons: Number of trials by why they failed or diverged.
        running: Trials that a worker holds: trial, host, pid, epoch (the last finished one), and silent,
            the seconds since its last sign of life, by the clocks of both hosts.
        workers: Number of workers by host that run a trial now: alive, and silent for so long that their
            trials will be taken over.
        pace: Speed of the last trials, the time left, the time since the last one ended.
        hypervolume: Of the trials that can be ranked, measured from `reference`; None without one.
        reference: The study's fixed point, by objective; None where an objective has no known bound.
    """

    asked: int
    states: dict[str, int]
    best: dict[str, Any] | None
    seconds_per_trial: float
    reasons: dict[str, int]
    running: tuple[dict[str, Any], ...] = ()
    workers: tuple[dict[str, Any], ...] = ()
    pace: Pace = field(default_factory=Pace)
    hypervolume: float | None = None
    reference: dict[str, float] | None = None

    @property
    def finished(self) -> int:
        """Trials that need no more work."""
        return sum(n for state, n in self.states.items() if state != "unfinished")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the pace's fields among the others."""
        data = asdict(self)
        pace: dict[str, Any] = data.pop("pace")
        return data | pace

    def __str__(self) -> str:
        """Return a line for each thing that one asks of a running study."""
        counts = ", ".join(f"{n} {state}" for state, n in self.states.items())
        lines = [f"trials   {self.finished} of {self.asked} finished: {counts}"]
        if self.best is not None:
            values = ", ".join(f"{name} {human(name, v)}" for name, v in self.best.items() if name != "trial")
            lines.append(f"best     trial {self.best['trial']}: {values}")
        if self.hypervolume and self.reference is not None:
            start = ", ".join(f"{name} {human(name, v)}" for name, v in self.reference.items())
            lines.append(f"volume   {self.hypervolume:.4g}, measured from {start}")
        alive = sum(each["alive"] for each in self.workers)
        rate = self.pace.text(max(0, self.asked - self.finished), alive)
        lines += [f"rate     {rate}"] if rate else []
        if self.pace.seconds_since_last is not None:
            lines.append(f"last     a trial ended {duration(self.pace.seconds_since_last)} ago")
        if self.workers:
            lines.append(f"workers  {', '.join(map(_crew, self.workers))}")
        lines += [f"reasons  {n} x {reason}" for reason, n in self.reasons.items()]
        lines += [f"running  {_where(each)}" for each in self.running]
        return "\n".join(lines)


def status_of(
    trials: Sequence[FrozenTrial],
    asked: int,
    objectives: Mapping[str, str],
    reference: Mapping[str, float] | None = None,
) -> Status:
    """Return the status of a study from its trials.

    Args:
        trials: All of them.
        asked: How many the study is to have.
        objectives: Names with their directions.
        reference: Where the hypervolume is measured from.
    """
    counts = Counter(state_of(trial) for trial in trials)
    complete = [trial for trial in trials if state_of(trial) == "complete"]
    ranked = [trial for trial in complete if reached(trial)]
    rows = [{"trial": trial.number, **dict(zip(objectives, trial.values, strict=True))} for trial in ranked]
    durations = sorted(trial.duration.total_seconds() for trial in complete if trial.duration is not None)
    states = {word: counts[word] for word in ("complete", "failed", "pruned", "unfinished")}
    held = {trial.number: _running(trial) for trial in trials if _is_held(trial, asked)}
    n_left = max(0, asked - sum(n for state, n in states.items() if state != "unfinished"))
    alive = [trial for trial in trials if trial.number in held and not _is_silent(held[trial.number])]
    return Status(
        asked=asked,
        states=states,
        best=min(rows, key=lambda row: order_of(row, objectives), default=None),
        seconds_per_trial=durations[len(durations) // 2] if durations else 0.0,
        reasons=dict(Counter(t.user_attrs["reason"] for t in trials if "reason" in t.user_attrs)),
        running=tuple(held.values()),
        workers=_workers(held.values()),
        pace=pace_of(trials, n_left, alive),
        hypervolume=None if reference is None else _volume(ranked, objectives, reference),
        reference=None if reference is None else dict(reference),
    )


def _volume(
    ranked: Sequence[FrozenTrial], objectives: Mapping[str, str], reference: Mapping[str, float]
) -> float:
    """Return the hypervolume of trials that can be ranked, as their front's."""
    if not ranked:
        return 0.0
    ways = tuple(objectives.values())
    start = losses_of([reference[name] for name in objectives], ways)
    return dominated_volume(losses_of([trial.values for trial in ranked], ways), start)


def _workers(running: Collection[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return how many workers of each host are alive and silent, from what they run."""
    silent = {(each["host"], each["pid"]): _is_silent(each) for each in running}
    hosts = {host: [gone for (other, _), gone in silent.items() if other == host] for host, _ in silent}
    return tuple(
        {"host": host, "alive": gone.count(False), "silent": gone.count(True)} for host, gone in hosts.items()
    )


def _crew(workers: Mapping[str, Any]) -> str:
    """Return the workers of a host, in words."""
    counts = [f"{workers[word]} {word}" for word in ("alive", "silent") if workers[word]]
    return f"{' and '.join(counts)} on {workers['host']}"


def _is_silent(running: Mapping[str, Any]) -> bool:
    return bool(running["silent"] > EXPIRY)


def _is_held(trial: FrozenTrial, asked: int) -> bool:
    """Return whether a worker holds a trial; a spare one beyond the asked number waits for nobody."""
    lease = lease_of(trial)
    if trial.state.name == "WAITING" and trial.number >= asked:
        return False
    return bool(lease) and not trial.state.is_finished() and not lease.get("released", False)


def _running(trial: FrozenTrial) -> dict[str, Any]:
    lease = lease_of(trial)
    silent = max(0.0, time.time() - lease["time"])
    return {
        "trial": trial.number,
        **{name: lease[name] for name in ("host", "pid", "epoch")},
        "silent": silent,
    }


def _where(running: Mapping[str, Any]) -> str:
    """Return who runs a trial, in words."""
    where = f"trial {running['trial']} on {running['host']}, process {running['pid']}"
    seen = f"epoch {running['epoch']} done, seen {duration(running['silent'])} ago"
    silent = "; silent, to be taken over" if _is_silent(running) else ""
    return f"{where}: {seen}{silent}"


def state_of(trial: FrozenTrial) -> str:
    """Return a trial's state in our words; one that waits in a queue has not begun."""
    if failed(trial):
        return "failed"
    complete = "pruned" if PRUNED in trial.user_attrs else "complete"
    words = {"COMPLETE": complete, "PRUNED": "pruned", "WAITING": "waiting"}
    return words.get(trial.state.name, "unfinished")


def front_frame(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> pd.DataFrame:
    """Return a row for each trial that reached something: number, objectives, cost, network, training.

    A trial that diverged, failed or was pruned reached nothing, however cheap it was, and is left out.
    """
    import pandas as pd

    return pd.DataFrame([_row(trial, objectives) for trial in trials if reached(trial)])


def _row(trial: FrozenTrial, objectives: Sequence[str]) -> dict[str, Any]:
    attrs = trial.user_attrs
    counted = network_row(attrs)
    row: dict[str, Any] = {
        "trial": trial.number,
        "macs": counted.pop("macs"),
        "params": counted.pop("params"),
        "val_error": attrs["val_error"],
        **counted,
        "budget_macs": attrs["budget"]["macs"],
        "seconds": attrs["seconds"],
    }
    return row | {n: int(v) if n in COUNTED else v for n, v in zip(objectives, trial.values, strict=True)}


def network_row(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network in numbers and words, from the attributes `cost` and `network` of a trial."""
    cost, blocks = attrs["cost"], attrs["network"]["blocks"]
    say = _by_way if attrs["network"].get("layout") == ENCODER_DECODER else _common
    return {
        "macs": cost["macs"],
        "params": cost["params"],
        "inference_bytes": cost["peak_activation_bytes"]["inference"],
        "training_bytes": cost["peak_activation_bytes"]["training"],
        **{name: say([block[name] for block in blocks]) for name in PER_BLOCK},
        "n_layers": cost["n_layers"],
        "depths": "-".join(str(block["n_layers"]) for block in blocks),
        "widths": "-".join(str(block["width"]) for block in blocks),
    }


def _common(items: Sequence[Any]) -> str:
    """Return what all blocks have, or "mixed"."""
    words = {_word(item) for item in items}
    return words.pop() if len(words) == 1 else "mixed"


def _by_way(items: Sequence[Any]) -> str:
    """Return what all blocks of the way down have and those of the way up: once if it is the same.

    >>> _by_way(["dense", "dense", "chain"]), _by_way(["chain"] * 5), _by_way(["sum"])
    ('dense/chain', 'chain', 'sum')
    """
    middle = len(items) // 2 + 1
    ways = [_common(way) for way in (items[:middle], items[middle:]) if way]
    return "/".join(dict.fromkeys(ways))


def _word(item: str | Mapping[str, Any]) -> str:
    if isinstance(item, str):
        return item
    return Ref(item["name"], tuple((key, value) for key, value in item.items() if key != "name")).label


def reference_point(config: StudyConfig) -> dict[str, float] | None:
    """Return the fixed point that the hypervolume is measured from: error 1 and the greatest budget.

    None where an objective has no bound that is known beforehand.
    """
    known = {**dict.fromkeys(ERRORS, 1.0), "macs": float(max(values(config.space.budget.macs)))}
    if config.space.budget.params:
        known["params"] = float(config.space.budget.params)
    directions = config.objectives
    if any(name not in known or way != "minimize" for name, way in directions.items()):
        return None
    return {name: known[name] for name in directions}
