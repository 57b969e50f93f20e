"""One call of `connsearch run`: open or create the study, run it with progress, say how it ended."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from connsearch.search.config import StudyConfig
from connsearch.search.objective import training_device
from connsearch.search.progress import ConsoleProgress
from connsearch.search.records import diverged
from connsearch.search.study import Study
from connsearch.text import human


def run_study(directory: Path, config: StudyConfig, n_trials: int | None, device: str | None) -> str:
    """Run a study to its number of trials and return the closing line.

    Raises:
        StudyError, SpecError, BudgetError, DataError, TrainError: as `Study.from_config` and `Study.run`.
    """
    device = training_device(device)
    study = Study.from_config(directory, config)
    total = config.n_trials if n_trials is None else n_trials
    errors = [
        (trial.user_attrs["val_error"], trial.number)
        for trial in study.trials()
        if trial.state.name == "COMPLETE" and not diverged(trial)
    ]
    console, done = Console(stderr=True), study.status().finished
    with ConsoleProgress(total, done, config.train.epochs, console, min(errors, default=None)) as progress:
        study.run(total, device=device, progress=progress.hooks())
    return closing_line(study)


def closing_line(study: Study) -> str:
    """Return where the study lies, how many trials ended how, and the best one."""
    status = study.status()
    counts = ", ".join(f"{status.states[word]} {word}" for word in ("complete", "failed", "pruned"))
    line = f"{study.directory}: {counts}"
    if status.best is None:
        return line
    values = ", ".join(
        f"{name} {human(name, value)}" for name, value in status.best.items() if name != "trial"
    )
    return f"{line}; best trial {status.best['trial']}: {values}"
