"""Contracts: does a topology, an aggregation or a unit of one's own keep to what connsearch relies on?

Each check asks the rule itself, builds small networks of it, and raises an `AssertionError` that says what is
broken. A line in a test of one's own is enough: `check_aggregation("my_median")`. Everything that connsearch
registers is held to the same contracts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from connsearch.cost import CostModel, edge_costs, network_cost, node_costs
from connsearch.errors import ConnsearchError
from connsearch.graph import TOPOLOGIES, predecessors
from connsearch.graph.topologies import asked
from connsearch.ir import lower, optimize, parse
from connsearch.ir.pipelines import PIPELINES
from connsearch.nn import Network
from connsearch.nn.aggregations import build_aggregation
from connsearch.nn.peak import peak_bytes
from connsearch.nn.verify import Comparison, randomise
from connsearch.registry import Ref, Registry
from connsearch.spec import AGGREGATIONS, UNITS, Aggregation, NetworkSpec
from connsearch.spec.aggregations import Footprint, Owned, aggregation_rule
from connsearch.spec.chains import chain, unit_channels
from connsearch.spec.ops import Attention, Linear, Op, Shape, output_shape

DEPTHS = range(1, 18)
SCOPES = ("block", "global")
BATCH, HEIGHT, WIDTH = 4, 6, 5
DRAWS = 5  # of parameters, until a gradient reaches all: in one of them a ReLU may be dead
UNIT_WIDTHS = (24, 48)  # they divide into groups and heads
IN_CHANNELS = (24, 48, 72)


def check_topology(topology: object) -> None:
    """Make sure that a registered topology gives networks, at every depth, and always the same ones.

    Args:
        topology: Its name, a label or a table with parameters.

    Raises:
        AssertionError: saying what is wrong, at which depth.
        SpecError: if there is no such topology or parameter.

    >>> check_topology("log_dense")
    """
    with _of(TOPOLOGIES, topology) as ref:
        first = {n_layers: predecessors(ref, n_layers) for n_layers in DEPTHS}
        for n_layers in reversed(DEPTHS):
            again = asked(TOPOLOGIES[ref.name], ref, n_layers)
            what = f"of {n_layers} layers reads {first[n_layers]}, asked again {again}"
            _require(again == first[n_layers], f"{what}: draw from a seed of its own")
        for aggregation in ("sum", "concat"):
            for scope in SCOPES:
                _check_network(_network(scope, topology=ref, aggregation=aggregation))


def check_aggregation(aggregation: object) -> None:
    """Make sure that an aggregation's module does what its rule says, alone and in networks.

    Compared are shapes, parameters and multiply-accumulates of convolutions, memory, and the compiled network
    with its definition; gradients must reach every source and parameter.

    Args:
        aggregation: Its name, a label or a table with parameters.

    Raises:
        AssertionError: saying what is wrong, and of how many sources.
        SpecError: if there is no such aggregation or parameter.

    >>> check_aggregation("depthwise(form=paper)")
    """
    with _of(AGGREGATIONS, aggregation) as ref:
        rule = aggregation_rule(ref)
        for n in filter(rule.applies, range(1, 5)):
            for channels in ((3,) * n, *(() if rule.equal_channels else (tuple(range(2, n + 2)),))):
                with _at(f"of sources of {', '.join(map(str, channels))} channels"):
                    _check_module(ref, rule, channels)
        for scope in SCOPES:
            _check_network(_network(scope, topology="dense", aggregation=ref))


def check_unit(unit: object) -> None:
    """Make sure that a unit keeps the resolution, gives out what its width says, is counted as it is built.

    Args:
        unit: Its name, a label or a table with parameters. Widths and channels tried are multiples of 24.

    Raises:
        AssertionError: saying what is wrong, and at which width.
        SpecError: if there is no such unit or parameter.

    >>> check_unit("bottleneck(expansion=4)")
    """
    with _of(UNITS, unit) as ref:
        for width in UNIT_WIDTHS:
            for in_channels in IN_CHANNELS:
                with _at(f"of width {width}, reading {in_channels} channels"):
                    _check_line(ref, in_channels, width)
        for aggregation in ("sum", "concat"):
            blocks = {"topology": "dense", "aggregation": aggregation, "unit": ref}
            _check_network(_network("block", widths=UNIT_WIDTHS, **blocks))


# ---- what a rule says ----------------------------------------------------------------------------------


def _check_line(ref: Ref, in_channels: int, width: int) -> None:
    shape = Shape(in_channels, HEIGHT, WIDTH)
    for op in chain(UNITS, ref, in_channels, width):
        wanted = _reads(op)
        _require(wanted in (None, shape.channels), f"{op} reads {shape.channels} channels, not {wanted}")
        shape = output_shape(op, shape)
    size = (shape.height, shape.width)
    _require(size == (HEIGHT, WIDTH), f"makes {size[0]}x{size[1]} pixels of {HEIGHT}x{WIDTH}: keep them")
    given, said = shape.channels, unit_channels(ref, width)
    _require(given == said, f"gives out {given} channels, of other inputs {said}: the width alone may decide")


def _reads(op: Op) -> int | None:
    """Return how many channels an operation takes; None for any."""
    if isinstance(op, Attention):
        return 3 * op.channels
    if isinstance(op, Linear):
        return op.in_features
    found: int | None = getattr(op, "in_channels", getattr(op, "channels", None))
    return found


class _Case(NamedTuple):
    """A module of an aggregation and what it reads: sources, then gates if its rule routes."""

    module: nn.Module
    sources: list[Tensor]
    gates: list[Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a gradient must reach, by name."""
        named = {"source": self.sources, "gate": self.gates}
        inputs = {f"{name} {i}": t for name, each in named.items() for i, t in enumerate(each, start=1)}
        return inputs | dict(self.module.named_parameters())

    def run(self, n_images: int = BATCH) -> Tensor:
        sources, gates = ([tensor[:n_images] for tensor in each] for each in (self.sources, self.gates))
        made: Tensor = self.module(sources, gates) if gates else self.module(sources)
        return made


