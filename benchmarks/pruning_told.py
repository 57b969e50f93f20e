"""Does pruning pay, and how are samplers best told of a pruned trial? At equal epochs, on real curves.

    python benchmarks/pruning_told.py [--samplers tpe,nsga2] [--seeds 20] [--epochs 180]

Searches the front of `tables/digits.csv` (3 epochs a training) until so many epochs are spent, and judges
what a user would pick as `search_quality.py` does. A pruned trial is told in one of three ways: as PRUNED,
which has no values where there are several objectives; as complete, with its error so far; likewise,
with a violated constraint. Appends lines to `results/pruning_told.jsonl`; `--dry` only prints.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # or the sampler that fits Gaussian processes crawls

import numpy as np
import optuna
import pandas as pd
from record import append, machine
from search_quality import Search, interval, questions, shape_draws, shape_of
from search_table import TABLE, Question, Table

from connsearch.registry import Ref
from connsearch.search.pruning.rules import PRUNERS, Curve, Pruned, Rule, make_pruner

N_EPOCHS = 3
PRUNER = "median(first_epoch=1)"
Curves = dict[int, list[tuple[float, ...]]]


def as_state(search: Search, trial: optuna.Trial, values: list[float], why: Pruned) -> None:
    search.study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def as_value(search: Search, trial: optuna.Trial, values: list[float], why: Pruned) -> None:
    search.study.tell(trial, values)


def as_constraint(search: Search, trial: optuna.Trial, values: list[float], why: Pruned) -> None:
    trial.set_constraint("pruned", why.val_error - why.bound)
    search.study.tell(trial, values)


WAYS: dict[str, Callable[[Search, optuna.Trial, list[float], Pruned], None] | None] = {
    "never pruned": None,
    "state": as_state,
    "value": as_value,
    "constraint": as_constraint,
}


def curves_by_network() -> Curves:
    """Return the curves of each network's trainings, by the numbers of `Table`."""
    frame = pd.read_csv(TABLE)
    numbers, _ = pd.factorize(frame["network"])
    errors = frame[[f"val_error_{epoch}" for epoch in range(1, N_EPOCHS + 1)]].itertuples(
        index=False, name=None
    )
    found: Curves = {}
    for number, curve in zip(numbers.tolist(), errors, strict=True):
        found.setdefault(number, []).append(curve)
    return found


def search(
    question: Question, curves: Curves, sampler: str, way: str, seed: int, epochs: int
) -> tuple[Search, int]:
    """Return a search of so many epochs, with the trials that went to their ends, and the number of all."""
    tell, rule = WAYS[way], make_pruner(PRUNERS.parse(PRUNER if WAYS[way] else "none"), N_EPOCHS)
    found, seen, spent = Search(question, Ref(sampler), seed), list[Curve](), 0
    draws = shape_draws(question.table)
    draws["macs_budget"] = optuna.distributions.FloatDistribution(question.low, question.high, log=True)
    while True:
        trial = found.ask(draws)
        network = question.within(shape_of(trial.params), trial.params["macs_budget"])
        macs = float(question.table.macs[network])
        errors = curves[network][found.luck.integers(len(curves[network]))]
        curve, why = ended(rule, Curve(int(macs), errors, (macs,)), seen)
        spent += len(curve.errors)
        if spent > epochs:
            return found, len(seen)
        seen.append(curve)
        values = [curve.errors[-1], macs]
        if why is None or tell is None:
            found.study.tell(trial, values)
            found.trials.append((network, curve.errors[-1]))
        else:
            tell(found, trial, values, why)


def ended(rule: Rule, curve: Curve, seen: list[Curve]) -> tuple[Curve, Pruned | None]:
    """Return a trial as the rule leaves it, and why."""
    for epoch in range(1, N_EPOCHS):
        why = rule(curve.until(epoch), seen)
        if why is not None:
            return Curve(curve.macs, curve.errors[:epoch], curve.costs, "pruned"), why
    return curve, None


def judge(
    question: Question, curves: Curves, sampler: str, way: str, seeds: int, epochs: int
) -> dict[str, Any]:
    """Return a line of results: means over searches, shares with 95 % bootstrap intervals."""
    searches = [search(question, curves, sampler, way, seed, epochs) for seed in range(seeds)]
    line: dict[str, Any] = {"sampler": sampler, "way": way, "pruner": PRUNER if WAYS[way] else "none"}
    line |= {"epochs": epochs, "seeds": seeds}
    line["trials"] = round(float(np.mean([n for _, n in searches])), 1)
    line["whole"] = round(float(np.mean([len(found.trials) for found, _ in searches])), 1)
    shares = np.array([[question.share(question.answer(found.trials))] for found, _ in searches])
    mean, low, high = np.round(interval(shares, np.mean)[:, 0], 5).tolist()
    return line | {"share": {"mean": mean, "low": low, "high": high}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samplers", default="random,tpe,nsga2", help="of random, tpe, nsga2, gp")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind (20)")
    parser.add_argument("--epochs", type=int, default=180, help="that a search may spend (180)")
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    question, curves = questions(Table.read())["front"], curves_by_network()
    about = machine() | {name: version(name) for name in ("optuna", "numpy", "connsearch")}
    for sampler in options.samplers.split(","):
        for way in options.ways.split(","):
            line = judge(question, curves, sampler, way, options.seeds, options.epochs)
            share = " ".join(f"{100 * line['share'][end]:.2f}" for end in ("mean", "low", "high"))
            print(
                f"{sampler:7} {way:13} share {share} %, {line['trials']} trials, {line['whole']} whole",
                flush=True,
            )
            if not options.dry:
                append("pruning_told", about | line)


if __name__ == "__main__":
    main()
