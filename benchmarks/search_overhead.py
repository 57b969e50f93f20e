"""What a trial costs beside its training: python benchmarks/search_overhead.py [--where journal postgresql]

Real studies of 20 knobs, with everything that a trial does but its epochs: the knobs are drawn and recorded,
the widths solved, the network built, a checkpoint written, the result told. The error is made up.
Appends a line for each run to `results/search_overhead.jsonl`; `--dry` only prints. `--done 950` begins with
so many finished trials that were not run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "search"))

import numpy as np
from record import append, machine
from search_parts import PARTS, Meter

EDGES = (0, 100, 500, 900, 1000, 1900, 2000)
LIMITS = {"journal": 0.3, "postgresql": 0.5}  # seconds for a trial, mean of trials 900 to 999
LIMITED = (900, 1000)
PLACE = "study"
TRAIN = {
    "dataset": "synthetic(channels=1, height=8, width=8, n_classes=4, n_train=64, n_val=32, n_test=32)",
    "epochs": 1,
    "batch_size": 16,
}


def space() -> dict[str, Any]:
    """Return a space of 20 knobs: topology, aggregation, unit and depth of 4 blocks, widths, budget."""
    return {
        "input": {"channels": 1, "height": 8, "width": 8},
        "n_classes": 4,
        "blocks": {
            "count": 4,
            "per_block": ["topology", "aggregation", "unit"],
            "topology": {"any_of": ["chain", "dense", "log_dense", "evenly_spaced"]},
            "aggregation": {"any_of": ["sum", "concat", "depthwise"]},
            "unit": {"any_of": ["conv", "separable"]},
            "n_layers": {"low": 1, "high": 6},
            "width_ratio": {"low": 1.0, "high": 2.0},
        },
        "budget": {"macs": {"low": 500_000, "high": 2_000_000}},
    }


# ---- a worker ----------------------------------------------------------------------------------------


def work(directory: Path, total: int, report: Path) -> None:
    """Be a worker: run trials whose epochs take no time, and write down what each took."""
    import torch

    from connsearch.search.hooks import Progress
    from connsearch.search.study import Study
    from connsearch.train import loop
    from connsearch.train.result import EpochRecord

    def no_epoch(run: Any, epoch: int) -> EpochRecord:
        parameters = sum(parameter.numel() for parameter in run.parameters)
        error = parameters * 7919 % 1000 / 1000
        return EpochRecord(epoch, 0.1, 1.5, error, 1.5, error, 0.5)

    torch.set_num_threads(1)
    loop._Run.epoch = no_epoch  # type: ignore[method-assign]
    study = Study.load(directory, patience=60.0)
    print("ready", flush=True)
    sys.stdin.readline()
    meter = Meter()
    meter.install()
    study.run(total, device="cpu", progress=Progress(trial_ended=meter.ended))
    report.write_text(json.dumps([asdict(trial) for trial in meter.trials]))


def run_workers(directory: Path, total: int, workers: int) -> tuple[list[dict[str, Any]], float]:
    """Run workers on a study; return what its trials took, in order, and the seconds of all.

    Each worker's first trial, which imports what it needs, is left out.
    """
    reports = [directory / f"worker-{index}.json" for index in range(workers)]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", directory, "--trials", str(total), "--report", report],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for report in reports
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - start
    if any(codes):
        raise SystemExit(f"workers ended with {codes}: see what they wrote above")
    trials = [trial for report in reports for trial in json.loads(report.read_text())[1:]]
    return sorted(trials, key=lambda trial: trial["number"]), seconds


# ---- a study -----------------------------------------------------------------------------------------


@contextmanager
def storage(where: str) -> Iterator[str | None]:
    """Open a storage: the journal file, or a PostgreSQL of its own that waits for the disk."""
    if where == "journal":
        yield None
        return
    from postgres import running_server

    with running_server(durable=True) as server:
        yield server.url


def fill(study: Any, done: int) -> None:
    """Give a study finished trials that were drawn at random, with all that a trial has on record."""
    from optuna.trial import create_trial

    from connsearch.cost import network_cost
    from connsearch.search.samplers import distributions
    from connsearch.search.space import label
    from connsearch.search.twins import network_hash

    space, rng = study.config.space, random.Random(0)
    kinds = distributions(space.knobs())
    for _ in range(done):
        member, error = space.draw(rng), rng.random()
        cost = network_cost(member.spec)
        curve = [{"epoch": 1, "lr": 0.1, "train_loss": 1.5, "train_error": error, "val_loss": 1.5,
                  "val_error": error, "seconds": 0.5}]  # fmt: skip
        attrs = {
            "network": member.spec.to_full_dict(), "cost": cost.to_dict(), "budget": member.budget.bounds(),
            "hash": network_hash(member.spec), "curve": curve, "val_error": error, "seconds": 0.5,
        }  # fmt: skip
        params = {name: label(value) for name, value in member.knobs.items()}
        values = [error, float(cost.macs)]
        study._study.add_trial(
            create_trial(values=values, params=params, distributions=kinds, user_attrs=attrs)
        )


def measure(where: str, sampler: str, workers: int, total: int, done: int) -> dict[str, Any]:
    """Run a study to so many trials; return its figures."""
    from connsearch.search.config import StudyConfig
    from connsearch.search.study import Study

    config = StudyConfig.from_dict({"space": space(), "n_trials": total, "sampler": sampler, "train": TRAIN})
    with tempfile.TemporaryDirectory(prefix="connsearch-overhead-") as home, storage(where) as url:
        study = Study.from_config(Path(home) / PLACE, config, url)
        fill(study, done)
        trials, seconds = run_workers(study.directory, total, workers)
        check(study, total, done)
        return {
            "where": where, "sampler": sampler, "workers": workers, "trials": total, "done": done,
            "knobs": len(config.space.knobs()), "wall_s": round(seconds, 2),
            "ranges": [figures(part, low, high) for low, high, part in ranges(trials)],
        }  # fmt: skip


def check(study: Any, total: int, done: int) -> None:
    """Make sure that what was timed is right: every trial is there, once, finished, with a result."""
    from connsearch.search.failures import reached
    from connsearch.search.storages import claims_of
    from connsearch.search.storages.claims import ClaimLog

    trials = study.trials()
    attempts = [claim.attempt for claim in ClaimLog(claims_of(study._study)).holders().values()]
    assert [trial.number for trial in trials] == list(range(total)), len(trials)
    assert all(reached(trial) for trial in trials), study.status().reasons
    assert attempts == [1] * (total - done), "a trial was run twice"


def ranges(trials: list[dict[str, Any]]) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Yield the trials of each range of numbers that there are."""
    for low, high in itertools.pairwise(EDGES):
        part = [trial for trial in trials if low <= trial["number"] < high]
        if part:
            yield low, high, part


