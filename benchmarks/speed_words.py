"""How figures of speed are written: names, numbers with their quartiles, tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from speed_records import COMPILED, Line, Ratio, Run, hardware

from connsearch.memory import DEFAULT, KEEPS

NAMES = {
    "delugenet-146": "DelugeNet-146",
    "densenet-bc-100-12": "DenseNet-BC-100-12",
    "log-densenet-v1-12-24": "Log-DenseNet-V1-12-24",
    "densenet-121": "DenseNet-121",
}


def name(network: str) -> str:
    """Return what a network is called."""
    return NAMES.get(network, network)


def rank(network: str) -> tuple[int, str]:
    """Return where a network stands in tables and pictures."""
    known = [*NAMES]
    return known.index(network) if network in known else len(known), network


def format_words(dtype: str, channels_last: bool) -> str:
    """Return what maps are like.

    >>> format_words("float32", False), format_words("bfloat16", True)
    ('float32, NCHW', 'bfloat16, channels last')
    """
    return f"{dtype}, {'channels last' if channels_last else 'NCHW'}"


def format_rank(line: Line) -> tuple[bool, str, bool]:
    """Return where the format of maps stands in tables and pictures."""
    return line["dtype"] != "float32", line["dtype"], line["channels_last"]


def where(line: Line) -> str:
    """Return what ran, how many threads, and what became of freed memory if that was asked for."""
    return f"{hardware(line)}, {threads(line)}{memory(line)}"


def memory(line: Line) -> str:
    """Return what became of freed memory, or nothing where that is as glibc does it.

    >>> memory({"malloc": "keeps"}), memory({"malloc": "default"}), memory({"malloc": "other"})
    (', freed memory kept', '', ', malloc: other')
    """
    policy = line.get("malloc", DEFAULT)
    return {DEFAULT: "", KEEPS: ", freed memory kept"}.get(policy, f", malloc: {policy}")


def threads(line: Line) -> str:
    """Return how many threads there were."""
    return f"{line['threads']} thread{'s' * (line['threads'] > 1)}"


def number(value: float) -> str:
    """Return a number to two digits or more.

    >>> [number(x) for x in (0.0417, 0.48, 1.5, 20.04, 1234.4)]
    ['0.042', '0.48', '1.50', '20.0', '1,234']
    """
    places = next((places for least, places in ((100, 0), (10, 1), (0.1, 2)) if value >= least), 3)
    return f"{value:,.{places}f}"


def span(line: Line, factor: float = 1.0) -> str:
    """Return the median of a step and its quartiles."""
    middle, low, high = (number(factor * line[key]) for key in ("step_s", "low_s", "high_s"))
    return f"{middle} [{low}, {high}]"


def ratio(found: Ratio | None, target: float | None = None) -> str:
    """Return a ratio and its interval.

    >>> ratio(Ratio(1.05, 1.0, 1.1), 1.1), ratio(Ratio(1.15, 1.0, 1.3), 1.1), ratio(None)
    ('**1.05 [1.00, 1.10], missed**', '1.15 [1.00, 1.30]', '')
    """
    if found is None:
        return ""
    words = f"{number(found.middle)} [{number(found.low)}, {number(found.high)}]"
    return kept(words, target is None or found.middle >= target)


def kept(words: str, is_kept: bool) -> str:
    """Return a figure, bold where it is not as promised."""
    return words if is_kept else f"**{words}, missed**"


def sources(runs: Iterable[Run]) -> str:
    """Return of which commit runs are, when they began, and how busy the machine was then.

    Those without an id are from before `torch.compile` began with empty caches.
    """
    found = {}
    for run in runs:
        line = run.line
        words = [f"commit {line['commit']}", f"torch {line['torch']}", line["time"][:16].replace("T", " ")]
        words.append(f"load {line['load']:g}")
        if line.get("omp_wait_policy"):
            words.append(f"OMP_WAIT_POLICY={line['omp_wait_policy']}")
        if "run" not in line and COMPILED in run.ways:
            words.append("torch.compile with what it had in its caches")
        found[line.get("run", line["time"])] = ", ".join(words)
    return "; ".join(found.values())


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = (heads, ("---",) * len(heads), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
