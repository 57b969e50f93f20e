"""What a study would run, before it does: kinds and range of networks, cost, time, memory, storage."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from connsearch.cost import network_cost
from connsearch.errors import DataError
from connsearch.search.config import StudyConfig
from connsearch.search.memory import free_bytes
from connsearch.search.objective import enough_memory, training_device
from connsearch.search.proxies.prefilter import plan_line
from connsearch.search.samplers import make_sampler
from connsearch.search.space import Member
from connsearch.search.storages import check_free, check_writable, exists, find
from connsearch.search.storages.databases import check
from connsearch.search.study import check_data, check_same, open_if_there
from connsearch.search.transfer.studies import kept_from, with_earlier
from connsearch.search.transfer.warm_start import start_lines
from connsearch.text import counted, duration, si
from connsearch.train.config import TrainConfig

N_SAMPLED = 100
TIMED_IMAGES = 256
WORKER_BYTES = 1 << 29
"""What a process takes before it has a network: Python, torch, scikit-learn."""


class Plan(NamedTuple):
    """What a study would run.

    Attributes:
        text: A few lines.
        obstacle: Why it could not start though all else is right: its data cannot be had.
    """

    text: str
    obstacle: DataError | None


def plan_of(
    config: StudyConfig,
    directory: Path,
    device: str | None = None,
    storage: str | None = None,
    show: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Return what a study would run; draws members and times short trainings of three of them.

    Where the data set cannot be had, the lines say so, and nothing is timed.

    Args:
        config: The study's configuration.
        directory: Where it would live.
        device: Where it would train; by default CUDA if there is one.
        storage: A database for its record.
        show: Told what is done next.

    Raises:
        BudgetError, SpecError: where the study could not start.
        DataError: if the data set does not match the space.
        StudyError: if the directory or the storage cannot be used or holds another study.
        TrainError: if the device is not there, or memory does not suffice.
    """
    space, device = config.space, training_device(device)
    space.check()
    show(f"opening dataset {config.train.dataset.label}")
    obstacle = _missing_data(config)
    make_sampler(config.sampler, 0)
    kept = _storage_lines(directory, storage, config)
    start = _start_lines(directory, storage, config)
    show(f"drawing {N_SAMPLED} members")
    rng = random.Random(config.seed)
    members = sorted((space.draw(rng) for _ in range(N_SAMPLED)), key=lambda m: network_cost(m.spec).macs)
    within = sum(member.meets_budget for member in members)
    costs = [network_cost(member.spec) for member in members]
    kinds = sum(1 for _ in space.kinds())
    memory = config.train.micro_batch_size * max(cost.training_bytes for cost in costs)
    layers = [cost.n_layers for cost in costs]
    train = config.train
    absent = "" if obstacle is None else "; the data set cannot be had: nothing is timed"
    text = "\n".join(
        [
            *([f"question   {config.question}"] if config.question else []),
            f"space      {kinds} kinds (categories), searched: {', '.join(space.knobs())}",
            f"members    {si(costs[0].macs)} to {si(costs[-1].macs)} MACs, "
            f"{si(min(c.params for c in costs))} to {si(max(c.params for c in costs))} parameters, "
            f"{min(layers)} to {max(layers)} layers ({N_SAMPLED} drawn)",
            f"budget     {100 * within / N_SAMPLED:g} % of these lie within "
            f"{100 * space.budget.tolerance:g} % below it, none above",
            f"training   {train.dataset.label}, {counted(train.epochs, 'epoch')}, {_batches(train)}; "
            f"activations up to {si(memory)}B{absent}",
            *([] if absent else [_time_line(config, members, device, show)]),
            *start,
            *kept,
            f"workers    {_workers(memory)}",
        ]
    )
    return Plan(text, obstacle)


def _batches(train: TrainConfig) -> str:
    """Return how images go through, and whose values are taken where none are given."""
    divided = f" in {train.accumulate} parts" if train.accumulate > 1 else ""
    return f"batch {train.batch_size}{divided}{f', recipe {train.recipe}' if train.recipe else ''}"


def _missing_data(config: StudyConfig) -> DataError | None:
    """Return why the data set cannot be had; None if it can.

    Raises:
        DataError: if it does not match the space.
    """
    from connsearch.data import load_dataset

    try:
        load_dataset(config.train.dataset)
    except DataError as error:
        return error
    check_data(config)
    return None


def _time_line(config: StudyConfig, members: list[Member], device: str, show: Callable[[str], None]) -> str:
    show("timing short trainings")
    seconds = _seconds_per_trial(config, members, device)
    trials = counted(config.n_trials, "trial")
    return (
        f"time       about {duration(seconds)} a trial, {duration(seconds * config.n_trials)} for {trials} "
        f"with sampler {config.sampler.label}"
    )


def _seconds_per_trial(config: StudyConfig, members: list[Member], device: str) -> float:
    """Return the seconds that an average trial will take, from short trainings of three members."""
    import torch

    from connsearch.data import load_dataset
    from connsearch.nn import build
    from connsearch.train import train

    data = load_dataset(config.train.dataset)
    few = data.train.first(TIMED_IMAGES)
    short = replace(data, train=few, val=few, test=few)
    once = config.train.model_copy(update={"epochs": 1, "warmup_epochs": 0.0})
    times = []
    for member in (members[len(members) * k // 6] for k in (1, 3, 5)):
        with enough_memory(device):
            with torch.random.fork_rng(devices=[]):
                network = build(member.spec, pipeline=config.train.pipeline)
            train(network, short, once, seed=0, device=device)  # the first step is slow, and is once a trial
            start = time.perf_counter()
            train(network, short, once, seed=0, device=device)
        times.append((time.perf_counter() - start) / (2 * len(few)))  # a pass to train, one to validate
    images = config.train.epochs * (len(data.train) + len(data.val or ()))
    return statistics.mean(times) * images


def _storage_lines(directory: Path, storage: str | None, config: StudyConfig) -> list[str]:
    """Return where the study would be, whether it is there, and what its storage is."""
    place = find(directory, storage)
    if not exists(directory):
        check_free(directory)
        check_writable(directory)
    what = "journal file; fits the workers of one host" if place.url is None else check(place.url)
    study = open_if_there(place)
    if study is None:
        return [f"storage    {directory}, new; {what}"]
    check_same(directory, study.config, config)
    finished = study.status().finished
    on = f"goes on after {counted(finished, 'finished trial')}"
    if finished >= config.n_trials:
        on = f"finished: nothing is left of {counted(config.n_trials, 'trial')}"
    return [f"storage    {directory}, {on}; {what}"]


def _start_lines(directory: Path, storage: str | None, config: StudyConfig) -> list[str]:
    """Return what the study begins with, and how candidates would be filtered; nothing for most studies."""
    study = open_if_there(find(directory, storage))
    known = with_earlier(config) if study is None else kept_from(study.config, config)
    lines = [f"start      {line}" for line in start_lines(known)]
    return lines if config.prefilter is None else [*lines, f"filter     {plan_line(config.prefilter)}"]


def _workers(activations: int) -> str:
    """Return how many workers this host has cores and memory for, each with one thread."""
    import os

    cores, free = os.cpu_count() or 1, free_bytes("cpu")
    fitting = cores if free is None else min(cores, max(1, free // (WORKER_BYTES + activations)))
    memory = "" if free is None else f", {si(free)}B of free memory"
    return f"up to {fitting} at once on this host ({cores} cores{memory}): --workers {fitting}"
