"""Cost of a specification: of the whole, of each node and edge, and of a shape at any widths."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any

from connsearch.cost.blocks import BlockPlan, blocks_memory, blocks_tally, resolve_blocks
from connsearch.cost.cost import Cost, NetworkCost
from connsearch.cost.count import Tally, add_tallies, edge_tallies, network_tally, node_tallies
from connsearch.cost.memory import ActivationMemory, activation_memory
from connsearch.cost.symbolic import Monomial, Poly, Values, width_symbols
from connsearch.errors import SpecError
from connsearch.spec.given import check_network
from connsearch.spec.network import NetworkSpec
from connsearch.spec.plan import NetworkPlan
from connsearch.spec.resolve import resolve

BYTES = 4  # of a float32


def network_cost(spec: NetworkSpec) -> NetworkCost:
    """Return the exact cost of a network, for one image and one forward pass.

    Raises:
        SpecError: if the specification describes no network.

    >>> from connsearch.spec.presets import preset
    >>> cost = network_cost(preset("resnet-20"))  # the paper prints 0.27 M parameters
    >>> cost.params, cost.macs, cost.n_layers
    (269722, 40551040, 9)
    """
    check_network(spec)
    return plan_cost(cost_plan(spec))


def cost_plan(spec: NetworkSpec, widths: Sequence[int] | None = None) -> BlockPlan | NetworkPlan:
    """Return what a network's cost is counted on: its blocks if that will do, or else all its nodes."""
    blocks = resolve_blocks(spec, widths)
    return resolve(spec, widths) if blocks is None else blocks


def plan_cost(plan: BlockPlan | NetworkPlan) -> NetworkCost:
    """Return the exact cost of a plan in which channels are integers."""
    memory = _memory_of(plan)
    return NetworkCost.of(
        Cost(*tally_of(plan)),
        inference_bytes=BYTES * max(memory.peaks),
        training_bytes=BYTES * memory.training,
        n_layers=plan.n_layers,
        n_edges=plan.n_edges,
    )


def tally_of(plan: BlockPlan | NetworkPlan) -> Tally:
    """Return the sum over all nodes and edges of a plan."""
    return blocks_tally(plan) if isinstance(plan, BlockPlan) else network_tally(plan)


def _memory_of(plan: BlockPlan | NetworkPlan) -> ActivationMemory:
    return blocks_memory(plan) if isinstance(plan, BlockPlan) else activation_memory(plan)


def node_costs(spec: NetworkSpec) -> dict[str, Cost]:
    """Return what each node owns by name, the edges into it apart; nodes and edges add up to the network."""
    check_network(spec)
    return {plan.node.name: Cost(*add_tallies(node_tallies(plan))) for plan in resolve(spec).nodes}


def edge_costs(spec: NetworkSpec) -> dict[tuple[str, str], Cost]:
    """Return what each edge owns, by the names of its source and its target."""
    check_network(spec)
    plans = resolve(spec).nodes
    return {
        (plans[source].node.name, plan.node.name): Cost(*tally)
        for plan in plans
        for source, tally in zip(plan.sources, edge_tallies(plan), strict=True)
    }


class CostModel:
    """The cost of one shape (topologies, aggregations, depths) as a function of its widths.

    It prints as that function: w1 is the width of block 1.

    >>> from connsearch.spec import NetworkSpec
    >>> model = CostModel(NetworkSpec(blocks=[{"unit": "conv", "n_layers": 2}]))
    >>> print(model)
    params  18 w1^2 + 43 w1 + 10
    MACs    18432 w1^2 + 27658 w1
    >>> model.params([16]), model.macs([16])
    (5306, 5161120)

    Args:
        spec: Gives the shape; its own widths do not matter.

    Raises:
        SpecError: if the specification describes no network.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        check_network(spec)
        self._n_blocks = len(spec.blocks)
        symbols: Any = width_symbols(self._n_blocks)
        self._plan = cost_plan(spec, symbols)
        self._tally = tally = tally_of(self._plan)
        self._macs = _compile(tally.conv_macs + tally.linear_macs + tally.aggregation_macs)
        self._params = _compile(tally.params)
        self._rounds = any(map(_has_rounding, (self._macs, self._params)))

    def __str__(self) -> str:
        tally = self._tally
        return (
            f"params  {tally.params}\nMACs    {tally.conv_macs + tally.linear_macs + tally.aggregation_macs}"
        )

    def macs(self, widths: Sequence[float]) -> Any:
        """Return the multiply-accumulates of one image: an integer at integer widths, between them a float.

        Raises:
            SpecError: if there is not one width for each block.
        """
        return _evaluate(self._macs, self._values(widths))

    def params(self, widths: Sequence[float]) -> Any:
        """Return the trainable scalars: an integer at integer widths, between them a float.

        Raises:
            SpecError: if there is not one width for each block.
        """
        return _evaluate(self._params, self._values(widths))

    def _values(self, widths: Sequence[float]) -> Values | Sequence[float]:
        if len(widths) != self._n_blocks:
            raise SpecError(f"{self._n_blocks} blocks need as many widths, got {list(widths)}")
        return Values(widths) if self._rounds else widths

    def cost(self, widths: Sequence[int]) -> NetworkCost:
        """Return the whole cost at these widths, as `network_cost` would where channels divide into groups.

        Raises:
            SpecError: if there is not one integer of at least 1 for each block.
        """
        if len(widths) != self._n_blocks or any(type(w) is not int or w < 1 for w in widths):
            raise SpecError(
                f"{self._n_blocks} blocks need an integer width of at least 1 each, got {list(widths)}"
            )
        values = Values(widths)
        peaks, training = self._memory
        return NetworkCost.of(
            Cost(*(_evaluate(field, values) for field in self._fields)),
            inference_bytes=BYTES * max(_evaluate(peak, values) for peak in peaks),
            training_bytes=BYTES * _evaluate(training, values),
            **self._sizes,
        )

    @cached_property
    def _fields(self) -> list[_Compiled]:
        return [_compile(number) for number in self._tally]

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {"n_layers": self._plan.n_layers, "n_edges": self._plan.n_edges}

    @cached_property
    def _memory(self) -> tuple[list[_Compiled], _Compiled]:
        memory = _memory_of(self._plan)
        return [_compile(peak) for peak in memory.peaks], _compile(memory.training)


_Compiled = tuple[
    list[tuple[int, int, int]], list[tuple[int, int]], int, int
]  # squares, lines, constant, divisor


def _compile(number: Any) -> _Compiled:
    """Return a polynomial of degree 2 as plain lists: (n, i, j), (n, i), constant, common divisor."""
    terms = number.terms if isinstance(number, Poly) else {(): number}
    divisor = lcm(*(Fraction(n).denominator for n in terms.values()))
    scaled: dict[Monomial, int] = {m: int(n * divisor) for m, n in terms.items() if n}
    squares = [(n, *m) for m, n in scaled.items() if len(m) == 2]
    lines = [(n, *m) for m, n in scaled.items() if len(m) == 1]
    return squares, lines, scaled.get((), 0), divisor


def _has_rounding(compiled: _Compiled) -> bool:
    squares, lines, *_ = compiled
    return any(symbol < 0 for _, *symbols in (*squares, *lines) for symbol in symbols)


def _evaluate(compiled: _Compiled, values: Values | Sequence[float]) -> Any:
    squares, lines, constant, divisor = compiled
    total: Any = constant
    for n, i, j in squares:
        total += n * values[i] * values[j]
    for n, i in lines:
        total += n * values[i]
    return total // divisor
