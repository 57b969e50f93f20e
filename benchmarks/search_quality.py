"""Which sampler finds the best networks, and which way of meeting a budget helps it? Real accuracies.

    python benchmarks/search_quality.py [--samplers tpe,nsga2] [--ways construction,rejection] [--seeds 20]

Appends a line for each question, sampler and way to `results/search_quality.jsonl`; `--dry` only prints.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # or the sampler that fits Gaussian processes crawls

import numpy as np
import optuna
from record import append, machine
from search_table import Floats, Question, Shape, Table

from connsearch.registry import Ref
from connsearch.search.samplers import make_sampler
from connsearch.search.seeds import stream_seed

SAMPLERS = ("random", "tpe", "nsga2", "gp")
N_TRIALS = {"gp": 30}  # an ask of the others takes milliseconds, of this one up to seconds
N_SEEDS = {"gp": 5}
MOST_ASKS = {"gp": 10}  # for one trial, before a network is drawn at random; likewise
DEFAULT_MOST_ASKS = 30
N_RESAMPLED = 2000
ENDS = ("median", "low", "high")
MEANS = ("mean", "low", "high")
FIGURES = ("share", "regret", "share_tried")
Draws = Mapping[str, optuna.distributions.BaseDistribution]


@dataclass
class Search:
    """A search under way: what was trained, in order, and what it took.

    Attributes:
        trials: Each trial's network and the error it showed.
        asks: How often the sampler was asked.
        random_draws: How many trials were drawn at random because every ask was rejected.
    """

    question: Question
    sampler: Ref
    seed: int
    trials: list[tuple[int, float]] = field(default_factory=list)
    asks: int = 0
    random_draws: int = 0

    def __post_init__(self) -> None:
        way = optuna.study.StudyDirection.MINIMIZE
        self.study = optuna.create_study(directions=[way] * len(self.question.objectives))
        self.luck = np.random.default_rng([self.seed, 2**16])  # which training a trial shows

    def ask(self, draws: Draws, *, by_chance: bool = False) -> optuna.Trial:
        """Ask a fresh sampler, seeded by the number of the ask, as a study does; or the random one."""
        sampler = Ref("random") if by_chance else self.sampler
        self.study.sampler = make_sampler(sampler, stream_seed(self.seed, self.asks, "sampler"))
        self.asks += 1
        return self.study.ask(dict(draws))

    def train(self, trial: optuna.Trial, network: int) -> None:
        """Show the sampler the error of one training of a network, and its MACs."""
        table = self.question.table
        error = float(self.luck.choice(table.errors[network]))
        shown = {"val_error": error, "macs": float(table.macs[network])}
        self.study.tell(trial, [shown[name] for name in self.question.objectives])
        self.trials.append((network, error))


# ---- the ways to meet a budget -------------------------------------------------------------------------


def shape_draws(table: Table) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return what is drawn of every network; depths are drawn by their places in the table's."""
    return {
        "topology": optuna.distributions.CategoricalDistribution(table.options["topology"]),
        "aggregation": optuna.distributions.CategoricalDistribution(table.options["aggregation"]),
        "depth_step": optuna.distributions.IntDistribution(0, len(table.options["n_layers"]) - 1),
    }


def width_draws(table: Table) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return what is drawn where the width is, likewise by its place."""
    steps = optuna.distributions.IntDistribution(0, len(table.options["width"]) - 1)
    return {**shape_draws(table), "width_step": steps}


def shape_of(params: Mapping[str, Any]) -> Shape:
    return params["topology"], params["aggregation"], params["depth_step"]


def construction(search: Search) -> None:
    """Draw the shape, and the budget where it is not fixed; solve the width."""
    question, draws = search.question, shape_draws(search.question.table)
    if question.whole_front:
        draws["macs_budget"] = optuna.distributions.FloatDistribution(question.low, question.high, log=True)
    trial = search.ask(draws)
    budget = trial.params.get("macs_budget", question.high)
    search.train(trial, question.within(shape_of(trial.params), budget))


def rejection(search: Search) -> None:
    """Draw shape and width until the cost is within the bounds; what is not is neither trained nor told.

    A sampler that never learns of rejections may propose the same for ever: after as many asks as are
    allowed for a trial, the random sampler draws instead.
    """
    table, most = search.question.table, MOST_ASKS.get(search.sampler.name, DEFAULT_MOST_ASKS)
    for count in itertools.count(1):
        trial = search.ask(width_draws(table), by_chance=count > most)
        network = table.at(shape_of(trial.params), trial.params["width_step"])
        if search.question.allowed[network]:
            search.random_draws += count > most
            return search.train(trial, network)
        search.study.tell(trial, state=optuna.trial.TrialState.FAIL)  # samplers pass over it


def constraint(search: Search) -> None:
    """Draw shape and width, train whatever it is, tell the sampler how far it is out of bounds."""
    question, table = search.question, search.question.table
    trial = search.ask(width_draws(table))
    network = table.at(shape_of(trial.params), trial.params["width_step"])
    trial.set_constraint("macs_over", np.log(table.macs[network] / question.high))
    trial.set_constraint("macs_under", np.log(question.low / table.macs[network]))
    search.train(trial, network)


WAYS: dict[str, Callable[[Search], None]] = {
    "construction": construction,
    "rejection": rejection,
    "constraint": constraint,
}


# ---- judging -------------------------------------------------------------------------------------------


def curves(search: Search) -> dict[str, list[float]]:
    """Return each figure after 1, 2, ... trials.

    `share` and `regret` judge what a user would pick, `share_tried` the best of all that was tried, which
    is what is left when the finalists are trained again and again.
    """
    question = search.question
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for count in range(1, len(search.trials) + 1):
        trials = search.trials[:count]
        picked = question.answer(trials)
        found["share"].append(question.share(picked))
        found["regret"].append(question.regret(picked))
        found["share_tried"].append(question.share([network for network, _ in trials]))
    return found


def run(question: Question, sampler: str, way: str, seed: int, n_trials: int) -> Search:
    """Return a search of so many trials."""
    search = Search(question, Ref(sampler), seed)
    for _ in range(n_trials):
        WAYS[way](search)
    return search


def interval(values: Floats, statistic: Callable[..., Any] = np.median) -> Floats:
    """Return a statistic over the first axis and its 95 % bootstrap interval, as a new first axis of 3."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(values), size=(N_RESAMPLED, len(values)))
    low, high = np.quantile(statistic(values[chosen], axis=1), [0.025, 0.975], axis=0)
    return np.stack([statistic(values, axis=0), low, high])


