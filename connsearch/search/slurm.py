"""Workers as jobs of a cluster: each joins the study, and is queued again when its time is over."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connsearch.errors import StudyError
from connsearch.memory import keep_freed
from connsearch.search.config import StudyConfig
from connsearch.search.study import Study

MOST_TIMEOUTS = 1000
"""How often a job is queued again because its time was over; submitit's own bound is 3."""
LOGS = "jobs"
"""Where, in a study's directory, jobs write what they print."""


@dataclass(frozen=True)
class WorkerJob:
    """What a job does: `connsearch run` with these arguments.

    Attributes:
        directory: The study's directory, which all jobs see.
        config: The study.
        trials: Total of trials.
        workers: Trials at once in each job.
        storage: The database; None for the one that the directory remembers.
        device: Where to train; None for CUDA where there is one.
    """

    directory: Path
    config: StudyConfig
    trials: int | None = None
    workers: int = 1
    storage: str | None = None
    device: str | None = None

    def __call__(self) -> str:
        """Run trials until the study is complete; return the closing line."""
        from connsearch.search.session import run_study

        keep_freed()
        return run_study(
            self.directory,
            self.config,
            self.trials,
            self.device,
            workers=self.workers,
            storage=self.storage,
            signals=(),  # they are submitit's, which queues the job again; it ends with SystemExit
        )

    def checkpoint(self) -> Any:
        """Say what to queue when the job is preempted or its time is over: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(
    job: WorkerJob, n_jobs: int, options: Mapping[str, object], *, cluster: str | None = None
) -> list[Any]:
    """Submit jobs and return them as submitit does: `job_id` names one, `result()` waits for its end.

    Args:
        job: What each of them does. The study is created here, so that what is wrong is told here.
        n_jobs: How many.
        options: What submitit takes: `slurm_partition`, `timeout_min`, `cpus_per_task`, `gpus_per_node`, ...
        cluster: "slurm", "local" for processes of this host, or None for Slurm where it is installed.

    Raises:
        StudyError: if submitit is not installed or refuses an option, or as `Study.from_config`.
    """
    try:
        import submitit
    except ImportError:
        raise StudyError("jobs need submitit: pip install 'connsearch[slurm]'") from None
    study = Study.from_config(job.directory, job.config, job.storage)
    study.ask_for(job.trials)
    folder = job.directory.absolute() / LOGS
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
        executor.update_parameters(name=study.place.name, **options)
        with executor.batch():
            jobs = [executor.submit(job) for _ in range(n_jobs)]
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise StudyError(f"submitit: {error}") from None
    return list(jobs)


def parse_options(pairs: Sequence[str]) -> dict[str, object]:
    """Return `key=value` pairs as a mapping; values are TOML, or text where they are no TOML.

    >>> parse_options(["slurm_partition=gpu", "timeout_min=240"])
    {'slurm_partition': 'gpu', 'timeout_min': 240}
    """
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise StudyError(f"--job takes key=value, got {pair!r}")
        try:
            options[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = text
    return options
