"""One call of `connsearch run`: open or create the study, run it with progress, say how it ended."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from connsearch.search.config import StudyConfig
from connsearch.search.progress import ConsoleProgress
from connsearch.search.study import Study
from connsearch.text import human


def run_study(directory: Path, config: StudyConfig, n_trials: int | None, device: str | None) -> str:
    """Run a study to its number of trials and return the closing line.

    Raises:
        StudyError, SpecError, BudgetError, DataError: as `Study.from_config` and `Study.run`.
    """
    study = Study.from_config(directory, config)
    before, total = study.status(), n_trials or config.n_trials
    best = None
    if before.best is not None and "val_error" in before.best:
        best = (before.best["val_error"], before.best["trial"])
    console = Console(stderr=True)
    with ConsoleProgress(total, before.finished, config.train.epochs, console, best) as progress:
        study.run(total, device=device, progress=progress.hooks())
    return closing_line(study)


def closing_line(study: Study) -> str:
    """Return where the study lies, how many trials ended how, and the best one."""
    status = study.status()
    counts = ", ".join(f"{status.states[word]} {word}" for word in ("complete", "failed", "pruned"))
    line = f"{study.directory}: {counts}"
    if status.best is None:
        return line
    values = ", ".join(f"{name} {human(name, value)}" for name, value in status.best.items() if name != "trial")
    return f"{line}; best trial {status.best['trial']}: {values}"