def judge(question: Question, sampler: str, way: str, n_seeds: int, n_trials: int) -> dict[str, Any]:
    """Return a line of results: how good, and at what price."""
    start = time.process_time()
    searches = [run(question, sampler, way, seed, n_trials) for seed in range(n_seeds)]
    seconds = time.process_time() - start
    judged = [curves(search) for search in searches]
    trained = [network for search in searches for network, _ in search.trials]
    line = {
        "question": question.name,
        "macs": [question.low, question.high],
        "sampler": sampler,
        "way": way,
        "seeds": n_seeds,
        "trials": n_trials,
        "asks_per_trial": round(sum(search.asks for search in searches) / len(trained), 2),
        "random_draws": sum(search.random_draws for search in searches),
        "infeasible": round(float(np.mean(~question.allowed[trained])), 4),
        "distinct": round(float(np.mean([len({n for n, _ in s.trials}) for s in searches])), 1),
        "cpu_s_per_ask": round(seconds / sum(s.asks for s in searches), 4),
    }
    for name in FIGURES:
        by_seed = np.array([found[name] for found in judged])
        line[name] = dict(
            zip(("median", "low", "high"), np.round(interval(by_seed), 5).tolist(), strict=True)
        )
        if name == "regret":  # of few networks one is best by far: medians jump
            means = np.round(interval(by_seed, np.mean), 5).tolist()
            line["regret_mean"] = dict(zip(MEANS, means, strict=True))
        line[f"{name}_by_seed"] = np.round(by_seed[:, -1], 5).tolist()
        line[f"{name}_over_trials"] = np.round(by_seed.mean(axis=1), 5).tolist()
    return line


def questions(table: Table) -> dict[str, Question]:
    """Return what is asked of the table: a front over a range of budgets, and one network for one budget."""
    found = (
        Question("front", table, 80_000, 640_000, whole_front=True),
        Question("one budget", table, 120_000, 300_000, whole_front=False),
    )
    return {question.name: question for question in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    asked = questions(Table.read())
    for name, known in (("questions", asked), ("samplers", SAMPLERS), ("ways", WAYS)):
        parser.add_argument(f"--{name}", default=",".join(known), help=f"of {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind (20; GP at most 5)")
    parser.add_argument("--trials", type=int, default=60, help="trials of a search (60; GP at most 30)")
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    about = machine() | {name: version(name) for name in ("optuna", "numpy", "connsearch")}
    kinds = itertools.product(
        *(getattr(options, name).split(",") for name in ("questions", "samplers", "ways"))
    )
    for question, sampler, way in kinds:
        n_seeds = min(options.seeds, N_SEEDS.get(sampler, options.seeds))
        n_trials = min(options.trials, N_TRIALS.get(sampler, options.trials))
        line = judge(asked[question], sampler, way, n_seeds, n_trials)
        last = {name: [line[name][end][-1] for end in ENDS] for name in FIGURES}
        print(
            f"{question:10} {sampler:6} {way:12} {n_trials} trials x {n_seeds}: share {last['share']}, "
            f"tried {last['share_tried']}, regret {last['regret']}, {line['asks_per_trial']} asks a trial, "
            f"{100 * line['infeasible']:.0f} % infeasible, {line['distinct']} distinct, "
            f"{1000 * line['cpu_s_per_ask']:.0f} ms an ask",
            file=sys.stderr,
            flush=True,
        )
        if not options.dry:
            append("search_quality", about | line)


if __name__ == "__main__":
    main()
