"""torchvision's state dicts: loading one into a network of the same architecture, and writing one.

A layout finds the modules of a network by their place in its graph, and says what torchvision calls them.
Layouts are written from the public format of the files; torchvision itself is not needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from connsearch.errors import SpecError
from connsearch.nn.network import Network
from connsearch.registry import Ref, Registry
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Act, GlobalPool, Pool, Subsample, op_names
from connsearch.spec.plan import NetworkPlan, NodePlan
from connsearch.spec.resolve import resolve

Layout = Callable[[NetworkSpec], dict[str, str]]

LAYOUTS: Registry[Layout] = Registry("torchvision layout")

_OLD_KEY = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d)")


def load_torchvision(network: Network, state_dict: Mapping[str, Tensor]) -> None:
    """Copy weights and running statistics of a torchvision network into ours.

    Counters of batches (`num_batches_tracked`) may be missing, as they are from old files: they become 0.
    DenseNets may have the keys of old files, `norm.1` for `norm1`.

    Args:
        network: Such as `Network(preset("resnet-50"))`.
        state_dict: In torchvision's format, such as that of its `resnet50`.

    Raises:
        SpecError: if torchvision has no such network, or a key is missing, unexpected or of a wrong shape.
    """
    keys = _keys(network)
    state_dict = {_OLD_KEY.sub(r"\1\2", key): tensor for key, tensor in state_dict.items()}
    own = network.state_dict()
    _complain("lacks", [k for k in keys.values() if k not in state_dict and not _is_counter(k)])
    _complain("has no use for", set(state_dict) - set(keys.values()))
    for ours, theirs in keys.items():
        if theirs in state_dict and state_dict[theirs].shape != own[ours].shape:
            raise SpecError(
                f"state dict: {theirs!r} is {_size(state_dict[theirs])}, but {ours!r} is {_size(own[ours])}: "
                f"use the network that the state dict is of"
            )
    zero = torch.zeros((), dtype=torch.int64)
    network.load_state_dict({ours: state_dict.get(theirs, zero) for ours, theirs in keys.items()})


def to_torchvision(network: Network) -> dict[str, Tensor]:
    """Return a network's state dict in torchvision's format; it shares the network's memory.

    Raises:
        SpecError: if torchvision has no such network.
    """
    own = network.state_dict()
    return {theirs: own[ours] for ours, theirs in _keys(network).items()}


def torchvision_modules(spec: NetworkSpec) -> dict[str, str]:
    """Return torchvision's name of every module with weights, by ours, in the first layout that fits.

    Raises:
        SpecError: if none fits, saying why not.
    """
    reasons = []
    for name in sorted(LAYOUTS):
        try:
            return LAYOUTS[name](spec)
        except SpecError as error:
            reasons.append(f"no {name}, as {error}")
    raise SpecError(f"torchvision has no network like {spec.name!r}: {'; '.join(reasons)}")


def _keys(network: Network) -> dict[str, str]:
    """Return torchvision's key of every tensor, by ours."""
    modules = torchvision_modules(network.spec)
    found = {}
    for key in network.state_dict():
        module, _, tensor = key.rpartition(".")
        found[key] = f"{modules[module]}.{tensor}"
    return found


def _complain(what: str, keys: Iterable[str]) -> None:
    names = sorted(keys)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise SpecError(f"state dict {what} {', '.join(map(repr, names[:3]))}{more}: is it of this network?")


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"


def weighted_operations(plan: NodePlan) -> list[str]:
    """Return the names of a node's operations that have weights."""
    without = Act | GlobalPool | Pool | Subsample
    return [
        name for name, op in zip(op_names(plan.chain), plan.chain, strict=True) if not isinstance(op, without)
    ]


# ---- ResNet --------------------------------------------------------------------------------------------


_BRANCHES = [[f"{word}{i}" for i in range(1, n + 1) for word in ("conv", "norm")] for n in (2, 3)]
_RESNET_NAMES: dict[str, dict[str, str]] = {  # by kind of node and operation
    "stem": {"conv1": "conv1", "norm1": "bn1"},
    "unit": {name: name.replace("norm", "bn") for name in _BRANCHES[-1]},
    "carry": {"conv1": "0", "norm1": "1"},
    "head": {"linear1": "fc"},
}


