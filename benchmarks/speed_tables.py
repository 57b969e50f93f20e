"""The figures of speed as tables of Markdown, with what was promised of them.

Numbers in brackets are quartiles; of a ratio, the least and the most that the quartiles of both ways make of
it. What is not as promised is bold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from speed_records import (
    CHAINED,
    COMPILED,
    CONCAT_NORM_ACT,
    DEFINITION,
    EAGER,
    NORM_ACT,
    NORMALIZED,
    OURS,
    PAPER,
    STACKED,
    Line,
    Run,
    hardware,
)
from speed_targets import (
    BUILT,
    EVALUATION,
    FIRST_CALL_S,
    PROMISES,
    apply_to,
    format_of,
    of_kernel,
)
from speed_words import (
    format_rank,
    format_words,
    kept,
    markdown,
    memory,
    name,
    number,
    rank,
    ratio,
    sources,
    span,
    where,
)

NOTHING = "No run of five repeats or more is recorded."
WAYS = (DEFINITION, STACKED, COMPILED, "torch.compile max-autotune", "default", BUILT, "cuda graph")
OPERATIONS = (PAPER, NORMALIZED, CHAINED, NORM_ACT, CONCAT_NORM_ACT)

Row = Sequence[str]


def kernels(runs: Iterable[Run]) -> str:
    """Return the table of kernels: a row for each case, other ways beside ours."""
    heads = (
        *("what", "maps", "format", "ours, ms", "times faster than stacked", "than eager"),
        *("than torch.compile", "promised"),
    )

    def place(run: Run) -> tuple[object, ...]:
        line = run.line
        return OPERATIONS.index(line["operation"]), line["n"], -line["shape"][1], format_rank(line)

    def row(run: Run) -> Iterator[Row]:
        line, targets = run.line, of_kernel(run.line)
        ratios = (ratio(run.speedup(OURS, than=way), targets.get(way)) for way in (STACKED, EAGER, COMPILED))
        what = _operation(line), " x ".join(map(str, line["shape"])), format_words(*format_of(line))
        promised = ", ".join(f"{least:g} ({way})" for way, least in targets.items())
        yield (*what, span(run.ways[OURS], 1e3), *ratios, promised)

    return _tables(sorted((run for run in runs if OURS in run.ways), key=place), heads, row, where)


def _operation(line: Line) -> str:
    form = line["operation"].partition(", ")[2]
    if line["operation"] in (PAPER, NORMALIZED, CHAINED):
        return f"{line['n']} layers, {form}"
    return line["operation"] + (f" of {line['n']}" if line["n"] > 1 else "")


def training(runs: Iterable[Run]) -> str:
    """Return the table of steps of training: a row for each way."""
    heads = (
        *("network", "format", "way", "step, s", "times faster than the definition", "than torch.compile"),
        *("first step, s", "peak, MB"),
    )

    def rows(run: Run) -> Iterator[Row]:
        what = name(run.line["network"]), format_words(*format_of(run.line))
        for way in (way for way in WAYS if way in run.ways):
            line = run.ways[way]
            faster = (
                ratio(run.speedup(way, than=other) if way != other else None)
                for other in (DEFINITION, COMPILED)
            )
            yield (
                *what,
                way,
                span(line),
                *faster,
                number(line["first_s"]),
                f"{line['peak_bytes'] / 1e6:,.0f}",
            )
            what = "", ""

    return _tables(_in_order(runs, "train"), heads, rows, _batch_too)


def promises(runs: Iterable[Run]) -> str:
    """Return what was promised of steps of training on CPUs, and what they are: a row for each promise."""
    heads = ("network", "format", f"`{BUILT}`", "promised", "measured")
    found = [run for run in runs if apply_to(run.line)]
    parts = [
        f"{words}:\n\n{markdown(heads, _promised(group))}" for words, group in _by_setting(found, _batch_too)
    ]
    return "\n\n".join(parts) or markdown(heads, _promised([]))


def _promised(runs: Sequence[Run]) -> Iterator[Row]:
    by_network = {(run.line["network"], format_of(run.line)): run for run in runs}
    for promise in PROMISES:
        run = by_network.get((promise.network, promise.format))
        value = promise.value(run) if run is not None else None
        bound = f"at {'least' if promise.what == 'step' else 'most'} {promise.bound:g}"
        measured = "not measured" if value is None else kept(number(value), promise.kept(value))
        yield name(promise.network), format_words(*promise.format), promise.words(), bound, measured


def evaluation(runs: Iterable[Run]) -> str:
    """Return the table of evaluation without gradients: a row for each case."""
    heads = (
        *("network", "batch", "threads", "definition, ms", "built, ms"),
        *(f"times faster (promised: {EVALUATION:g})", f"first call, s (promised: {FIRST_CALL_S:g} at most)"),
    )

    def row(run: Run) -> Iterator[Row]:
        line, found = run.line, run.ways[BUILT]
        what = name(line["network"]), str(line["batch"]), str(line["threads"])
        faster = ratio(run.speedup(BUILT, than=DEFINITION), EVALUATION)
        first = kept(number(found["first_s"]), found["first_s"] <= FIRST_CALL_S)
        yield (*what, span(run.ways[DEFINITION], 1e3), span(found, 1e3), faster, first)

    def setting(line: Line) -> str:
        return f"{hardware(line)}, {format_words(*format_of(line))}{memory(line)}"

    return _tables([run for run in _in_order(runs, "inference") if BUILT in run.ways], heads, row, setting)


def _in_order(runs: Iterable[Run], mode: str) -> list[Run]:
    def place(run: Run) -> tuple[object, ...]:
        line = run.line
        return rank(line["network"]), format_rank(line), line["batch"], line["threads"]

    return sorted((run for run in runs if run.line["mode"] == mode), key=place)


def _batch_too(line: Line) -> str:
    return f"{where(line)}, batch {line['batch']}"


def _by_setting(runs: Iterable[Run], setting: Callable[[Line], str]) -> Iterator[tuple[str, list[Run]]]:
    def of(run: Run) -> str:
        return setting(run.line)

    for words, group in groupby(sorted(runs, key=of), key=of):
        yield words, [*group]


def _tables(
    runs: Iterable[Run], heads: Row, rows: Callable[[Run], Iterable[Row]], setting: Callable[[Line], str]
) -> str:
    """Return a table for each setting that runs were made in, and which runs."""
    parts = [
        f"{words} ({sources(found)}):\n\n{markdown(heads, (row for run in found for row in rows(run)))}"
        for words, found in _by_setting(runs, setting)
    ]
    return "\n\n".join(parts) or NOTHING
