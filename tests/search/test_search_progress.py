from __future__ import annotations

import io
import re
from itertools import count

import pytest
from made_up import diverged_outcome, made_up_outcome, make_config
from rich.console import Console

from connsearch.errors import StudyError
from connsearch.search import progress as progress_module
from connsearch.search.objective import Outcome
from connsearch.search.progress import ConsoleProgress
from connsearch.search.space import Member
from connsearch.train.result import EpochRecord, TrainResult

MEMBER = make_config().space.member(
    {"macs_budget": 50_000, "count": 1, "topology": "sparse(base=3)", "aggregation": "concat",
     "n_layers_1": 1, "n_layers_2": 1, "width_ratio_2": 1.0}
)  # fmt: skip
WHAT = "sparse(base=3) x concat, layers 1, widths 6"
MACS = "45 k"
OBJECTIVES = {"val_error": "minimize", "macs": "minimize"}


def outcome(error: float) -> Outcome:
    made_up = made_up_outcome(MEMBER.spec, None)
    record = EpochRecord(1, 0.1, 1.0, error, 1.0, error, 0.5)
    return Outcome(made_up.cost, TrainResult((record,), diverged=False, seconds=1.25))


def watch(console: Console, *, total: int = 5, done: int = 1, member: Member = MEMBER) -> None:
    """Show three trials: one that ends well, one that fails, one that diverges."""
    best = {"trial": 0, "val_error": 0.75, "macs": 1.0}
    finished = count(done).__next__
    with ConsoleProgress(total, finished, 2, console, objectives=OBJECTIVES, best=best) as shown:
        hooks = shown.hooks()
        hooks.trial_started(1, member)
        hooks.epoch_ended(1, EpochRecord(1, 0.1, 1.0, 0.5, 1.0, 0.5, 0.5))
        hooks.trial_ended(1, outcome(0.25))
        hooks.trial_ended(2, "[red]budget[/red]: too small")
        hooks.trial_started(3, member)
        hooks.trial_ended(3, diverged_outcome(member.spec, None))


def test_several_trials_at_once_and_what_else_there_is_to_say() -> None:
    stream = io.StringIO()
    finished = count().__next__
    with ConsoleProgress(5, finished, 2, Console(file=stream, width=40), objectives=OBJECTIVES) as shown:
        hooks = shown.hooks()
        for number in (1, 2, 3):
            hooks.trial_started(number, MEMBER)
        hooks.note("[bold]db[/bold] is away")
        hooks.trial_dropped(2)
        hooks.trial_ended(1, outcome(0.25))
        assert list(shown._running) == [3]
        assert list(shown._members) == [3]
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[bold]db[/bold] is away"
    assert lines[1].startswith(f"[1/5] trial 1: error 25.0 %, {MACS}MACs, {WHAT}, 1.2 s")


def test_plain_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    watch(Console(file=stream, width=40))
    lines = [line.split(" · ") for line in stream.getvalue().splitlines()]
    assert [first for first, *_ in lines] == [
        f"[2/5] trial 1: error 25.0 %, {MACS}MACs, {WHAT}, 1.2 s",
        "[3/5] trial 2: failed: [red]budget[/red]: too small",
        f"[4/5] trial 3: error 100.0 %, {MACS}MACs, {WHAT}, 0.5 s, diverged",
    ]
    for _, best, rate, left in lines:
        assert best == "best 25.0 % (trial 1)"
        assert rate.endswith(" trials/min")
        assert left == "about 0 s left"


def test_a_live_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 600, 6))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system=None, get_time=lambda: 0.0)
    watch(console)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    shown = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert f"[2/5] trial 1: error 25.0 %, {MACS}MACs, {WHAT}, 1.2 s" in shown
    live = [line for line in shown if " · " in line]
    assert live[-1].startswith("4/5 trials · best 25.0 % (trial 1) · ")
    assert live[-1].endswith(" left")
    assert "trials/min" in live[-1]
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_the_live_line_tells_the_epoch_and_never_wraps() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, color_system=None)
    shown = ConsoleProgress(5, lambda: 0, 2, console, objectives=OBJECTIVES)
    with shown:
        hooks = shown.hooks()
        hooks.trial_started(0, MEMBER)
        assert shown._live is not None
        shown._live.refresh()
        hooks.epoch_ended(0, EpochRecord(1, 0.1, 1.0, 0.5, 1.0, 0.5, 0.5))
        shown._live.refresh()
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())
    assert "0/5 trials · trial 0: sparse(base=3) x concat, layers 1, wi…" in text
    assert "0/5 trials · trial 0: epoch 1/2, error 50.0 %" in text


def test_a_trial_in_no_time_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: 1.0)
    stream = io.StringIO()
    with ConsoleProgress(2, count().__next__, 1, Console(file=stream), objectives=OBJECTIVES) as shown:
        shown.hooks().trial_ended(0, "at once")
    assert stream.getvalue() == "[1/2] trial 0: failed: at once\n"


def test_trials_of_another_run_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 30.0])
    monkeypatch.setattr(progress_module.time, "monotonic", clock.__next__)
    finished, stream = iter([2, 5]), io.StringIO()
    console = Console(file=stream, width=400)
    with ConsoleProgress(8, finished.__next__, 1, console, objectives=OBJECTIVES) as shown:
        shown.hooks().trial_ended(4, "at once")
    assert stream.getvalue() == "[5/8] trial 4: failed: at once · 6.0 trials/min · about 30 s left\n"


def test_a_storage_that_is_away_stops_no_display() -> None:
    def away() -> int:
        raise StudyError("the database is away")

    stream = io.StringIO()
    with ConsoleProgress(8, lambda: 3, 1, Console(file=stream), objectives=OBJECTIVES) as shown:
        shown.finished = away
        shown.hooks().trial_ended(4, "at once")
    assert stream.getvalue().startswith("[4/8] trial 4: failed: at once · ")


@pytest.mark.parametrize(("macs", "best"), [(1.0, 0), (1e6, 7)])
def test_of_equal_errors_the_cheaper_is_the_best(macs: float, best: int) -> None:
    stream = io.StringIO()
    known = {"trial": 0, "val_error": 0.25, "macs": macs}
    console = Console(file=stream, width=400)
    with ConsoleProgress(9, count().__next__, 1, console, objectives=OBJECTIVES, best=known) as shown:
        shown.hooks().trial_ended(7, outcome(0.25))
    assert f" · best 25.0 % (trial {best}) · " in stream.getvalue()