@LAYOUTS.register("resnet")
def resnet_keys(spec: NetworkSpec) -> dict[str, str]:
    """ResNet-v1: conv1, bn1, layer<block>.<unit>.conv1, .bn1, ..., .downsample.0, .downsample.1, fc.

    Wide ResNets for large images and ResNeXts have the same keys.

    Raises:
        SpecError: naming a node that has no place in it.
    """
    plan = resolve(spec)
    places = _residual_places(plan)
    found = {}
    for index, node in enumerate(plan.nodes):
        names = weighted_operations(node)
        theirs = _RESNET_NAMES.get(node.node.kind, {})
        allowed = _BRANCHES if node.node.kind == "unit" else ([*theirs], [])
        if names not in allowed or (names and index not in places):
            raise SpecError(f"node {node.node.name!r} is none of its layers")
        for name in names:
            found[f"{node.node.name}.{name}"] = places[index] + theirs[name]
    return found


def _residual_places(plan: NetworkPlan) -> dict[int, str]:
    """Return the prefix of torchvision's names for stem, head, units and shortcuts.

    Raises:
        SpecError: if a join is not the sum of a unit and what it reads, or of that through a shortcut.
    """
    heads = [node.node.name for node in plan.nodes if node.node.kind == "head"]
    if len(heads) > 1:
        raise SpecError(f"it has one head, this network has {', '.join(heads)}")
    places = {i: "" for i, node in enumerate(plan.nodes) if node.node.kind in ("stem", "head")}
    n_units: Counter[int] = Counter()
    for node in plan.nodes:
        if len(node.sources) < 2:
            continue
        skip, unit = _sorted_branches(plan, node)
        block = plan.nodes[unit].node.block
        places[unit] = f"layer{block}.{n_units[block]}."
        n_units[block] += 1
        if plan.nodes[skip].node.kind == "carry":
            places[skip] = f"{places[unit]}downsample."
    return places


def _sorted_branches(plan: NetworkPlan, join: NodePlan) -> tuple[int, int]:
    """Return the skip and the unit that a join adds."""
    units = [source for source in join.sources if plan.nodes[source].node.kind == "unit"]
    if join.aggregation == Ref("sum") and len(join.sources) == 2 and len(units) == 1:
        skip = next(source for source in join.sources if source not in units)
        entry = plan.nodes[skip].sources if plan.nodes[skip].node.kind == "carry" else (skip,)
        if plan.nodes[units[0]].sources == entry:
            return skip, units[0]
    raise SpecError(f"node {join.node.name!r} does not add a unit to what the unit reads")


# ---- DenseNet ------------------------------------------------------------------------------------------


_DENSENET_NAMES: dict[str, dict[str, str]] = {  # by kind of node and operation
    "stem": {"conv1": "conv0", "norm1": "norm0"},
    "unit": {name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "transition": {"norm1": "norm", "conv1": "conv"},
    "head": {"norm1": "features.norm5", "linear1": "classifier"},
}


@LAYOUTS.register("densenet")
def densenet_keys(spec: NetworkSpec) -> dict[str, str]:
    """DenseNet-BC for large images: features.conv0, features.denseblock<block>.denselayer<layer>.norm1, ...

    Raises:
        SpecError: naming a node that has no place in it.
    """
    found: dict[str, str] = {}
    inside: list[int] = []  # the nodes of the block so far
    for index, plan in enumerate(resolve(spec).nodes):
        node = plan.node
        theirs = _DENSENET_NAMES.get(node.kind, {})
        concatenates = plan.aggregation in (None, Ref("concat"))
        if weighted_operations(plan) != [*theirs] or [*plan.sources] != inside or not concatenates:
            raise SpecError(f"node {node.name!r} is none of its layers")
        prefix = {
            "stem": "features.",
            "unit": f"features.denseblock{node.block}.denselayer{len(inside)}.",
            "transition": f"features.transition{node.block - 1}.",
            "head": "",
        }[node.kind]
        found |= {f"{node.name}.{ours}": prefix + name for ours, name in theirs.items()}
        if node.kind == "transition":
            inside = []
        inside.append(index)
    return found
