"""Draw the latest figures of speed: python benchmarks/plot.py speed.png speed.pdf

Medians, with whiskers as far as the quartiles reach (of a ratio: those of both ways), and a tick where what
was promised begins. Of several machines, numbers of threads and sizes of batches in the results, those of the
latest run on a CPU are drawn; evaluation is drawn for all threads and batches. Left out are runs with freed
memory kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from plot_bars import Bar, Look, Panel, Row, draw_legend, draw_rows
from speed_records import (
    CHAINED,
    COMPILED,
    DEFINITION,
    EAGER,
    NORMALIZED,
    OURS,
    PAPER,
    STACKED,
    Line,
    Run,
    hardware,
    latest_runs,
)
from speed_targets import BUILT, EVALUATION, PROMISES, Promise, apply_to, format_of, is_usual, of_kernel
from speed_words import format_rank, format_words, name, rank, threads, where

from connsearch.errors import ConnsearchError, SpecError
from connsearch.plots.files import check_picture_path
from connsearch.plots.style import TIMES, Picture, look, save

EAGERLY, FUSED = Look("#8C8C8C", "eager PyTorch, the definition"), Look("#0072B2", "ours, fused")
LOOKS = {
    STACKED: Look("#D55E00", "stacked, the paper's way"),
    DEFINITION: EAGERLY,
    EAGER: EAGERLY,
    COMPILED: Look("#E69F00", "torch.compile"),
    "default": Look("#56B4E9", "ours, default"),
    BUILT: FUSED,
    OURS: FUSED,
}
WIDTH, LEGEND, AROUND, ROW = 7.2, 0.45, 0.8, 1.4  # inches; heights, one of what is around rows
PAPERS_WAY = {PAPER: STACKED, NORMALIZED: EAGER, CHAINED: STACKED}
SLOWER = "slower"


class Group(NamedTuple):
    """Rows with the same columns, and what they show."""

    heading: str
    rows: Sequence[Row]


def draw_speed(of_kernels: Sequence[Run], of_networks: Sequence[Run]) -> Figure:
    """Return a picture of runs of kernels and networks.

    Raises:
        SpecError: if there are none that could be drawn.
    """
    usual = [run for run in of_kernels if is_usual(run.line)]
    sums = [run for run in usual if {PAPERS_WAY.get(run.line["operation"]), OURS} <= run.ways.keys()]
    blocks = [run for run in sums if run.line["operation"] != CHAINED]
    chained = [run for run in sums if run.line["operation"] == CHAINED]
    on_cpu = [run for run in of_networks if run.line["device"] == "cpu" and is_usual(run.line)]
    trained = [run for run in on_cpu if run.line["mode"] == "train"]
    evaluated = [run for run in on_cpu if run.line["mode"] == "inference" and BUILT in run.ways]
    parts = (
        (_blocks, _alike(blocks, where)),
        (_chained, _alike(chained, where)),
        (_training, _alike(trained, lambda line: (where(line), line["batch"]))),
        (_evaluation, _alike(evaluated, lambda line: (hardware(line), format_of(line)))),
    )
    groups = [draw(runs) for draw, runs in parts if runs]
    if not groups:
        raise SpecError("nothing to draw: no run of five repeats or more on a CPU is in benchmarks/results")
    heights = [LEGEND, *(AROUND + ROW * len(group.rows) for group in groups)]
    with look():
        figure = Picture(figsize=(WIDTH, sum(heights)), layout="constrained")
        top, *pieces = figure.subfigures(len(heights), 1, height_ratios=heights)
        shown = {way for group in groups for row in group.rows for panel in row.panels for way in panel.bars}
        draw_legend(top, (way for way in LOOKS if way in shown), LOOKS)
        for letter, piece, group in zip("abcd", pieces, groups, strict=False):
            piece.suptitle(f"{letter}   {group.heading}", fontsize=9, x=0.01, ha="left")
            draw_rows(piece, group.rows, LOOKS)
    return figure


def _alike(runs: Sequence[Run], setting: Callable[[Line], Any]) -> list[Run]:
    """Return the runs made in the same setting as the latest."""
    if not runs:
        return []
    last = setting(max(runs, key=lambda run: str(run.line["time"])).line)
    return [run for run in runs if setting(run.line) == last]


def _blocks(runs: Sequence[Run]) -> Group:
    return _kernels("Weighted sums of a block", (PAPER, NORMALIZED), runs)


def _chained(runs: Sequence[Run]) -> Group:
    return _kernels("Weighted sums of layers that follow each other", (CHAINED,), runs)


def _kernels(what: str, operations: Sequence[str], runs: Sequence[Run]) -> Group:
    batch = "/".join(sorted({str(run.line["shape"][0]) for run in runs}))
    heading = f"{what}, forward and backward: batch {batch}, {where(runs[0].line)}"
    panels = [panel for operation in operations for panel in _kernel_panels(runs, operation)]
    return Group(heading, [Row("times faster than\nthe paper's way", panels, SLOWER)])


def _kernel_panels(runs: Sequence[Run], operation: str) -> list[Panel]:
    than = PAPERS_WAY[operation]
    ways = [way for way in (EAGER, COMPILED, OURS) if way != than]

    def bar(run: Run, way: str) -> Bar | None:
        return _faster(run, way, than, of_kernel(run.line).get(than) if way == OURS else None)

    panels = []
    same = [run for run in runs if run.line["operation"] == operation]
    for shape in sorted({tuple(run.line["shape"]) for run in same}):
        found = [run for run in same if tuple(run.line["shape"]) == shape]
        size = f" {TIMES} ".join(map(str, shape[1:]))
        title = f"{operation.partition(', ')[2]}, {found[0].line['n']} layers,\n{size}"
        panels.append(_panel(title, found, ways, bar))
    return panels


def _training(runs: Sequence[Run]) -> Group:
    ways = [way for way in LOOKS if any(way in run.ways for run in runs)]
    others = [way for way in ways if way != DEFINITION]
    networks = sorted({run.line["network"] for run in runs}, key=rank)

    def panels(ways: Sequence[str], bar: Callable[[Run, str], Bar | None]) -> list[Panel]:
        found = ([run for run in runs if run.line["network"] == network] for network in networks)
        return [_panel(name(network), of, ways, bar) for network, of in zip(networks, found, strict=True)]

    heading = f"Training, forward and backward: batch {runs[0].line['batch']}, {where(runs[0].line)}"
    rows = [
        Row("times faster than\nthe definition", panels(others, _step), SLOWER),
        Row("times less memory\nthan the definition", panels(others, _memory), "more"),
        Row("first step, seconds\n(less is better)", panels(ways, _first)),
    ]
    return Group(heading, rows)


def _step(run: Run, way: str) -> Bar | None:
    """Return how many times faster a way is; promised is what is so beside the fastest that was named."""
    bounds = [
        promise.bound * run.ways[DEFINITION]["step_s"] / run.ways[promise.than]["step_s"]
        for promise in _promised(run, way, "step")
    ]
    return _faster(run, way, DEFINITION, max(bounds, default=None))


def _memory(run: Run, way: str) -> Bar | None:
    if way not in run.ways:
        return None
    less = run.ways[DEFINITION]["peak_bytes"] / run.ways[way]["peak_bytes"]
    return Bar(less, less, less, max((1 / p.bound for p in _promised(run, way, "peak")), default=None))


def _first(run: Run, way: str) -> Bar | None:
    if way not in run.ways:
        return None
    seconds = run.ways[way]["first_s"]
    bounds = [p.bound * run.ways[p.than]["step_s"] for p in _promised(run, way, "first")]
    return Bar(seconds, seconds, seconds, min(bounds, default=None))


def _promised(run: Run, way: str, what: str) -> list[Promise]:
    of = run.line["network"], format_of(run.line), what
    if way != BUILT or not apply_to(run.line):
        return []
    return [promise for promise in PROMISES if promise[:3] == of and promise.than in run.ways]


def _evaluation(runs: Sequence[Run]) -> Group:
    panels = []
    for network in sorted({run.line["network"] for run in runs}, key=rank):
        found = [run for run in runs if run.line["network"] == network]
        found.sort(key=lambda run: (run.line["batch"], run.line["threads"]))
        ticks = [f"batch {run.line['batch']}\n{threads(run.line)}" for run in found]
        bars = [_faster(run, BUILT, DEFINITION, EVALUATION) for run in found]
        panels.append(Panel(name(network), ticks, {BUILT: bars}))
    line = runs[0].line
    heading = f"Evaluation without gradients: {format_words(*format_of(line))}, {hardware(line)}"
    return Group(heading, [Row("times faster than\nthe definition", panels, SLOWER)])


def _panel(
    title: str, runs: Sequence[Run], ways: Iterable[str], bar: Callable[[Run, str], Bar | None]
) -> Panel:
    """Return a panel with a tick for each format."""
    ordered = sorted(runs, key=lambda run: format_rank(run.line))
    ticks = [f"{run.line['dtype']}\n{'ch. last' if run.line['channels_last'] else 'NCHW'}" for run in ordered]
    return Panel(title, ticks, {way: [bar(run, way) for run in ordered] for way in ways})


def _faster(run: Run, way: str, than: str, target: float | None) -> Bar | None:
    ratio = run.speedup(way, than=than)
    return None if ratio is None else Bar(*ratio, target)


def main() -> None:
    """Draw into the files that are named."""
    parser = argparse.ArgumentParser(description="Draw the latest figures of speed.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="to draw to: .png, .svg or .pdf")
    try:
        files = [check_picture_path(file) for file in parser.parse_args().files]
        figure = draw_speed(*latest_runs())
        for file in files:
            print(f"wrote {save(figure, file)}")
    except ConnsearchError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
