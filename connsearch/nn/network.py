"""Network: the definition. It executes the plan node by node, in plain PyTorch.

Keys of the state dict are `<node>.<operation>.<tensor>`, such as `block1.layer2.conv1.weight`;
an aggregation's are `<node>.aggregation.<tensor>`, a source's gates `<node>.gates.<operation>.<tensor>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.nn.aggregations import build_aggregation
from connsearch.nn.chain import build_chain
from connsearch.nn.drops import Draws
from connsearch.spec.network import NetworkSpec
from connsearch.spec.ops import Shape
from connsearch.spec.plan import NodePlan
from connsearch.spec.resolve import resolve


class NodeModule(nn.Module):
    """One node: its aggregation (if it reads several sources), its operations, its gates (if it has any).

    The operations are children of the node itself, so that their keys are short.
    """

    def __init__(self, plan: NodePlan) -> None:
        super().__init__()
        ref = plan.aggregation
        self.aggregation = build_aggregation(ref, plan.source_channels) if ref is not None else None
        line = build_chain(plan.chain)
        self.line = [name for name, _ in line.named_children()]
        for name, operation in line.named_children():
            self.add_module(name, operation)
        self.gates = build_chain(plan.gates) if plan.gates else None


class Network(nn.Module):
    """The network of a specification: images B C H W in, logits B K (of a head per pixel B K H W) out.

    Args:
        spec: What to build. Weights are initialised from torch's global random state.

    Attributes:
        keep_gates: Whether a forward pass keeps the values of gates for `gate_values`; off at first.

    Raises:
        SpecError: if the specification describes no network.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self._spec = spec
        self._plan = resolve(spec)
        self._n_columns = 1 + max(plan.node.path for plan in self._plan.nodes)
        self._releases = list(zip(self._plan.graph.released, self._plan.released_gates(), strict=True))
        self.keep_gates = False
        self._gate_values: dict[int, Tensor] = {}
        self._paths = [tuple(plan.node.name.split(".")) for plan in self._plan.nodes]
        modules = [NodeModule(plan) for plan in self._plan.nodes]
        for path, module in zip(self._paths, modules, strict=True):
            self._place(path, module)

    @property
    def spec(self) -> NetworkSpec:
        """The specification that this network was built from."""
        return self._spec

    def _place(self, path: Sequence[str], module: NodeModule) -> None:
        """Add a node's module at a path, making the containers between."""
        parent: nn.Module = self
        *outer, last = path
        try:
            for part in outer:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = cast(nn.Module, parent._modules[part])
            parent.add_module(last, module)
        except KeyError:
            raise SpecError(
                f"node name {'.'.join(path)!r} clashes with an attribute of torch modules: rename it"
            ) from None

    def node(self, name: str) -> NodeModule:
        """Return the module of a node.

        Raises:
            SpecError: if there is no such node.
        """
        return self._module(self._plan.graph.index(name))

    def _module(self, index: int) -> NodeModule:
        """Return the module of a node, or what was put in its place."""
        module: nn.Module = self
        for name in self._paths[index]:
            module = cast(nn.Module, module._modules[name])
        return cast(NodeModule, module)

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the heads; the last is the network's own, the others supervise earlier layers."""
        return tuple(plan.node.name for plan in self._plan.nodes if plan.node.kind == "head")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the network's own head.

        Raises:
            SpecError: if the images are not of the shape that the specification names.
        """
        return self.logits_by_head(images)[self.heads[-1]]

    def logits_by_head(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of every head by name, the network's own last.

        Raises:
            SpecError: if the images are not of the shape that the specification names.
        """
        check_images(images, self._plan.image)
        draws = Draws(self._n_columns, training=self.training)
        outputs: dict[int, Tensor] = {}  # what a later node reads
        gates: dict[int, Tensor] = {}
        h = images
        for index, plan in enumerate(self._plan.nodes):
            module = self._module(index)
            h = self._join(index, module, outputs, gates, draws) if plan.sources else images
            for name in module.line:
                h = module._modules[name](h)  # type: ignore[misc]  # children are modules
            outputs[index] = h
            if module.gates is not None:
                gates[index] = _run(module.gates, h)
                if self.keep_gates:
                    self._gate_values[index] = gates[index].detach()
        return {self._plan.nodes[index].node.name: h for index, h in outputs.items()}

    def _join(
        self,
        index: int,
        module: NodeModule,
        outputs: dict[int, Tensor],
        gates: dict[int, Tensor],
        draws: Draws,
    ) -> Tensor:
        """Aggregate the sources of a node, then release what no later node reads."""
        plan = self._plan.nodes[index]
        sources = [outputs[source] for source in plan.sources]
        if plan.drops:
            sources = draws.weaken(plan.drops, plan.sources, sources)
        if module.aggregation is None:
            joined = sources[0]
        elif plan.slots:
            joined = module.aggregation(sources, _slices(plan, gates))
        else:
            joined = module.aggregation(sources)
        released, released_gates = self._releases[index]
        for source in released:
            del outputs[source]
        for owner in released_gates:
            del gates[owner]
        return joined

    def gate_values(self) -> dict[str, Tensor]:
        """Return, for each node with gates, their values in the latest forward pass: B x n, detached.

        Column j is the weight of what `gate_readers()[node][j]` reads of it. Passes keep them where asked:

            network.keep_gates = True
            network(images)
            network.gate_values()

        Raises:
            SpecError: if the network has gates, but no forward pass kept any.
        """
        if not self._gate_values and self.gate_readers():
            raise SpecError("no gates are kept: set keep_gates = True, then run the network")
        return {self._plan.nodes[index].node.name: values for index, values in self._gate_values.items()}

    def gate_readers(self) -> dict[str, tuple[str, ...]]:
        """Return, for each node with gates, the names of the nodes that they distribute it over, in order."""
        nodes = self._plan.nodes
        found: dict[str, tuple[str, ...]] = {}
        for plan in nodes:
            used = dict.fromkeys(zip(plan.gated_by, plan.slots, strict=True))
            for name in [nodes[owner].node.name for owner, slot in used if slot is not None]:
                found[name] = (*found.get(name, ()), plan.node.name)
        return found


def check_images(images: Tensor, expected: Shape) -> None:
    """Refuse images that are not of the shape that a network reads.

    Raises:
        SpecError: naming both shapes.
    """
    if images.dim() != 4 or tuple(images.shape[1:]) != tuple(expected):
        raise SpecError(
            f"images must be B x {' x '.join(map(str, expected))}, "
            f"got {' x '.join(map(str, images.shape))}: change the images or the network's input"
        )


def _run(line: nn.Sequential, h: Tensor) -> Tensor:
    for operation in line:
        h = operation(h)
    return h


def _slices(plan: NodePlan, gates: dict[int, Tensor]) -> list[Tensor | None]:
    """Return each source's gate for this reader, B 1 1 1."""
    return [
        None if slot is None else gates[owner][:, slot, None, None, None]
        for owner, slot in zip(plan.gated_by, plan.slots, strict=True)
    ]
