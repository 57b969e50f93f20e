"""FractalNets, randomly wired networks and transformers as specifications: graphs, counts, refusals."""

from __future__ import annotations

import networkx as nx
import pytest

from connsearch.cost import network_cost, node_costs
from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.presets import preset
from connsearch.spec.presets.fractal import fractal, fractal_graph
from connsearch.spec.presets.random_wiring import randomly_wired, wired_graph
from connsearch.spec.presets.transformers import transformer, transformer_graph

# ---- FractalNet ------------------------------------------------------------------------------------------


def deepest(n_columns: int, n_blocks: int = 1) -> int:
    """Return the number of convolutions on the longest way through."""
    graph = fractal_graph(n_blocks, n_columns).to_networkx()
    units = {name for name, data in graph.nodes(data=True) if data["kind"] == "unit"}
    longest = dict.fromkeys(graph, 0)
    for name in nx.topological_sort(graph):
        before = [longest[p] for p in graph.predecessors(name)]
        longest[name] = max(before, default=0) + (name in units)
    return longest["head"]


@pytest.mark.parametrize("n_columns", [1, 2, 3, 4, 5])
def test_a_fractal_block_has_columns_of_doubling_depth(n_columns: int) -> None:
    """2^(C-1) convolutions deep, 2^C - 1 in all, column c has 2^c of them."""
    graph = fractal_graph(1, n_columns)
    columns = [node.path for node in graph.nodes if node.kind == "unit"]
    assert [columns.count(c) for c in range(n_columns)] == [2**c for c in range(n_columns)]
    assert deepest(n_columns) == 2 ** (n_columns - 1)
    assert deepest(n_columns, 5) == 5 * 2 ** (n_columns - 1)


@pytest.mark.parametrize("n_columns", [2, 3, 4])
def test_joins_are_those_of_the_expansion_rule(n_columns: int) -> None:
    """f_{C+1}(z) = join of f_C(f_C(z)) and conv(z): the joins of f_C twice, the last with one more branch."""

    def joins(c: int) -> list[int]:
        """How many branches meet at each join, in order; a single convolution has none."""
        if c == 1:
            return []
        inner = joins(c - 1)
        last = inner[-1] + 1 if inner else 2
        return [*inner, *inner[:-1], last]

    graph = fractal_graph(1, n_columns)
    degrees = [
        n for node, n in zip(graph.nodes, graph.in_degrees().values(), strict=True) if node.kind == "join"
    ]
    assert degrees == joins(n_columns)


def test_branches_that_meet_are_of_different_columns() -> None:
    """So that dropping all but one column keeps one branch, or all, of each join."""
    graph = fractal_graph(2, 4)
    for node, sources in zip(graph.nodes, graph.sources, strict=True):
        paths = [graph.nodes[source].path for source in sources]
        assert len(set(paths)) == len(paths)
        if node.kind == "join":
            assert all(graph.nodes[s].kind in ("unit", "carry") for s in sources)


def test_a_join_stands_in_the_deepest_column_that_it_joins() -> None:
    """The last one, of which every other column is a shortcut; none is read by a join itself."""
    graph = fractal_graph(2, 4)
    for node, sources in zip(graph.nodes, graph.sources, strict=True):
        if node.kind == "join":
            assert node.path == max(graph.nodes[source].path for source in sources) == 3


def test_fractalnet_20_counts_what_the_authors_generator_does() -> None:
    """33.7 M, as others found too; the paper prints 38.6 M."""
    widths = (64, 128, 256, 512, 512)
    inputs = (3, *widths[:-1])
    convolutions = sum(9 * (3 * i * w + 4 * w * w) for i, w in zip(inputs, widths, strict=True))
    norms = sum(7 * 2 * w for w in widths)
    cost = network_cost(preset("fractalnet-20"))
    assert cost.params == convolutions + norms + 512 * 10 + 10 == 33_724_618
    assert cost.n_layers == 5 * 7
    assert deepest(3, 5) == 20
    assert deepest(4, 5) == 40


def test_convolutions_that_widen_beforehand_would_count_what_is_printed() -> None:
    """All 3x3 convolutions w -> w and a 1x1 before each block that is wider than what it reads: 38.6 M."""
    widths = (64, 128, 256, 512, 512)
    widening = [(i, w) for i, w in zip((3, *widths[:-1]), widths, strict=True) if i != w]
    params = sum(9 * 7 * w * w + 7 * 2 * w for w in widths) + sum(i * w + 2 * w for i, w in widening)
    cost = network_cost(preset("fractalnet-20-widened"))
    assert cost.params == params + 512 * 10 + 10 == 38_649_034
    assert cost.n_layers == 5 * 7


