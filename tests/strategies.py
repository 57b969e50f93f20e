"""What hypothesis draws: graphs and network specifications, small, many and odd-sized.

Names come from the registries, so that whatever is registered is drawn without editing this file;
`PARAMETERS` adds values of parameters other than the defaults.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import networkx as nx
from hypothesis import strategies as st

from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES, ConnectivityGraph, Node
from connsearch.registry import Ref, Registry
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec, resolve
from connsearch.spec.aggregations import aggregation_rule
from connsearch.spec.drops import DROPS
from connsearch.spec.network import InputConfig
from connsearch.spec.ops import ACTIVATIONS, NORMS
from connsearch.spec.presets.dense_prediction import fc_densenet, fc_log_densenet, hypercolumn, unet
from connsearch.spec.presets.fractal import fractal
from connsearch.spec.presets.hardnets import hardnet
from connsearch.spec.presets.logdensenets import log_densenet
from connsearch.spec.presets.mixed import dual_path, mixed_link
from connsearch.spec.presets.multipath import multipath
from connsearch.spec.presets.random_wiring import randomly_wired
from connsearch.spec.presets.residual import post_activation, pre_activation
from connsearch.spec.presets.transformers import transformer

Draw = st.DrawFn

PARAMETERS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "sparse": {"base": st.integers(2, 5)},
    "nearest": {"k": st.integers(0, 4)},
    "random_dag": {"p": st.floats(0, 1), "seed": st.integers(0, 99)},
    "loglog_dense": {"min_inputs": st.integers(1, 5)},
    "depthwise": {"form": st.sampled_from(["normalized", "paper"]), "single": st.booleans()},
    "gated": {"bias": st.floats(-4, 1)},
    "routed": {"hidden": st.integers(1, 5), "single": st.booleans()},
    "weighted": {
        "activation": st.sampled_from(["none", "sigmoid"]),
        "newest": st.floats(-2, 2),
        "single": st.booleans(),
    },
    "stochastic_depth": {"survival": st.sampled_from([0.0, 0.3, 1.0])},
    "swapout": {"survival": st.sampled_from([0.0, 0.3, 1.0])},
    "drop_path": {"rate": st.sampled_from([0.0, 0.5, 1.0]), "global_share": st.sampled_from([0.0, 1.0])},
}
UNIT_PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "kernel": st.sampled_from([1, 3, 5]),
    "expansion": st.integers(1, 3),
    "inner": st.integers(1, 4),
    "groups": st.sampled_from([1, 2, 3]),
    "activation": st.sampled_from([*ACTIVATIONS, "none"]),
    "norm": st.sampled_from(NORMS),
    "order": st.sampled_from(["pre", "post"]),
}


@st.composite
def refs(draw: Draw, registry: Registry[Any], names: list[str] | None = None) -> Ref:
    """Draw an entry of a registry, and some of its parameters."""
    name = draw(st.sampled_from(names or sorted(registry)))
    known = {**(UNIT_PARAMETERS if registry is UNITS else {}), **PARAMETERS.get(name, {})}
    params = {
        key: draw(known[key]) for key in registry.parameters(name) if key in known and draw(st.booleans())
    }
    return registry.ref(name, **params)


def topologies() -> st.SearchStrategy[Ref]:
    """Draw a topology."""
    return refs(TOPOLOGIES)


def aggregations(*, any_channels: bool = False) -> st.SearchStrategy[Ref]:
    """Draw an aggregation; if asked, one that takes sources of unequal channels."""
    names = [n for n in sorted(AGGREGATIONS) if not aggregation_rule(Ref(n)).equal_channels]
    return refs(AGGREGATIONS, names if any_channels else None)


# ---- graphs --------------------------------------------------------------------------------------------


@st.composite
def dags(draw: Draw, max_units: int = 6, *, named: bool = True) -> ConnectivityGraph:
    """Draw one block: a stem, units that read some earlier nodes, a head that reads at least all others."""
    n = draw(st.integers(1, max_units))
    sources: list[tuple[int, ...]] = [()]
    for i in range(1, n + 1):
        sources.append(tuple(sorted(draw(st.sets(st.integers(0, i - 1), min_size=1, max_size=4)))))
    unread = set(range(n + 1)) - set().union(*sources)
    sources.append(tuple(sorted(unread | draw(st.sets(st.integers(0, n), max_size=2)))))
    names = [f"u{i}" for i in range(1, n + 1)]
    if named:
        word = st.from_regex(r"[a-z][a-z0-9_]{0,4}", fullmatch=True)
        names = [f"{draw(word)}_{i}{draw(st.sampled_from(['', '.x', '.y.z']))}" for i in range(1, n + 1)]
    nodes = (Node("stem", "stem"), *map(Node, names), Node("head", "head"))
    return ConnectivityGraph(nodes, tuple(sources))


@st.composite
def block_graphs(draw: Draw) -> ConnectivityGraph:
    """Draw the graph of a network of blocks, each wired by itself or all by one rule."""
    return draw(specs(own_graph=False)).graph()


def graphs() -> st.SearchStrategy[ConnectivityGraph]:
    """Draw any whole network's graph."""
    return st.one_of(dags(), block_graphs())


