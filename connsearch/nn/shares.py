"""How much of what a node reads comes from which source? For gates, which decide image by image.

Shapes: N images, B of a batch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.nn.aggregations import Gated, Routed
from connsearch.nn.network import Network
from connsearch.spec.plan import NodePlan
from connsearch.spec.pruned import Edge
from connsearch.spec.resolve import resolve

if TYPE_CHECKING:
    import pandas as pd

Images = Tensor | Iterable[Tensor]
"""N C H W as one tensor, or in batches; on the network's device."""

_BATCH = 256

CLASS_COLUMNS = ("source", "reader", "aggregation", "class", "n_images", "value", "spread")


def has_gates(network: Network) -> bool:
    """Return whether the shares of some sources follow from the images."""
    return any(isinstance(module, Gated | Routed) for module in network.modules())


def source_shares(network: Network, images: Images) -> dict[Edge, Tensor]:
    """Return the share of each gated or routed source in what its reader reads, by image: N, float64.

    Routed: the gate g_ij, 1 where a node has no other such reader. Gated: T_i (1 - T_i+1) ... (1 - T_n),
    the mean over channels and pixels; those of a reader's sources add up to one.

    Args:
        network: Run in evaluation mode; each submodule gets its mode back.
        images: All of them, or in batches.
    """
    plan = resolve(network.spec)
    names = [node.node.name for node in plan.nodes]
    parts: dict[Edge, list[Tensor]] = {}
    with _watched(network) as seen, torch.inference_mode():
        for batch in torch.split(images, _BATCH) if isinstance(images, Tensor) else images:
            network(batch)
            gates = network.gate_values() if network.gate_readers() else {}
            for node in plan.nodes:
                module = network.node(node.node.name).aggregation
                found: list[Tensor] = []
                if isinstance(module, Gated):
                    found = seen[module]
                elif isinstance(module, Routed):
                    found = _routed(node, names, gates, batch)
                for source, share_B in zip(node.sources, found, strict=bool(found)):
                    parts.setdefault((names[source], node.node.name), []).append(share_B.double().cpu())
    return {edge: torch.cat(shares) for edge, shares in parts.items()}


def shares_by_class(
    network: Network, images: Images, labels: Tensor, class_names: Sequence[str]
) -> pd.DataFrame:
    """Return the mean share of each gated or routed source among the images of each class.

    Columns: `source`, `reader`, `aggregation`, `class`, `n_images`, `value` (the mean) and `spread` (the
    standard deviation over the images of the class). Classes without an image are left out.

    Args:
        network: As for `source_shares`.
        images: All of them, or in batches.
        labels: N, indices into the names.
        class_names: Of all classes.

    Raises:
        SpecError: if the network has no gates.
    """
    import pandas as pd

    if not has_gates(network):
        raise SpecError(f"{network.spec.name!r} has no gates: images of all classes take the same way")
    rows: list[tuple[object, ...]] = []
    for (source, reader), share_N in source_shares(network, images).items():
        kind = "gated" if isinstance(network.node(reader).aggregation, Gated) else "routed"
        for label, name in enumerate(class_names):
            own = share_N[labels.cpu() == label]
            if len(own):
                numbers = (len(own), own.mean().item(), own.std(correction=0).item())
                rows.append((source, reader, kind, name, *numbers))
    return pd.DataFrame(rows, columns=list(CLASS_COLUMNS))


def _routed(node: NodePlan, names: Sequence[str], gates: dict[str, Tensor], batch: Tensor) -> list[Tensor]:
    return [
        batch.new_ones(len(batch)) if slot is None else gates[names[owner]][:, slot]
        for owner, slot in zip(node.gated_by, node.slots, strict=True)
    ]


@contextmanager
def _watched(network: Network) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Evaluate a network, keeping the gates of each pass; gives those of gated aggregations, by image."""
    seen: dict[nn.Module, list[Tensor]] = {}

    def watch(module: nn.Module, inputs: tuple[Sequence[Tensor]], output: Tensor) -> None:
        assert isinstance(module, Gated)
        seen[module] = [share_BCHW.mean((1, 2, 3)) for share_BCHW in module.shares(inputs[0])]

    modes = [(module, module.training) for module in network.modules()]
    hooks = [m.register_forward_hook(watch) for m in network.modules() if isinstance(m, Gated)]
    kept, network.keep_gates = network.keep_gates, True
    try:
        network.eval()
        yield seen
    finally:
        network.keep_gates = kept
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
