"""What would pruning have saved, and lost? Replays rules over curves that were recorded to their ends.

    python benchmarks/pruning_replay.py                      # trainings of tables/digits.csv, 3 epochs each
    python benchmarks/pruning_replay.py --study runs/first   # trials of a study that never pruned

Prints a line for each rule, and appends it to `results/pruning_replay.jsonl`; `--dry` only prints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from record import append, machine
from search_quality import interval
from search_table import TABLE

from connsearch.errors import ConnsearchError
from connsearch.search.pruning.replay import Replay, replay
from connsearch.search.pruning.rules import PRUNERS, Curve, make_pruner
from connsearch.search.pruning.stops import curves_of
from connsearch.search.study import Study

LOW, HIGH = 80_000, 640_000  # MACs of the table's trainings, as in search_quality.py
FIGURES = ("saved", "pruned", "front", "front_lost", "hypervolume_lost", "regret", "worst_regret")
BANDS = (1.25, 1.5, 2.0, 3.0, 10.0)
GUARDS = (0, 1, 2, 4)


def rules(epochs: int) -> list[str]:
    """Return the rules that are compared: each with its defaults, and with one parameter changed."""
    firsts = [e for e in (1, 2, 3, 4, 6) if e < epochs]
    found = []
    for name in ("median", "successive_halving"):
        usual = PRUNERS.parameters(name)
        first = min(usual["first_epoch"], epochs - 2)
        base = f"first_epoch={first}"
        found += [f"{name}(first_epoch={e})" for e in firsts]
        found += [f"{name}({base}, band={band})" for band in BANDS if band != usual["band"]]
        found += [f"{name}({base}, dominated_by={n})" for n in GUARDS if n != usual["dominated_by"]]
        found += [f"{name}({base}, min_peers={n})" for n in (2, 4, 16)]
    return [*found, f"successive_halving(first_epoch={first}, reduction=3)"]


def table_studies(trials: int, orders: int) -> list[list[Curve]]:
    """Return studies of so many trainings each, drawn from the table at random."""
    frame = pd.read_csv(TABLE)
    frame = frame[frame["macs"].between(LOW, HIGH)]
    errors = frame[["val_error_1", "val_error_2", "val_error_3"]].to_numpy(float).tolist()
    macs = frame["macs"].tolist()
    curves = [Curve(m, tuple(each), (float(m),)) for m, each in zip(macs, errors, strict=True)]
    rng = np.random.default_rng(0)
    return [
        [curves[index] for index in rng.choice(len(curves), trials, replace=False)] for _ in range(orders)
    ]


def recorded_studies(directory: str, orders: int) -> list[list[Curve]]:
    """Return the trials of a study in the order of their numbers, and in others at random."""
    study = Study.load(directory)
    curves = curves_of(study.trials(), study.config.objectives)
    rng = np.random.default_rng(0)
    shuffled = [[curves[i] for i in rng.permutation(len(curves))] for _ in range(orders - 1)]
    return [curves, *shuffled]


def judge(label: str, studies: Sequence[Sequence[Curve]]) -> dict[str, Any]:
    """Return what a rule would have done: means over studies, with 95 % bootstrap intervals."""
    epochs = max(len(curve.errors) for curve in studies[0])
    rule = make_pruner(PRUNERS.parse(label), epochs)
    replays: list[Replay] = [replay(rule, curves) for curves in studies]
    line: dict[str, Any] = {
        "rule": label,
        "epochs": epochs,
        "trials": len(studies[0]),
        "studies": len(studies),
    }
    for name in FIGURES:
        found = np.array([[getattr(each, name)] for each in replays], float)
        mean, low, high = np.round(interval(found, np.mean)[:, 0], 5).tolist()
        line[name] = {"mean": mean, "low": low, "high": high}
    return line


def shown(line: dict[str, Any]) -> str:
    mean = {name: line[name]["mean"] for name in FIGURES}
    return (
        f"{line['rule']:50} epochs saved {100 * mean['saved']:4.1f} %, pruned {100 * mean['pruned']:4.1f} %, "
        f"front lost {mean['front_lost']:.2f} of {mean['front']:.1f}, "
        f"hypervolume lost {100 * mean['hypervolume_lost']:.2f} %, "
        f"regret {100 * mean['regret']:.2f} points, at worst {100 * mean['worst_regret']:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--study", metavar="DIR", help="a study's directory, instead of the table")
    parser.add_argument("--rules", nargs="+", metavar="RULE", help="such as 'median(first_epoch=2)'")
    parser.add_argument("--trials", type=int, default=60, help="of a study drawn from the table (60)")
    parser.add_argument(
        "--orders", type=int, default=40, help="studies drawn, or orders of a study's trials (40)"
    )
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    options = parser.parse_args()
    try:
        studies = (
            recorded_studies(options.study, options.orders)
            if options.study
            else table_studies(options.trials, options.orders)
        )
        epochs = max(len(curve.errors) for curve in studies[0])
        lines = (judge(label, studies) for label in options.rules or rules(epochs))
        about = machine() | {"connsearch": version("connsearch")}
        for line in lines:
            print(shown(line), flush=True)
            if not options.dry:
                append("pruning_replay", about | {"of": "study" if options.study else "digits.csv"} | line)
    except ConnsearchError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