def relabelled(graph: ConnectivityGraph, seed: int) -> ConnectivityGraph:
    """Return the same network under other names and in another topological order."""
    rng = random.Random(seed)
    order: list[int] = []
    while len(order) < len(graph):
        placed = set(order)
        ready = [i for i in range(len(graph)) if i not in placed and placed.issuperset(graph.sources[i])]
        order.append(rng.choice(ready))
    place = {old: new for new, old in enumerate(order)}
    nodes = [graph.nodes[old] for old in order]
    return ConnectivityGraph(
        tuple(Node(f"n{rng.random()}".replace(".", "_"), n.kind, n.block, n.scale, n.path) for n in nodes),
        tuple(tuple(sorted(place[s] for s in graph.sources[old])) for old in order),
    )


# ---- specifications ------------------------------------------------------------------------------------


@st.composite
def specs(
    draw: Draw,
    *,
    topology: str | None = None,
    aggregation: str | None = None,
    own_graph: bool = True,
    drops: bool = False,
    max_layers: int = 5,
    max_blocks: int = 3,
) -> NetworkSpec:
    """Draw a valid network: every registered topology, aggregation, unit, stem, transition, scope.

    Where channels may differ (a stem of its own width, compression), the block is one that concatenates.

    Args:
        topology: Only this one.
        aggregation: Only this one; then channels never differ, unless it takes that.
        own_graph: Whether the graph may be given instead of drawn from topologies, or a family's.
        drops: Whether training drops edges at random, where a rule finds some.
        max_layers: Most layers in a block.
        max_blocks: Most blocks.
    """
    if own_graph and not topology and not aggregation and draw(st.integers(0, 7)) == 0:
        return draw(families(draw(st.sampled_from(sorted(FAMILIES.keys() - TIED_WIDTHS)))))
    n_blocks = draw(st.integers(1, max_blocks))
    scope = draw(st.sampled_from(["block", "global"]))
    takes_any = aggregation is None or not aggregation_rule(Ref(aggregation)).equal_channels
    compression = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])) if takes_any and draw(st.booleans()) else 0.0
    unequal_stem = takes_any and draw(st.booleans())
    rules = [draw(refs(TOPOLOGIES, [topology] if topology else None)) for _ in range(n_blocks)]
    blocks = []
    for number in range(n_blocks):
        entry_unit = scope == "block" and draw(st.booleans())
        unequal = (compression and (number > 0 or scope == "global")) or (unequal_stem and number == 0)
        joined = aggregations(any_channels=bool(unequal and not entry_unit))
        unit = draw(refs(UNITS))
        if unequal_stem or compression:  # what a unit reads may not divide into groups
            unit = UNITS.ref(unit.name, **{k: v for k, v in unit.params if k != "groups"})
        groups = int(UNITS.bind(unit).get("groups", 1))
        blocks.append(
            {
                "topology": rules[0] if scope == "global" else rules[number],
                "aggregation": AGGREGATIONS.ref(aggregation) if aggregation else draw(joined),
                "unit": unit,
                "n_layers": draw(st.integers(1 + entry_unit, max_layers)),
                "width": groups * draw(st.integers(1, 6 // groups)),
                "entry_unit": entry_unit,
            }
        )
    stem = draw(st.sampled_from(["conv", "conv(kernel=5)", "imagenet", "imagenet(activation=elu)"]))
    transition, carry = draw(transitions()), draw(transitions())
    per_image = any(norm in f"{transition} {carry} {blocks}" for norm in ("layer'", "instance"))
    least = 2 ** (n_blocks - 1 + per_image) * (4 if stem.startswith("imagenet") else 1)
    spec = NetworkSpec(
        name=draw(st.sampled_from(["network", "drawn one"])),
        input={
            "channels": draw(st.integers(1, 3)),
            "height": draw(st.integers(least, least + 6)),
            "width": draw(st.integers(least, least + 6)),
        },
        n_classes=draw(st.integers(1, 7)),
        scope=scope,
        stem=stem,
        stem_ratio=draw(st.integers(1, 3)) if unequal_stem else 0,
        transition=transition,
        carry=carry,
        compression=compression,
        blocks=blocks,
    )
    if own_graph and draw(st.integers(0, 3)) == 0:
        spec = _with_own_graph(draw, spec)
    return dropping(spec, draw(refs(DROPS))) if drops else spec


def dropping(spec: NetworkSpec, drop: Ref) -> NetworkSpec:
    """Return a network whose training drops edges; the network as it is if the rule finds none to drop."""
    dropped = spec.model_copy(update={"drop": drop})
    try:
        resolve(dropped)
    except SpecError:
        return spec
    return dropped


JOINING = ("sum", "mean", "depthwise", "depthwise(form=paper)", "concat", "routed", "weighted", "gated")


@st.composite
def adding(draw: Draw, *, aggregations: Sequence[str] = ("sum", "mean"), max_layers: int = 12) -> NetworkSpec:
    """Draw a network whose layers add, or join in another way of those given, and then normalise.

    As often as not it is deep, and many of its layers add the same.
    """
    unit = st.sampled_from(["conv", "conv(kernel=1)", "basic", "bottleneck", "conv(order=post)"])
    alike = draw(st.booleans())
    same = st.sampled_from(["dense", "dense", "nearest(k=6)", "nearest(k=9)", "random_dag(p=0.8)"])
    blocks = [
        {
            "topology": draw(same if alike else topologies()),
            "aggregation": draw(st.sampled_from(aggregations)),
            "unit": draw(unit),
            "n_layers": draw(st.integers(max_layers - 3 if alike else 1, max_layers)),
            "width": draw(st.integers(1, 3)),
        }
        for _ in range(draw(st.integers(1, 2)))
    ]
    return NetworkSpec(input=InputConfig(height=4, width=6), n_classes=3, blocks=blocks)


@st.composite
def families(draw: Draw, name: str) -> NetworkSpec:
    """Draw a small network of a family that gives its graph, down to one block of one layer.

    Args:
        name: One of `FAMILIES`.
    """
    make, multiple = FAMILIES[name]
    spec = make(draw).replaced(n_classes=draw(st.integers(1, 4)))
    if not multiple:
        return spec
    height, width = (multiple * draw(st.integers(1, max(2, 6 // multiple))) for _ in range(2))
    return spec.replaced(input=InputConfig(height=height, width=width))


def _depths(draw: Draw, *, most: int = 2) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=most)))


def _widths(draw: Draw, depths: Sequence[int], *, multiple: int = 1) -> tuple[int, ...]:
    return tuple(multiple * draw(st.integers(1, 4)) for _ in depths)


def _down_and_up(draw: Draw) -> tuple[int, ...]:
    return tuple(draw(st.integers(1, 2)) for _ in range(draw(st.sampled_from([1, 3]))))


def _any_order(draw: Draw) -> dict[str, Any]:
    names = ["log_dense", "nearest", "evenly_spaced", "loglog_dense", "dense", "chain"]
    return {"pattern": draw(st.sampled_from(names))}


def _paths(draw: Draw, *, base: str) -> NetworkSpec:
    depths = _depths(draw)
    routing, hidden = draw(st.sampled_from(["connection", "prediction"])), draw(st.integers(1, 4))
    n, widths = draw(st.integers(2, 3)), sorted(_widths(draw, depths))
    return multipath(n, base=base, routing=routing, depths=depths, widths=widths, hidden=hidden)


def _columns(draw: Draw) -> NetworkSpec:
    return fractal(draw(st.integers(1, 3)), _widths(draw, _depths(draw)), widen=draw(st.booleans()))


def _stages(draw: Draw) -> NetworkSpec:
    n = draw(st.integers(1, 3))
    stages = [nx.gnp_random_graph(draw(st.integers(1, 5)), 0.5, seed=seed) for seed in range(n)]
    return randomly_wired(stages, width=draw(st.integers(2, 4)), large=draw(st.booleans()))


def _tokens(draw: Draw) -> NetworkSpec:
    dilation, period = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    depth, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return transformer(depth, width, 1, patch=16, dilation=dilation, period=period)


def _residual_v1(draw: Draw, *, shortcut: str) -> NetworkSpec:
    depths, padded = _depths(draw, most=3), shortcut == "zero_pad"
    return post_activation(
        depths,
        sorted(_widths(draw, depths)),
        Ref("post_basic" if padded else "post_bottleneck"),
        widens=not padded,
        shortcut=shortcut,
        activation=draw(st.sampled_from(["relu", "elu", "none"])),
    )


def _residual_v2(draw: Draw) -> NetworkSpec:
    depths = _depths(draw, most=3)
    unit = draw(st.sampled_from(["basic", "bottleneck", "bottleneck(expansion=3, stride_at=first)"]))
    share, activated = draw(st.sampled_from([(1.0, False), (1.0, True), (1 / 3, False)]))
    return pre_activation(
        depths, _widths(draw, depths), UNITS.parse(unit), stem_share=share, activated_stem=activated
    )


def _dual_paths(draw: Draw) -> NetworkSpec:
    depths, groups = _depths(draw), draw(st.integers(1, 2))
    increments = [draw(st.integers(1, 3)) for _ in depths]
    ratios = {"inner": draw(st.integers(1, 2)), "stem_ratio": draw(st.integers(1, 2))}
    spec = dual_path(depths, increments, groups=groups, **ratios)
    return spec.with_widths(_widths(draw, depths, multiple=groups))


def _mixed_links(draw: Draw, *, most: int = 1) -> NetworkSpec:
    inner, outer = draw(st.sampled_from([(1, 2), (2, 2), (2, 3), (5, 4)]))  # inner leaves some channels
    return mixed_link(_depths(draw, most=most), inner, outer, large=draw(st.booleans()))


def _log_dense(draw: Draw) -> NetworkSpec:
    depths, growth = _depths(draw, most=3), draw(st.integers(1, 4))
    version, unit = draw(st.sampled_from(["v1", "v2"])), draw(st.sampled_from(["conv", "dense_bottleneck"]))
    hubs = [1] if version == "v1" and draw(st.booleans()) else []
    return log_densenet(depths, growth, version=version, unit=unit, hubs=hubs, **_any_order(draw))


def _dense_pixels(draw: Draw) -> NetworkSpec:
    topology = draw(st.sampled_from(["dense", "sparse", "chain"]))
    growth, stem = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return fc_densenet(_down_and_up(draw), growth, topology=topology, stem=stem)


def _log_dense_pixels(draw: Draw) -> NetworkSpec:
    depths, growth = _down_and_up(draw), draw(st.integers(1, 4))
    return fc_log_densenet(depths, growth, lean=draw(st.booleans()), **_any_order(draw))


def encoder_decoder(draw: Draw, *, most: int = 5) -> NetworkSpec:
    """Return a small network of layout `encoder_decoder`: any pair and scope, each block on its own."""
    count, scope = draw(st.sampled_from(range(1, most + 1, 2))), draw(st.sampled_from(["block", "global"]))
    units = ["conv", "basic", "dense_bottleneck(inner=2)", "conv(expansion=2, bias=true)"]
    blocks = [
        {
            "topology": draw(topologies()),
            "aggregation": draw(aggregations(any_channels=draw(st.booleans()))),
            "unit": draw(st.sampled_from(units)),
            "n_layers": draw(st.integers(1, 3)),
            "width": draw(st.integers(1, 4)),
        }
        for _ in range(count)
    ]
    step = 1 << (count // 2)
    return NetworkSpec(
        layout="encoder_decoder",
        scope=scope,
        input=InputConfig(height=step * draw(st.integers(1, 2)), width=step * draw(st.integers(1, 3))),
        n_classes=draw(st.integers(1, 4)),
        stem_ratio=draw(st.integers(0, 3)),
        transition=draw(st.sampled_from(["conv", "pool(kind=max)", "pool(norm=instance)"])),
        carry=draw(st.sampled_from(["pool", "conv(kernel=1, norm=none)"])),
        up=draw(st.sampled_from(["deconv", "deconv(norm=batch, activation=relu)", "deconv(kernel=5)"])),
        hubs=draw(st.integers(0, count)) if scope == "global" else 0,
        compression=draw(st.sampled_from([0.0, 0.5, 1.0])),
        blocks=blocks,
    )


def _hourglass(draw: Draw) -> NetworkSpec:
    widths = _widths(draw, range(draw(st.integers(1, 3))))
    return unet(widths) if draw(st.booleans()) else hypercolumn(widths)


def _harmonic(draw: Draw) -> NetworkSpec:
    depths = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=2)))
    growths, outputs = _widths(draw, depths, multiple=2), _widths(draw, depths, multiple=2)
    halved = draw(st.sampled_from([(False, False), (False, True), (True, False)]))
    return hardnet((2, 4), depths, growths, outputs, halved[: len(depths)])


# Each with what its inputs' sides are multiples of: they divide evenly where maps come back to a finer
# scale, and suffice for all halvings elsewhere. 0: the family has an input of its own.
FAMILIES: dict[str, tuple[Callable[[Draw], NetworkSpec], int]] = {
    "plain paths": (partial(_paths, base="plain"), 2),
    "residual paths": (partial(_paths, base="residual"), 2),
    "columns": (_columns, 4),
    "stages": (_stages, 3),
    "tokens": (_tokens, 0),
    "residual v1": (partial(_residual_v1, shortcut="projection"), 3),
    "residual v1, padded": (partial(_residual_v1, shortcut="zero_pad"), 3),
    "residual v2": (_residual_v2, 3),
    "dual paths": (_dual_paths, 5),
    "mixed links": (_mixed_links, 4),
    "mixed links, joined": (partial(_mixed_links, most=2), 8),
    "log-dense": (_log_dense, 4),
    "dense, each pixel": (_dense_pixels, 2),
    "log-dense, each pixel": (_log_dense_pixels, 2),
    "hourglass": (_hourglass, 4),
    "encoder-decoder": (partial(encoder_decoder, most=3), 2),
    "harmonic": (_harmonic, 8),
}
TIED_WIDTHS = {  # a block's width is bounded by the block before, or a step wider may cost the same
    "harmonic",
    "mixed links, joined",
    "residual paths",
    "residual v1, padded",
}


def transitions() -> st.SearchStrategy[str]:
    """Draw the label of a transition or carry."""
    return st.sampled_from(
        ["conv", "conv(kernel=1, norm=none)", "conv(activation=silu)", "pool", "pool(norm=instance)"]
    )


def _with_own_graph(draw: Draw, spec: NetworkSpec) -> NetworkSpec:
    """Return a network whose graph is given: that of the specification, or any graph of one block."""
    graph = spec.graph()
    if len(spec.blocks) == 1 and not spec.stem_ratio:
        graph = draw(dags())
    left_out = {"topology", "n_layers", "entry_unit"}
    blocks = [block.model_dump(exclude=left_out) for block in spec.blocks]
    rest = spec.model_dump(exclude={"schema_version", "own_graph", "blocks", "scope"})
    return NetworkSpec(graph=graph, blocks=blocks, **rest)