def test_the_first_convolutions_read_the_image() -> None:
    spec = fractal(3, (4, 5), input={"height": 8, "width": 8})
    plans = {p.node.name: p for p in resolve(spec).nodes}
    assert plans["stem"].chain == ()
    assert {plans[f"block1.column{c}.conv1"].in_shape.channels for c in range(3)} == {3}
    assert preset("fractalnet-20-drop-path").drop == Ref("drop_path")


@pytest.mark.parametrize(("n_columns", "widths"), [(0, (4,)), (2, ())])
def test_a_fractal_network_needs_a_column_and_a_block(n_columns: int, widths: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=rf"need one column and one block at least, got {n_columns} and"):
        fractal(n_columns, widths)


# ---- randomly wired --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_stage_is_its_graph_oriented_by_node_order(seed: int) -> None:
    stage = nx.gnp_random_graph(9, 0.3, seed=seed)
    graph = wired_graph([stage]).to_networkx()
    inner = {(int(a.split("node")[1]) - 1, int(b.split("node")[1]) - 1) for a, b in graph.edges
             if "node" in a and "node" in b}  # fmt: skip
    assert inner == {(min(edge), max(edge)) for edge in stage.edges}
    entries = {name for name in graph if list(graph.predecessors(name)) == ["stem"]}
    assert entries == {f"stage1.node{v + 1}" for v in stage if not any(u < v for u in stage[v])}
    sinks = {f"stage1.node{v + 1}" for v in stage if not any(u > v for u in stage[v])}
    last = set(graph.predecessors("head"))
    assert last == sinks or (
        last == {"stage1.average"} and set(graph.predecessors("stage1.average")) == sinks
    )


def test_a_directed_graph_keeps_its_directions() -> None:
    stage = nx.DiGraph([("z", "a"), ("z", "m"), ("m", "a")])
    stage.add_node("early")
    spec = randomly_wired(nx.relabel_nodes(stage, {"early": "b"}), width=4)
    edges = {(s, t) for s, t in spec.graph().to_networkx().edges if "node" in s and "node" in t}
    assert edges == {("stage1.node1", "stage1.node2"), ("stage1.node1", "stage1.node3"),
                     ("stage1.node2", "stage1.node3")}  # fmt: skip


def test_every_edge_has_a_weight() -> None:
    """As in the code: one scalar for each in-edge, for input nodes too."""
    stages = [nx.watts_strogatz_graph(6, 4, 0.75, seed=seed) for seed in (1, 2)]
    spec = randomly_wired(stages, width=4, input={"height": 8, "width": 8})
    plans = resolve(spec).nodes
    weighted = [
        len(p.sources) for p in plans if p.aggregation is not None and p.aggregation.name == "weighted"
    ]
    entries = sum(p.node.part == "entry" for p in plans)
    assert sum(weighted) == sum(map(nx.number_of_edges, stages)) + entries
    inside = {p.node.name: p for p in plans if p.node.kind == "unit"}
    for name, cost in node_costs(spec).items():
        if name in inside:
            read, width = inside[name].in_shape.channels, inside[name].out_shape.channels
            assert cost.params == 9 * read + read * width + 2 * width


@pytest.mark.parametrize(("name", "edges"), [("ws", 64), ("er", 99), ("ba", 135)])
def test_the_small_regime(name: str, edges: int) -> None:
    """Three stages of 32 nodes; the paper's models of this size have 5.6 M parameters, recalled."""
    spec = preset(f"randwire-{name}-small")
    assert [block.width for block in spec.blocks] == [78, 156, 312, 1280]
    assert [*resolve(spec).sizes().values()] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]
    cost = network_cost(spec)
    assert cost.n_layers == 3 * 32 + 2
    assert cost.params == pytest.approx(5.6e6, rel=0.06)
    assert cost.macs == pytest.approx(583e6, rel=0.07)
    nodes = [n for n in spec.graph().nodes if n.name.startswith("stage1.node")]
    inner = [p for p in resolve(spec).nodes if p.node in nodes and p.node.part != "entry"]
    assert sum(len(p.sources) for p in inner) == pytest.approx(edges, abs=12)