def figures(trials: list[dict[str, Any]], low: int, high: int) -> dict[str, Any]:
    """Return means over trials."""

    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 5)

    def means(kind: str) -> dict[str, float]:
        names = sorted({name for trial in trials for name in trial[kind]})
        return {name: mean([trial[kind].get(name, 0) for trial in trials]) for name in names}

    seconds = [trial["seconds"] for trial in trials]
    return {
        "first": low, "last": high - 1,
        "seconds": mean(seconds), "median_s": round(float(np.median(seconds)), 5),
        "p95_s": round(float(np.quantile(seconds, 0.95)), 5),
        "cpu_s": mean([trial["cpu"] for trial in trials]),
        "parts_s": {part: mean([trial["parts"].get(part, 0.0) for trial in trials]) for part in PARTS},
        "calls": mean([sum(trial["calls"].values()) for trial in trials]),
        "calls_by_method": means("calls"),
        "database": means("database"),
    }  # fmt: skip


# ---- what is printed ---------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """Return a study's figures as a table: milliseconds for a trial by part."""
    head = ("trials", "all", "median", "p95", "cpu", *PARTS, "calls", "statements")
    rows = [
        (
            f"{part['first']}..{part['last']}",
            *(f"{1000 * part[name]:.0f}" for name in ("seconds", "median_s", "p95_s", "cpu_s")),
            *(f"{1000 * part['parts_s'][name]:.0f}" for name in PARTS),
            f"{part['calls']:.1f}",
            f"{part['database'].get('statements', 0):.0f}",
        )
        for part in result["ranges"]
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in (head, *rows)
    ]
    title = f"{result['where']}, {result['sampler']}, workers: {result['workers']}, ms for a trial"
    return "\n".join([title, *lines, *verdict(result)])


def verdict(result: dict[str, Any]) -> Iterator[str]:
    """Yield whether the limit is met, where it is asked for, and the rate of all workers."""
    limit = LIMITS[result["where"]]
    for part in result["ranges"]:
        if part["first"] == LIMITED[0] and part["last"] == LIMITED[1] - 1:
            word = "under" if part["seconds"] < limit else "over"
            yield f"trials {part['first']} to {part['last']}: {part['seconds']:.3f} s each, {word} {limit} s"
    ran = result["trials"] - result["done"]
    overhead = result["workers"] * result["wall_s"] / ran
    yield f"{ran} trials in {result['wall_s']:.0f} s: {overhead:.3f} s of a worker for each"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--where", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--samplers", nargs="+", default=["tpe"], help="such as random tpe nsga2")
    parser.add_argument(
        "--workers", nargs="+", type=int, default=[1], help="processes; the journal takes them too"
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--done", type=int, default=0, help="finished trials to begin with, not run")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.trials, args.report)
        return
    versions = {name: version(name) for name in ("optuna", "torch", "sqlalchemy", "psycopg", "connsearch")}
    for where in args.where:
        for sampler in args.samplers:
            for workers in args.workers:
                here = machine()
                result = measure(where, sampler, workers, args.trials, args.done)
                print(table(result), flush=True)
                if not args.dry:
                    append("search_overhead", {**here, **versions, **result})


if __name__ == "__main__":
    main()