def _drawn(ref: Ref, rule: Aggregation, channels: Sequence[int]) -> _Case:
    module = build_aggregation(ref, channels).double()
    randomise(module)
    sources = [torch.randn(BATCH, c, HEIGHT, WIDTH).double().requires_grad_() for c in channels]
    gates = [torch.rand(BATCH, 1, 1, 1).double().requires_grad_() for _ in channels] if rule.routes else []
    return _Case(module, sources, gates)


def _check_module(ref: Ref, rule: Aggregation, channels: Sequence[int]) -> None:
    def ran() -> tuple[Tensor, dict[str, Tensor]]:
        drawn = _drawn(ref, rule, channels)
        return drawn.run(), drawn.tensors()

    torch.manual_seed(0)
    case = _drawn(ref, rule, channels)
    _check_value(case, rule, channels)
    _check_owned(case, rule, channels)
    _check_gradients(ran)
    case.module.eval()
    _check_evaluation(case, build_aggregation(ref, channels).double().eval())
    case.module.train()
    _check_memory(case, rule.footprint(len(channels)))


def _check_value(case: _Case, rule: Aggregation, channels: Sequence[int]) -> None:
    before = [source.detach().clone() for source in case.sources]
    made, expected = case.run(), (BATCH, rule.out_channels(channels), HEIGHT, WIDTH)
    _require(tuple(made.shape) == expected, f"the module makes {tuple(made.shape)}, not {expected}")
    _require(made.dtype == torch.float64, f"the module makes {made.dtype} of torch.float64")
    _require(bool(made.isfinite().all()), "what the module makes is not finite")
    for i, (source, value) in enumerate(zip(case.sources, before, strict=True), start=1):
        _require(torch.equal(source, value), f"the module changes source {i}, which others read: copy it")
    if rule.equal_channels:
        _require(expected[1] == channels[0], "sources of equal channels, yet another number of them is made")
    if rule.adds:
        total = torch.stack(before).sum(0)
        plain = any(torch.allclose(made, value) for value in (total, total / len(before)))
        _require(plain, "`adds` is for the plain sum or mean of the sources")


def _check_owned(case: _Case, rule: Aggregation, channels: Sequence[int]) -> None:
    pixels, out = HEIGHT * WIDTH, rule.out_channels(channels)
    oldest, *others = channels
    parts = [rule.node(len(channels), out, pixels), rule.first_edge(oldest, pixels)]
    owned = Owned(*map(sum, zip(*parts, *(rule.edge(c, pixels) for c in others), strict=True)))
    params = sum(parameter.numel() for parameter in case.module.parameters())
    _require(owned.params == params, f"the rule counts {owned.params} parameters, the module has {params}")
    macs = _convolved(case.run) // BATCH
    _require(owned.conv_macs == macs, f"the rule counts {owned.conv_macs} MACs of convolutions, torch {macs}")


def _check_memory(case: _Case, said: Footprint) -> None:
    found = _footprint(case)
    for name, ours, theirs in zip(Footprint._fields, found, said, strict=True):
        _require(ours == theirs, f"the rule's footprint has {name} = {theirs}, measured is {ours}")


