"""Does a search begin better with what a search at smaller budgets has found? Real accuracies.

    python benchmarks/search_transfer.py [--samplers tpe,nsga2] [--starts designs,prior]
        [--questions "front, 8 x; one budget, 7 x"] [--seeds 20]

A search of 60 trials at small budgets is followed by one at larger budgets, which begins with nothing, with
the 5 best designs, with all results as a prior, or with both, as `warm_start` of a study does. Appends a line
for each to `results/search_transfer.jsonl`; `--dry` only prints.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from record import append, machine
from search_quality import Draws, Search, curves, interval, shape_draws, shape_of
from search_table import Question, Table

from connsearch.errors import did_you_mean
from connsearch.registry import Ref
from connsearch.search.choices import IntRange
from connsearch.search.samplers import make_sampler
from connsearch.search.transfer.places import at, place
from connsearch.search.transfer.prior import View, prior_trials
from connsearch.search.transfer.studies import best_first
from connsearch.search.transfer.warm_start import EarlierTrial

STARTS = {"nothing": (0, False), "designs": (5, False), "prior": (0, True), "both": (5, True)}
"""How many designs are first trials, and whether the sampler sees the results."""
EARLIER_TRIALS = 60
AFTER = (5, 10, 20, 40)


class Transfer(NamedTuple):
    """A question at small budgets, and one at larger budgets."""

    name: str
    small: Question
    large: Question


def transfers(table: Table) -> dict[str, Transfer]:
    """Return what is asked: fronts over ranges that do not and that do touch, one network for one budget."""
    found = []
    for name, small, large, front in (
        ("front, 8 x", (40_000, 160_000), (320_000, 1_280_000), True),
        ("front, 4 x", (30_000, 160_000), (160_000, 1_280_000), True),
        ("one budget, 7 x", (40_000, 120_000), (320_000, 800_000), False),
    ):
        questions = (Question(name, table, *bounds, whole_front=front) for bounds in (small, large))
        found.append(Transfer(name, *questions))
    return {transfer.name: transfer for transfer in found}


def draws(question: Question) -> Draws:
    """Return what is drawn: the shape, and the budget where it is not fixed."""
    found = shape_draws(question.table)
    if question.whole_front:
        found["macs_budget"] = optuna.distributions.IntDistribution(question.low, question.high, log=True)
    return found


def network(question: Question, params: dict[str, Any]) -> int:
    return question.within(shape_of(params), params.get("macs_budget", question.high))


def begun(transfer: Transfer, sampler: str, seed: int) -> list[EarlierTrial]:
    """Return a search at small budgets in terms of the large ones, its best designs in front."""
    small, large = transfer.small, transfer.large
    search = Search(small, Ref(sampler), 1000 + seed)
    for _ in range(EARLIER_TRIALS):
        trial = search.ask(draws(small))
        search.train(trial, network(small, trial.params))
    ranges = [IntRange(question.low, question.high, log=True) for question in (small, large)]
    earlier = []
    for trial, (_, error) in zip(search.study.trials, search.trials, strict=True):
        knobs = dict(trial.params)
        if "macs_budget" in knobs:
            knobs["macs_budget"] = at(ranges[1], place(ranges[0], knobs["macs_budget"]) or 0.0)
        counted = {"macs": float(large.table.macs[network(large, knobs)])}
        earlier.append(EarlierTrial(trial=trial.number, knobs=knobs, error=error, counted=counted))
    losses = np.array([trial.values for trial in search.study.trials])
    best = best_first(losses, max(count for count, _ in STARTS.values()))
    return [earlier[row] for row in [*best, *(r for r in range(len(earlier)) if r not in best)]]


def run(
    question: Question, sampler: str, seed: int, n_trials: int, start: str, earlier: list[EarlierTrial]
) -> Search:
    """Return a search at large budgets that begins with something."""
    designs, prior = STARTS[start]
    search, knobs = Search(question, Ref(sampler), seed), draws(question)
    study = search.study
    for number in range(n_trials):
        if number < designs:
            study.enqueue_trial(earlier[number].knobs)
        if prior:
            others = prior_trials(
                earlier,
                study.get_trials(states=[optuna.trial.TrialState.COMPLETE]),
                [error for _, error in search.trials],
                objectives=question.objectives,
                knobs=knobs,
                sampler=make_sampler(Ref(sampler), 0),
            )
            search.study = View.of(study, others)
        trial = search.ask(knobs)
        search.study = trial.study = study
        search.train(trial, network(question, trial.params))
    return search


def judge(transfer: Transfer, sampler: str, starts: list[str], n_seeds: int, n_trials: int) -> list[dict]:  # type: ignore[type-arg]
    """Return a line of results for each start, each beside the searches that began with nothing."""
    shares: dict[str, list[list[float]]] = {start: [] for start in dict.fromkeys(["nothing", *starts])}
    for seed in range(n_seeds):
        earlier = begun(transfer, sampler, seed)
        for start, found in shares.items():
            search = run(transfer.large, sampler, seed, n_trials, start, earlier)
            found.append(curves(search)["share"])
    after = [count for count in AFTER if count <= n_trials]
    lines = []
    for start in starts:
        share = np.array(shares[start])[:, [count - 1 for count in after]]
        gain = share - np.array(shares["nothing"])[:, [count - 1 for count in after]]
        lines.append(
            {
                "question": transfer.name,
                "sampler": sampler,
                "start": start,
                "seeds": n_seeds,
                "earlier_trials": EARLIER_TRIALS,
                "after_trials": after,
                "share_mean": np.round(share.mean(axis=0), 5).tolist(),
                "gain": dict(
                    zip(("mean", "low", "high"), np.round(interval(gain, np.mean), 5).tolist(), strict=True)
                ),
            }
        )
    return lines


def arguments(questions: Iterable[str]) -> argparse.ArgumentParser:
    """Return what reads the command line; names of questions hold commas, so semicolons separate them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    known = {"questions": (questions, "; "), "samplers": (("tpe", "nsga2"), ", "), "starts": (STARTS, ", ")}
    for name, (values, between) in known.items():
        reads, told = some_of([*values], between.strip()), f"of {between.join(values)} (all)"
        parser.add_argument(f"--{name}", type=reads, default=[*values], help=told)
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind (20)")
    parser.add_argument("--trials", type=int, default=40, help="trials of a search (40)")
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    return parser


def some_of(known: list[str], between: str) -> Callable[[str], list[str]]:
    """Return what reads some of the known words."""

    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(between)]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"unknown {word!r}. {did_you_mean(word, known)}")
        return words

    return read


def main() -> None:
    asked = transfers(Table.read())
    options = arguments(asked).parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = machine() | {name: version(name) for name in ("optuna", "numpy", "connsearch")}
    for question, sampler in itertools.product(options.questions, options.samplers):
        for line in judge(asked[question], sampler, options.starts, options.seeds, options.trials):
            gains = zip(line["after_trials"], *line["gain"].values(), strict=True)
            words = ", ".join(
                f"{100 * m:+.1f} [{100 * a:+.1f}, {100 * b:+.1f}] at {n}" for n, m, a, b in gains
            )
            print(f"{question:16} {sampler:6} {line['start']:8} {words}", file=sys.stderr, flush=True)
            if not options.dry:
                append("search_transfer", about | line)


if __name__ == "__main__":
    main()
