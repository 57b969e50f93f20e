"""The same network without some of its connections, with the weights of all that is left.

What it computes is the same, up to rounding, if the removed connections carried nothing:

- weighted, depthwise: weights of exactly 0. In the normalized form a source adds its bias all the same,
  which the newest remaining source takes over.
- concat: weights of exactly 0 in the convolution that reads the source. Not so where a norm over several
  channels stands before it, for which all channels count.
- gated: gates of exactly 0, or of 1 behind the oldest sources, for every image.
- routed: gates of exactly 0 for every image. The gates of a node add up to one over its readers, so that
  without one of them the others grow by its share: g / (1 - g_removed). That also happens when a reader
  goes because nothing reads it any more.

Otherwise it computes something near, to be fine-tuned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from connsearch.nn.aggregations import Depthwise, Gated, NormalizedDepthwise, Weighted
from connsearch.nn.network import Network, NodeModule
from connsearch.spec.plan import NodePlan
from connsearch.spec.pruned import Edge, Pruner
from connsearch.spec.reading import reading_of
from connsearch.spec.resolve import resolve

State = dict[str, Tensor]


def pruned_network(network: Network, removed: Collection[Edge]) -> Network:
    """Return a new network without some connections, and without the nodes that only they read.

    Args:
        network: Its weights stay as they are.
        removed: Names of source and reader, such as `Pruner.weak` finds them.

    Raises:
        SpecError: if there is no such connection, or it cannot be removed.
    """
    pruner = Pruner(network.spec)
    spec = pruner.without(removed)
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced
        new = Network(spec).to(next(network.parameters()))
    plan = resolve(spec)
    state: State = {}
    for node in plan.nodes:
        name = node.node.name
        old, module = pruner.plan.nodes[pruner.plan.graph.index(name)], network.node(name)
        sources = {plan.nodes[source].node.name for source in node.sources}
        kept = [place for place, source in enumerate(old.sources) if pruner.names[source] in sources]
        state |= _under(f"{name}.aggregation", _aggregation(module.aggregation, kept))
        state |= _under(name, _line(module, old, kept))
        if module.gates is not None and node.gates:
            before, after = network.gate_readers()[name], new.gate_readers()[name]
            state |= _under(f"{name}.gates", _gates(module.gates, [before.index(reader) for reader in after]))
    new.load_state_dict(state)
    return new.train(network.training)


def _under(prefix: str, state: State) -> State:
    return {f"{prefix}.{key}": value for key, value in state.items()}


def _aggregation(module: nn.Module | None, kept: Sequence[int]) -> State:
    """Return an aggregation's tensors for those of its sources that are kept."""
    if module is None:
        return {}
    state: State = dict(module.state_dict())
    if isinstance(module, Gated):
        gates = [module.gates[place - 1] for place in kept[1:]]
        return dict(nn.ModuleDict({"gates": nn.ModuleList(gates)}).state_dict())
    if isinstance(module, Weighted):
        return {"weight": state["weight"][list(kept)]}
    if isinstance(module, Depthwise):
        return {"weight": state["weight"][list(kept)], "bias": state["bias"]}
    if isinstance(module, NormalizedDepthwise):
        found = {key: value[list(kept)] if value.ndim else value for key, value in state.items()}
        gone = [place for place in range(len(state["bias"])) if place not in kept]
        found["bias"][-1] += state["bias"][gone].sum(0)
        return found
    return state


def _line(module: NodeModule, plan: NodePlan, kept: Sequence[int]) -> State:
    """Return the tensors of a node's operations for those sources that are kept."""
    state: State = {}
    for name in module.line:
        state |= _under(name, dict(module.get_submodule(name).state_dict()))
    if plan.aggregation is None or plan.aggregation.name != "concat" or len(kept) == len(plan.sources):
        return state
    reading = reading_of(plan.chain, plan.in_shape.channels)
    assert reading is not None  # else nothing can be removed
    starts = torch.tensor([0, *plan.source_channels]).cumsum(0).tolist()
    channels = torch.cat([torch.arange(starts[place], starts[place + 1]) for place in kept])
    for key in state:
        if key.partition(".")[0] in reading.along and state[key].ndim:
            state[key] = state[key][channels.to(state[key].device)]
    entries = (channels[:, None] * reading.per_channel + torch.arange(reading.per_channel)).flatten()
    key = f"{reading.mixer}.weight"
    state[key] = state[key].index_select(reading.axis, entries.to(state[key].device))
    return state


def _gates(gates: nn.Sequential, kept: Sequence[int]) -> State:
    """Return the tensors of a node's gates for those readers that are kept."""
    state: State = dict(gates.state_dict())
    last = [name for name, module in gates.named_children() if isinstance(module, nn.Linear)][-1]
    for key in (f"{last}.weight", f"{last}.bias"):
        state[key] = state[key][list(kept)]
    return state