def _footprint(case: _Case) -> Footprint:
    """Return the memory of a module as torch allocates it, and as autograd keeps it."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = case.run()
    sources = set(map(_place, case.sources))
    own = {*map(_place, [*case.module.parameters(), *case.module.buffers()]), _place(made)}
    others = sum(size for place, size in kept.items() if place not in own | sources)
    size = made.untyped_storage().nbytes()
    with torch.no_grad():
        temporaries = peak_bytes(case.run) // size - 1
    return Footprint(temporaries, others // size, bool(sources & set(kept)))


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _check_gradients(ran: Callable[[], tuple[Tensor, dict[str, Tensor]]]) -> None:
    """Check what a run of a new draw gives out, and the tensors that a gradient must reach by name."""
    reached: set[str] = set()
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        made, tensors = ran()
        torch.autograd.backward((made * torch.randn_like(made)).sum())
        for name, tensor in tensors.items():
            if tensor.grad is not None and tensor.grad.any():
                reached.add(name)
                _require(bool(tensor.grad.isfinite().all()), f"the gradient of {name} is not finite")
        if reached == tensors.keys():
            return
    missing = next(name for name in tensors if name not in reached)
    raise AssertionError(f"no gradient reaches {missing}")


def _check_evaluation(case: _Case, other: nn.Module) -> None:
    with torch.no_grad():
        made = case.run()
        _require(torch.equal(made, case.run()), "evaluation gives another result when it runs again")
        alone = torch.allclose(case.run(1), made[:1])
        _require(alone, "in evaluation an image depends on the others of its batch")
        other.load_state_dict(copy.deepcopy(case.module.state_dict()))
        loaded = torch.equal(case._replace(module=other).run(), made)
    _require(loaded, "a module with the same state dict computes something else: use parameters and buffers")


# ---- networks ------------------------------------------------------------------------------------------


def _network(scope: str, *, widths: Sequence[int] = (4, 6), **block: Any) -> NetworkSpec:
    """Return a network of two blocks, of odd size."""
    blocks = [{"unit": "conv", "n_layers": 3, "width": width, **block} for width in widths]
    image = {"channels": 2, "height": HEIGHT, "width": WIDTH}
    return NetworkSpec.from_dict({"input": image, "n_classes": 3, "scope": scope, "blocks": blocks})


def _check_network(spec: NetworkSpec) -> None:
    block = spec.blocks[0]
    with _at(f"in a network of scope {spec.scope!r}, {block.topology} x {block.aggregation}, {block.unit}"):
        _check_program(spec)
        _check_cost(spec)
        _check_gradients(lambda: _ran(spec))
        _check_compiled(spec)


def _ran(spec: NetworkSpec) -> tuple[Tensor, dict[str, Tensor]]:
    network = Network(spec).double()
    randomise(network)
    return network(torch.randn(BATCH, 2, HEIGHT, WIDTH).double()), dict(network.named_parameters())


def _check_program(spec: NetworkSpec) -> None:
    program = lower(spec)
    for pipeline in PIPELINES:
        found = optimize(program, pipeline)
        _require(parse(str(found)) == found, f"the program of {pipeline!r} reads back as another")


def _check_cost(spec: NetworkSpec) -> None:
    network, cost, nodes = Network(spec), network_cost(spec), node_costs(spec)
    for (_, target), edge in edge_costs(spec).items():
        nodes[target] = nodes[target] + edge
    for name, node in nodes.items():
        params = sum(parameter.numel() for parameter in network.node(name).parameters())
        _require(node.params == params, f"{name} counts {node.params} parameters and has {params}")
    wider = [2 * width for width in spec.widths]
    found, expected = CostModel(spec).cost(wider), network_cost(spec.with_widths(wider))
    _require(found == expected, "counted with symbols for widths it costs something else: use + and * alone")
    _require(cost.macs < expected.macs and cost.params < expected.params, "a wider block costs no more")


def _check_compiled(spec: NetworkSpec) -> None:
    comparison = Comparison(spec, batch=BATCH, steps=2)
    errors = comparison.errors("fused")
    for what, most in comparison.allowed(errors)._asdict().items():
        error = getattr(errors, what)
        _require(error <= most, f"compiled, its {what} are off by {error:.1e}, more than {most:.0e}")


# ---- asking and telling --------------------------------------------------------------------------------


@contextmanager
def _of(registry: Registry[Any], entry: object) -> Iterator[Ref]:
    """Give the reference of an entry; what is found wrong names it. Random numbers are put back."""
    ref = registry.parse(entry)
    with _at(f"{registry.kind} {ref.label!r}"), torch.random.fork_rng():
        torch.manual_seed(0)
        yield ref


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Put a place in front of what is found wrong, errors of ours included."""
    try:
        yield
    except (AssertionError, ConnsearchError) as error:
        raise AssertionError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from error


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _convolved(run: Any) -> int:
    """Return the multiply-accumulates of the convolutions that something runs, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_flop_counts().get("Global", {}).get(torch.ops.aten.convolution, 0)) // 2