@pytest.mark.parametrize(
    ("graphs", "message"),
    [
        ([], r"graphs: a network needs one stage at least"),
        ([nx.path_graph(3), nx.Graph()], r"graphs\[1\]: it has no nodes"),
        (nx.DiGraph([(1, 2), (2, 1)]), r"graphs\[0\]: it has a cycle: give an undirected graph, or remove"),
        (nx.Graph([(1, 1), (1, 2)]), r"graphs\[0\]: node 1 is joined to itself"),
    ],
)
def test_graphs_that_are_no_stages_are_refused(graphs: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        randomly_wired(graphs)


# ---- transformers ----------------------------------------------------------------------------------------


def test_a_transformer_has_twelve_squares_of_its_width_in_each_block() -> None:
    """3 w w + w w for attention, 4 w w twice for the perceptron, biases and norms."""
    width, depth, tokens = 96, 6, 64
    block = 12 * width * width + (3 + 1 + 4 + 1) * width + 2 * 2 * width
    patches = 4 * 4 * 3 * width + width + tokens * width
    cost = network_cost(preset("transformer-small"))
    assert cost.params == depth * block + patches + 2 * width + 10 * width + 10
    products = depth * (12 * width * width * tokens + 2 * tokens * tokens * width)
    assert cost.macs == products + 4 * 4 * 3 * width * tokens + 10 * width
    assert cost.n_layers == 2 * depth


@pytest.mark.parametrize("depth", [1, 4, 7])
@pytest.mark.parametrize("dilation", [1, 2, 3, 9])
@pytest.mark.parametrize("period", [1, 2, 5])
def test_averages_read_what_the_authors_code_does(depth: int, dilation: int, period: int) -> None:
    """(i + 1 + d) // d weights after block i from 0, where p divides i + 1: outputs j = i + 1 (mod d)."""
    graph = transformer_graph(depth, dilation=dilation, period=period).to_networkx()
    averages = [name for name in graph if name.endswith("average")]
    assert averages == [f"block{i + 1}.average" for i in range(depth) if (i + 1) % period == 0]
    for name in averages:
        i = int(name.removeprefix("block").split(".")[0]) - 1
        outputs = ["stem", *(f"block{j}.output" for j in range(1, depth + 1))]
        expected = [o for j, o in enumerate(outputs[: i + 2]) if j % dilation == (i + 1) % dilation]
        assert list(graph.predecessors(name)) == expected
        assert len(expected) == (i + 1 + dilation) // dilation


@pytest.mark.parametrize(
    ("name", "weights"), [("denseformer-small", 2 + 3 + 4 + 5 + 6 + 7), ("denseformer-small-2x2", 2 + 3 + 4)]
)
def test_depth_weighted_averages_add_their_scalars_only(name: str, weights: int) -> None:
    plain, dense = network_cost(preset("transformer-small")), network_cost(preset(name))
    assert dense.params - plain.params == weights
    assert dense.aggregation_macs == weights * 96 * 64
    assert dense.flops() == plain.flops()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 0}, r"need depth >= 1, period >= 1 and dilation >= 0, got 0, 1 and 0"),
        ({"period": 0}, r"got 2, 0 and 0"),
        ({"dilation": -1}, r"got 2, 1 and -1"),
        ({"patch": 5}, r"patch must divide 32, got 5"),
        ({"heads": 3}, r"blocks\[0\]\.unit: 8 channels do not divide into 3 heads: change width or heads"),
        ({"heads": 0}, r"heads must be at least 1, got 0"),
        ({"input": {"height": 16}}, r"stem: 'patches' has positions for 8x8 pixels, but 4x8 are left"),
    ],
)
def test_transformers_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(transformer(**{"depth": 2, "width": 8, "heads": 2} | values))


def test_attention_and_perceptron_are_units_like_any_other() -> None:
    """The aggregations do not know what they aggregate for: a transformer's halves in a dense block."""
    spec = NetworkSpec(
        blocks=[
            {"topology": "dense", "aggregation": "depthwise", "unit": unit, "n_layers": 3, "width": 6}
            for unit in ("attention(heads=2)", "mlp(inner=2)")
        ],
        input={"height": 6, "width": 4},
    )
    assert network_cost(spec).n_layers == 6
