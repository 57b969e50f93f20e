"""One call of `connsearch run`: open, create or join the study, run it with progress, say how it ended."""

from __future__ import annotations

import signal
from pathlib import Path

from rich.console import Console

from connsearch.search.config import StudyConfig
from connsearch.search.objective import training_device
from connsearch.search.progress import ConsoleProgress
from connsearch.search.storages.claims import Timing
from connsearch.search.study import Study, check_data
from connsearch.search.workers import Crew, run_workers, stopped_by
from connsearch.text import human


def run_study(
    directory: Path,
    config: StudyConfig,
    n_trials: int | None = None,
    device: str | None = None,
    *,
    workers: int = 1,
    storage: str | None = None,
    timing: Timing | None = None,
    signals: tuple[signal.Signals, ...] = (signal.SIGTERM,),
) -> str:
    """Run a study to its number of trials and return the closing line.

    Args:
        directory: The study's directory.
        config: Its configuration.
        n_trials: Total of trials, those of earlier runs and other workers included.
        device: Where to train; by default CUDA if there is one.
        workers: How many trials to run at once; one runs in this process.
        storage: A database; by default the one that the directory remembers, or its journal file.
        timing: How often to look at the storage, how long to wait for it.
        signals: What stops it, as Ctrl-C does.

    Raises:
        StudyError, SpecError, BudgetError, DataError, TrainError: as `Study.from_config` and `Study.run`.
        KeyboardInterrupt: when it was stopped, by Ctrl-C or a signal; what ran has been given back.
    """
    device, pace = training_device(device), timing or Timing()
    study = Study.from_config(directory, config, storage)
    total = config.n_trials if n_trials is None else n_trials

    def finished() -> int:
        return sum(trial.state.is_finished() for trial in study.trials())

    console, epochs, best = Console(stderr=True), config.train.epochs, study.status().best
    shown = ConsoleProgress(total, finished, epochs, console, objectives=config.objectives, best=best)
    with stopped_by(*signals), shown as progress:
        if workers == 1:
            study.run(total, device=device, progress=progress.hooks(), timing=pace)
        elif progress.done < total:
            check_data(config)
            study.ask_for(total)
            crew = Crew(directory, storage, total, _devices(device, workers), pace)
            run_workers(crew, progress.hooks())
    return closing_line(study)


def _devices(device: str, workers: int) -> tuple[str, ...]:
    """Return a device for each worker: all GPUs in turn where "cuda" is asked for."""
    import torch

    if device != "cuda":
        return (device,) * workers
    count = torch.cuda.device_count()
    return tuple(f"cuda:{index % count}" for index in range(workers))


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
