"""How fast is exact cost? Networks costed from their specification, costs at other widths, widths solved.

    python benchmarks/cost_speed.py            # prints a table, appends a line to results/cost_speed.jsonl
    python benchmarks/cost_speed.py --quick    # a tenth of the work, nothing written

One core, plain Python. Before anything is timed, costs are compared with other ways to count. Caches are as
in a search: each network is drawn anew, so its layers' counts are found where an earlier network had the
same layer of the same shape, and the pattern of a block where one had its topology, depth and aggregation.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import networkx
import pydantic
from record import append, machine

from connsearch.cost import Budget, CostModel, fit_width, network_cost
from connsearch.cost.model import plan_cost
from connsearch.graph import list_topologies
from connsearch.spec import NetworkSpec, list_aggregations, list_units, resolve

BUDGETS = (10_000_000, 40_000_000, 160_000_000)
TARGETS = {"networks_per_s": 2_000, "widths_per_s": 20_000, "fit_ms_max": 5.0}


def draw_network(rng: random.Random) -> NetworkSpec:
    """Return about 40 layers in three blocks, of any topologies, aggregations and units."""
    width = rng.randrange(8, 65, 4)
    return NetworkSpec(
        blocks=[
            {
                "topology": rng.choice(list_topologies()),
                "aggregation": rng.choice(list_aggregations()),
                "unit": rng.choice(list_units()),
                "n_layers": rng.randint(10, 17),
                "width": width * factor,
            }
            for factor in (1, 2, 4)
        ]
    )


def draw_shape(rng: random.Random) -> NetworkSpec:
    """Return two to four blocks of 2 to 12 layers, each at most 2.5 times as wide as the one before."""
    ratios = [1.0]
    while len(ratios) < rng.choice([2, 3, 4]):
        ratios.append(ratios[-1] * rng.uniform(1, 2.5))
    return NetworkSpec(
        blocks=[
            {
                "topology": rng.choice(list_topologies()),
                "aggregation": rng.choice(list_aggregations()),
                "unit": rng.choice(list_units()),
                "n_layers": rng.randint(2, 12),
                "width": round(1000 * ratio),
            }
            for ratio in ratios
        ]
    )


def seconds(run: Callable[[], object]) -> float:
    """Return the time one call takes, without the collector of garbage."""
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    run()
    elapsed = time.perf_counter() - start
    gc.enable()
    return elapsed


def per_second(run: Callable[[Sequence[Any]], object], batches: Sequence[Sequence[Any]]) -> list[float]:
    """Return how many items of each batch are done in a second; the first batch warms up."""
    run(batches[0])
    return [len(batch) / seconds(lambda b=batch: run(b)) for batch in batches[1:]]


def check(specs: Sequence[NetworkSpec]) -> None:
    """Compare each cost with the count node by node, and with the polynomial's value at the same widths."""
    for spec in specs:
        cost = network_cost(spec)
        if cost != plan_cost(resolve(spec)) or cost != CostModel(spec).cost(spec.widths):
            sys.exit(f"ways to count disagree:\n{spec}")


def measure_networks(n: int, repeats: int) -> dict[str, float]:
    """Return networks costed from their specification in a second: resolved, counted, memory walked."""
    rng = random.Random(0)
    batches = [[draw_network(rng) for _ in range(n)] for _ in range(repeats + 1)]
    check(batches[0])
    rates = per_second(lambda specs: [network_cost(spec) for spec in specs], batches)
    return {"networks_per_s": round(statistics.median(rates)), "networks_per_s_best": round(max(rates))}


def measure_widths(n: int, repeats: int) -> dict[str, float]:
    """Return whole costs at other widths in a second, and MACs alone, which the width solver asks for."""
    rng = random.Random(1)
    specs = [draw_network(rng) for _ in range(50)]
    check(specs)
    models = [CostModel(spec) for spec in specs]
    asked = [
        [(rng.choice(models), [rng.randint(4, 200) for _ in range(3)]) for _ in range(n)]
        for _ in range(repeats + 1)
    ]
    for model in models:
        model.cost([4, 4, 4])  # peak memory is compiled at the first question
    whole = per_second(lambda batch: [model.cost(widths) for model, widths in batch], asked)
    macs = per_second(lambda batch: [model.macs(widths) for model, widths in batch], asked)
    return {
        "widths_per_s": round(statistics.median(whole)),
        "macs_only_per_s": round(statistics.median(macs)),
    }


def measure_fit(n: int, budget: int) -> dict[str, float]:
    """Return milliseconds per width solved, and which share of networks uses 98 % of the budget.

    Median and 99th percentile are of first calls; the maximum is of the best of three calls each, as
    one of thousands of calls is always held up by something else on the machine.
    """
    rng = random.Random(2)
    shapes = [draw_shape(rng) for _ in range(n)]
    times, best, shares = [], [], []
    for shape in shapes:
        calls = []
        for _ in range(3):
            start = time.perf_counter()
            fitted = fit_width(shape, Budget(macs=budget), quantum=4, min_depths=[1] * len(shape.blocks))
            calls.append(1000 * (time.perf_counter() - start))
        times.append(calls[0])
        best.append(min(calls))
        shares.append(network_cost(fitted).macs / budget)
    if max(shares) > 1:
        sys.exit(f"a network exceeds its budget of {budget:,} MACs")
    return {
        "fit_ms": round(statistics.median(times), 2),
        "fit_ms_p99": round(sorted(times)[int(0.99 * len(times))], 2),
        "fit_ms_max": round(max(best), 2),
        "within_2_percent": round(sum(share >= 0.98 for share in shares) / len(shares), 4),
    }


def _plain_loop() -> None:
    """Do a fixed amount of plain Python: how fast the machine is at the moment."""
    total = 0
    for i in range(20_000):
        total += i * i % 7


def versions() -> dict[str, Any]:
    """Return what these figures depend on beside the machine: how fast it is just now, and packages."""
    return {
        "loop_ms": round(1000 * min(seconds(_plain_loop) for _ in range(5)), 3),
        "pydantic": pydantic.VERSION,
        "networkx": networkx.__version__,
    }


def main() -> None:
    """Measure, print, and append one line to the results."""
    parser = argparse.ArgumentParser(description="Time exact cost and the width solver on one core.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work; writes nothing")
    quick = parser.parse_args().quick
    size = 0.1 if quick else 1.0
    result: dict[str, Any] = {**machine(), **versions()}
    result |= measure_networks(int(500 * size), repeats=7)
    result |= measure_widths(int(5000 * size), repeats=7)
    print(f"{result['cpu']}, load {result['load']}, {result['loop_ms']} ms for a loop of 20,000")
    result["fit"] = {str(budget): measure_fit(int(1000 * size), budget) for budget in BUDGETS}

    print(
        f"networks costed        {result['networks_per_s']:>8,} / s   (target {TARGETS['networks_per_s']:,})"
    )
    print(f"costs at other widths  {result['widths_per_s']:>8,} / s   (target {TARGETS['widths_per_s']:,})")
    print(f"MACs at other widths   {result['macs_only_per_s']:>8,} / s")
    for budget, fit in result["fit"].items():
        print(
            f"fit to {int(budget) // 10**6:>4} MMACs {fit['fit_ms']:>12} ms   (p99 {fit['fit_ms_p99']}, "
            f"most {fit['fit_ms_max']}, target each under {TARGETS['fit_ms_max']:g}; "
            f"{100 * fit['within_2_percent']:.1f} % use 98 % of it)"
        )
    if not quick:
        append("cost_speed", result)


if __name__ == "__main__":
    main()
