"""Lowering: from the plan of a network to a program that does what the definition does, step by step."""

from __future__ import annotations

from connsearch.ir.program import Aggregate, Op, Program, Step
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Chain, Shape, op_names, output_shape
from connsearch.spec.plan import NetworkPlan, NodePlan
from connsearch.spec.resolve import resolve


def lower(spec: NetworkSpec) -> Program:
    """Return the program of a network: one operation for each step of the definition, in its order.

    Raises:
        SpecError: if the specification describes no network.

    >>> block = {"topology": "dense", "aggregation": "concat", "unit": "conv", "n_layers": 1}
    >>> print(lower(NetworkSpec(blocks=[block])))
    program network: 3x32x32
    %1: 16x32x32 = conv(3, 16) @stem.conv1 <- %0
    %2: 16x32x32 = norm('batch', 16) @block1.layer1.norm1 <- %1
    %3: 16x32x32 = act('relu') @block1.layer1.act1 <- %2
    %4: 16x32x32 = conv(16, 16) @block1.layer1.conv1 <- %3
    %5: 32x32x32 = aggregate.concat @head.aggregation <- %1 %4
    %6: 32x32x32 = norm('batch', 32) @head.norm1 <- %5
    %7: 32x32x32 = act('relu') @head.act1 <- %6
    %8: 32x1x1 = global_pool() @head.pool1 <- %7
    %9: 10x1x1 = linear(32, 10) @head.linear1 <- %8
    return head %9
    """
    return lower_plan(resolve(spec), spec.name)


def lower_plan(plan: NetworkPlan, name: str) -> Program:
    """Return the program of a plan."""
    lowering = _Lowering(plan)
    for index, node in enumerate(plan.nodes):
        lowering.add(index, node)
    heads = [i for i, node in enumerate(plan.nodes) if node.node.kind == "head"]
    outputs = tuple((plan.nodes[i].node.name, lowering.values[i]) for i in heads)
    n_columns = 1 + max(node.node.path for node in plan.nodes)
    return Program(name, plan.image, tuple(lowering.ops), outputs, n_columns)


class _Lowering:
    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.ops: list[Op] = []
        self.values: list[int] = []  # of the nodes so far
        self.gates: dict[int, int] = {}  # values of gates, by the node that makes them

    def add(self, index: int, node: NodePlan) -> None:
        value = self._joined(node) if node.sources else 0
        value = self._line(value, node.in_shape, node.chain, node.node.name)
        self.values.append(value)
        if node.gates:
            self.gates[index] = self._line(value, node.out_shape, node.gates, f"{node.node.name}.gates")

    def _joined(self, node: NodePlan) -> int:
        sources = [self.values[source] for source in node.sources]
        if node.aggregation is None:
            return sources[0]
        owners = [owner for owner, slot in zip(node.gated_by, node.slots, strict=True) if slot is not None]
        operand = {owner: len(sources) + place for place, owner in enumerate(dict.fromkeys(owners))}
        slots = tuple(
            None if slot is None else (operand[owner], slot)
            for owner, slot in zip(node.gated_by, node.slots, strict=True)
        )
        step = Step(Aggregate(node.aggregation, slots, node.drops), f"{node.node.name}.aggregation")
        return self._emit(step, (*sources, *(self.gates[owner] for owner in operand)), node.in_shape)

    def _line(self, value: int, shape: Shape, chain: Chain, prefix: str) -> int:
        for name, op in zip(op_names(chain), chain, strict=True):
            shape = output_shape(op, shape)
            value = self._emit(Step(op, f"{prefix}.{name}"), (value,), shape)
        return value

    def _emit(self, step: Step, reads: tuple[int, ...], shape: Shape) -> int:
        self.ops.append(Op((step,), reads, shape))
        return len(self.ops)
