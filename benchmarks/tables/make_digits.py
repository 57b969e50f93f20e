"""Train every network of a small grid, and keep what came of each: python benchmarks/tables/make_digits.py

One training is one line of `digits.csv`, written when it ends. Killed at any moment, the script goes on where
it stopped when it is called again; what a line holds (but for its seconds) does not depend on that, nor on
the order or the number of processes: the seeds of a training follow from its knobs and seed number alone.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import itertools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from connsearch.cost import network_cost
from connsearch.files import write_whole
from connsearch.spec import NetworkSpec
from connsearch.spec.resolve import resolve
from connsearch.train import TrainConfig

TABLE = Path(__file__).parent / "digits.csv"
GRID: dict[str, tuple[str | int, ...]] = {
    "topology": ("chain", "dense", "log_dense"),
    "aggregation": ("sum", "concat", "depthwise", "routed"),
    "n_layers": (2, 3, 5, 8),
    "width": (3, 4, 6, 8, 10, 12, 16),
}
KNOBS = tuple(GRID)
EPOCHS = 3
TRAIN = TrainConfig.from_dict({"dataset": "digits", "epochs": EPOCHS, "batch_size": 32, "lr": 0.1})
CURVE = tuple(f"val_error_{epoch}" for epoch in range(1, EPOCHS + 1))
COLUMNS = (
    *(*KNOBS, "seed", "macs", "params", "val_error", *CURVE, "val_loss", "train_error"),
    *("diverged", "seconds", "network", "connsearch", "torch"),
)


class Training(NamedTuple):
    """One training: a network of the grid and the number of its seed."""

    topology: str
    aggregation: str
    n_layers: int
    width: int
    seed: int

    @property
    def member(self) -> int:
        """A number for the network that does not depend on what else is in the grid."""
        knobs = "/".join(map(str, self[: len(KNOBS)]))
        return int.from_bytes(hashlib.sha256(knobs.encode()).digest()[:4], "big")

    @property
    def spec(self) -> NetworkSpec:
        """The network: one layer at 8 x 8 pixels, then `n_layers` at 4 x 4, twice as wide."""
        kind = {"topology": self.topology, "aggregation": self.aggregation, "unit": "conv"}
        return NetworkSpec.from_dict(
            {
                "input": {"channels": 1, "height": 8, "width": 8},
                "n_classes": 10,
                "blocks": [
                    {**kind, "n_layers": 1, "width": self.width},
                    {**kind, "n_layers": self.n_layers, "width": 2 * self.width},
                ],
            }
        )


def trainings(seeds: int) -> Iterator[Training]:
    """Yield all trainings, all networks with the first seed before any with the second."""
    for seed in range(seeds):
        for knobs in itertools.product(*GRID.values()):
            yield Training(*knobs, seed)  # type: ignore[call-arg, arg-type]  # mypy loses the tuple


def row(training: Training) -> dict[str, Any]:
    """Train and return a line of the table."""
    from importlib.metadata import version

    from connsearch.search.objective import evaluate_network

    spec = training.spec
    outcome = evaluate_network(spec, TRAIN, study_seed=training.seed, trial=training.member, device="cpu")
    result, last = outcome.training, outcome.training.curve[-1:]
    errors = [f"{record.val_error:.6g}" for record in result.curve]
    return {
        **training._asdict(),
        "macs": network_cost(spec).macs,
        "params": network_cost(spec).params,
        "val_error": f"{result.val_error:.6g}",
        **dict(itertools.zip_longest(CURVE, errors, fillvalue="")),
        "val_loss": "".join(f"{record.val_loss:.6g}" for record in last),
        "train_error": "".join(f"{record.train_error:.6g}" for record in last),
        "diverged": int(result.diverged),
        "seconds": f"{result.seconds:.2f}",
        "network": resolve(spec).canonical_hash()[:12],
        "connsearch": version("connsearch"),
        "torch": version("torch"),
    }


# ---- the file ------------------------------------------------------------------------------------------


def key(line: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells the lines of the table apart."""
    return tuple(str(line[name]) for name in (*KNOBS, "seed"))


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines that are there, and cut off a last one that a kill left half written."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_whole(path, whole)
    reader = csv.DictReader(io.StringIO(whole.decode()))
    if whole and tuple(reader.fieldnames or ()) != COLUMNS:
        found = ", ".join(reader.fieldnames or ())
        raise SystemExit(f"{path}: has the columns {found}: move it away, or name another file with --table")
    return list(reader)


def as_text(lines: list[dict[str, Any]], *, header: bool) -> str:
    """Return lines as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def rows(missing: list[Training], jobs: int) -> Iterator[dict[str, Any]]:
    """Yield lines as they are finished: in order from one process, in any order from several."""
    if jobs == 1:
        yield from map(row, missing)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(row, training) for training in missing]):
            yield future.result()


def make(path: Path, wanted: list[Training], jobs: int = 1) -> None:
    """Append what is missing, then sort: the finished file is the same whatever happened on the way."""
    names = {key(training._asdict()): place for place, training in enumerate(wanted)}
    there = whole_lines(path)
    done = {key(line) for line in there}
    missing = [training for name, training in zip(names, wanted, strict=True) if name not in done]
    start = time.monotonic()
    with path.open("a", encoding="utf-8") as file:
        for count, line in enumerate(rows(missing, jobs), start=1):
            file.write(as_text([line], header=file.tell() == 0))
            file.flush()
            if count % 50 == 0 or count == len(missing):
                rest = (len(missing) - count) * (time.monotonic() - start) / count
                print(
                    f"{count} of {len(missing)}, {rest / 60:.0f} minutes to go", file=sys.stderr, flush=True
                )
    lines = sorted(whole_lines(path), key=lambda line: names.get(key(line), len(names)))
    write_whole(path, as_text(lines, header=True).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network (3)")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each (1)")
    parser.add_argument(
        "--table", type=Path, default=TABLE, help=f"the file ({TABLE.name} beside this script)"
    )
    options = parser.parse_args()
    make(options.table, list(trainings(options.seeds)), options.jobs)


if __name__ == "__main__":
    main()
