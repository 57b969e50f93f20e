"""Topologies against their formulas, written again, and against published and recounted figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, floor, log2, sqrt

import pytest
from hypothesis import given, strategies as st

from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES, ConnectivityGraph, list_topologies, predecessors, register_topology
from connsearch.registry import Ref
from strategies import topologies

DEPTHS = (12, 36, 96, 156, 246)

# Edges / maximum backpropagation distance at these depths: Log-DenseNet's patterns, recounted.
TABLE = {
    "dense": "78/1 666/1 4656/1 12246/1 30381/1",
    "log_dense": "37/3 159/5 552/6 1001/7 1721/7",
    "sparse": "37/3 159/5 552/6 1001/7 1721/7",
    "nearest": "42/3 201/6 651/14 1220/20 1940/31",
    "evenly_spaced": "42/3 201/6 651/13 1220/19 1940/30",
    "half": "42/4 342/6 2352/7 6162/8 15252/8",
    "every_other": "42/2 342/2 2352/2 6162/2 15252/2",
    "loglog_dense": "42/3 151/4 441/4 734/4 1160/5",
    "loglog_dense(min_inputs=1)": "30/3 99/4 319/4 546/4 870/5",
    "sparse(base=3)": "26/4 108/6 364/8 664/8 1118/10",
    "sparse(base=4)": "21/5 90/7 303/9 543/10 903/11",
    "chain": "12/12 36/36 96/96 156/156 246/246",
}
CASES = [(label, n, f) for label, row in TABLE.items() for n, f in zip(DEPTHS, row.split(), strict=True)]


@pytest.mark.parametrize(("topology", "n_layers", "figures"), CASES)
def test_edges_and_distance_are_the_recounted_ones(topology: str, n_layers: int, figures: str) -> None:
    graph = ConnectivityGraph.from_topology(topology, n_layers=n_layers)
    assert f"{graph.n_edges}/{graph.max_backprop_distance()}" == figures


def test_loglog_dense_at_a_thousand_layers() -> None:
    graph = ConnectivityGraph.from_topology("loglog_dense(min_inputs=1)", n_layers=1000)
    assert (graph.n_edges, graph.max_backprop_distance()) == (4326, 5)


# ---- formulas ------------------------------------------------------------------------------------------


def log_inputs(n_layers: int) -> int:
    return floor(log2(n_layers + 1)) + 1


def harmonic(j: int, n_layers: int) -> set[int]:
    """HarDNet: k - 2^n for every 2^n that divides k; the output reads the last layer and all odd ones."""
    if j == n_layers + 1:
        return {n_layers} | {i for i in range(1, n_layers + 1) if i % 2 == 1}
    return {j - 2**n for n in range(12) if j % 2**n == 0 and j - 2**n >= 0}


FORMULAS: dict[str, Callable[[int, int], set[int]]] = {
    "chain": lambda j, n: {j - 1},
    "dense": lambda j, n: {i for i in range(999) if i < j},
    "log_dense": lambda j, n: {j - 2**k for k in range(floor(log2(j)) + 1)},
    "sparse": lambda j, n: {j - 2**k for k in range(12) if 2**k <= j},
    "nearest": lambda j, n: {i for i in range(j) if j - i <= log_inputs(n)},
    "evenly_spaced": lambda j, n: {j - 1 - floor(t * j / log_inputs(n) + 1e-9) for t in range(log_inputs(n))},
    "half": lambda j, n: {i for i in range(j) if i >= ceil((j - 1) / 2)},
    "every_other": lambda j, n: {i for i in range(j) if (j - i) % 2 == 1},
    "harmonic": harmonic,
}


@pytest.mark.parametrize("topology", sorted(FORMULAS))
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 7, 8, 15, 16, 17, 40])
def test_a_rule_is_its_formula(topology: str, n_layers: int) -> None:
    rule = predecessors(topology, n_layers)
    assert [set(sources) for sources in rule] == [
        FORMULAS[topology](j, n_layers) for j in range(1, n_layers + 2)
    ]


def test_every_rule_has_a_formula_or_a_reason() -> None:
    """random_dag is random; loglog_dense is recursive and stands in the table, at six depths in two forms."""
    assert set(FORMULAS) | {"random_dag", "loglog_dense"} >= set(TOPOLOGIES)


@pytest.mark.parametrize("base", [2, 3, 4, 5])
def test_sparse_reads_powers_of_its_base(base: int) -> None:
    for j, sources in enumerate(predecessors(f"sparse(base={base})", 130), start=1):
        assert set(sources) == {j - base**k for k in range(9) if base**k <= j}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_nearest_reads_k_nodes(k: int) -> None:
    for j, sources in enumerate(predecessors(f"nearest(k={k})", 12), start=1):
        assert sources == tuple(range(max(0, j - k), j))


@pytest.mark.parametrize("min_inputs", [1, 4, 7])
def test_loglog_dense_is_padded_to_min_inputs(min_inputs: int) -> None:
    bare = predecessors("loglog_dense(min_inputs=1)", 50)
    padded = predecessors(f"loglog_dense(min_inputs={min_inputs})", 50)
    for j, (few, sources) in enumerate(zip(bare, padded, strict=True), start=1):
        assert set(few) <= set(sources)
        offsets = {2**k for k in range(6) if 2**k <= j}
        assert {j - s for s in set(sources) - set(few)} <= offsets
        assert len(sources) >= min(min_inputs, len(offsets | {j - s for s in few}))


def test_log_dense_crosses_a_gap_in_as_many_steps_as_it_has_bits() -> None:
    graph = ConnectivityGraph.from_topology("log_dense", n_layers=70)
    steps = [0] * 71  # from layer 70 back to each node, by breadth-first search
    front, seen, distance = {70}, {70}, 0
    while front:
        for node in front:
            steps[node] = distance
        front = {s for node in front for s in graph.sources[node]} - seen
        seen |= front
        distance += 1
    assert steps == [(70 - node).bit_count() for node in range(71)]


@pytest.mark.parametrize("n_layers", [4, 5, 31, 32, 63, 64, 200, 400])
def test_log_dense_stays_within_the_bounds_of_its_paper(n_layers: int) -> None:
    graph = ConnectivityGraph.from_topology("log_dense", n_layers=n_layers)
    assert (
        graph.n_edges == sum(floor(log2(i)) + 1 for i in range(1, n_layers + 1)) <= n_layers * log2(n_layers)
    )
    assert graph.max_backprop_distance() == floor(log2(n_layers + 1)) <= 1 + log2(n_layers)


# ---- what every rule keeps -------------------------------------------------------------------------------


@given(topologies(), st.integers(1, 40))
def test_every_rule_reads_earlier_nodes_in_order_and_makes_a_network(topology: Ref, n_layers: int) -> None:
    rule = predecessors(topology, n_layers)
    assert len(rule) == n_layers + 1
    for j, sources in enumerate(rule, start=1):
        assert list(sources) == sorted(set(sources))
        assert set(sources) <= set(range(j))
        assert j - 1 in sources
    graph = ConnectivityGraph.from_topology(topology, n_layers, head=True)
    assert graph.sources == ((), *rule)


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
def test_every_rule_takes_a_name_a_label_and_a_table(topology: str) -> None:
    expected = predecessors(topology, 9)
    label = Ref(topology, tuple(TOPOLOGIES.parameters(topology).items())).label
    assert predecessors(label, 9) == expected
    assert predecessors({"name": topology, **TOPOLOGIES.parameters(topology)}, 9) == expected


def test_random_dag_follows_its_seed_and_its_probability() -> None:
    def drawn(label: str) -> tuple[tuple[int, ...], ...]:
        return predecessors(label, 60)

    assert drawn("random_dag(p=0.3, seed=5)") == drawn("random_dag(seed=5, p=0.3)")
    assert drawn("random_dag(seed=1)") != drawn("random_dag(seed=2)")
    assert drawn("random_dag(p=0.0)") == drawn("chain")
    assert drawn("random_dag(p=1.0)") == drawn("dense")
    share = sum(len(s) - 1 for s in drawn("random_dag(p=0.3)")) / sum(range(61))
    assert abs(share - 0.3) < 4 * sqrt(0.3 * 0.7 / sum(range(61)))


def test_random_dag_is_the_same_in_every_process() -> None:
    expected = ((0,), (1,), (0, 1, 2), (0, 2, 3), (1, 3, 4), (2, 3, 5), (0, 1, 2, 3, 6))
    assert predecessors("random_dag(p=0.5, seed=7)", 6) == expected


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("densee", r"unknown topology 'densee'\. Did you mean 'dense'\? Known: chain, dense, "),
        ("sparse(base=1)", r"topology 'sparse': base must be at least 2, got 1"),
        ("nearest(k=-1)", r"topology 'nearest': k must be at least 0, got -1"),
        ("random_dag(p=1.01)", r"topology 'random_dag': p must be within 0\.\.1, got 1\.01"),
        ("random_dag(p=-0.01)", r"topology 'random_dag': p must be within 0\.\.1, got -0\.01"),
        ("sparse(bas=3)", r"topology 'sparse' has no parameter 'bas'\. Did you mean 'base'\?"),
        (3, r"a topology is a name or a table with a name, got 3"),
    ],
)
def test_a_wrong_topology_is_named(topology: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        predecessors(topology, 5)


@pytest.mark.parametrize("n_layers", [0, -1])
def test_a_block_has_a_layer(n_layers: int) -> None:
    with pytest.raises(SpecError, match=f"a block needs an integer of at least 1 layers, got {n_layers}"):
        predecessors("dense", n_layers)


# ---- rules of one's own ------------------------------------------------------------------------------------


@pytest.fixture
def forget() -> Iterator[None]:
    """Unregister what a test registers."""
    before = set(TOPOLOGIES)
    yield
    for name in set(TOPOLOGIES) - before:
        TOPOLOGIES.unregister(name)


@pytest.mark.usefixtures("forget")
def test_a_rule_of_one_argument_is_registered_and_used() -> None:
    @register_topology("every_third")
    def every_third(j: int) -> set[int]:
        return {j - 1, *range(0, j, 3)}

    assert predecessors("every_third", 4) == ((0,), (0, 1), (0, 2), (0, 3), (0, 3, 4))
    assert "every_third" in list_topologies()
    assert ConnectivityGraph.from_topology("every_third", 4, head=True).n_edges == 10


@pytest.mark.usefixtures("forget")
def test_a_rule_may_take_depth_and_parameters() -> None:
    @register_topology("ends")
    def ends(j: int, n_layers: int, *, extra: int = 0) -> list[int]:
        return [j - 1, 0] if j == n_layers + extra else [j - 1]

    assert predecessors("ends", 3) == ((0,), (1,), (0, 2), (3,))
    assert predecessors("ends(extra=1)", 3) == ((0,), (1,), (2,), (0, 3))


def test_a_second_rule_of_a_name_is_refused() -> None:
    with pytest.raises(SpecError, match=r"topology 'dense' is registered already: choose another name"):
        register_topology("dense")(lambda j: (j - 1,))


@pytest.mark.usefixtures("forget")
def test_a_rule_registered_again_after_unregister_is_not_mistaken_for_the_old_one() -> None:
    register_topology("again")(lambda j: (j - 1,))
    assert predecessors("again", 2) == ((0,), (1,), (2,))
    TOPOLOGIES.unregister("again")
    register_topology("again")(lambda j: range(j))
    assert predecessors("again", 2) == ((0,), (0, 1), (0, 1, 2))


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda j: (), r"topology 'wrong': node 1 reads nothing: it must read some of 0\.\.0"),
        (lambda j: (j - 1, j), r"topology 'wrong': node 1 reads 1: it must read some of 0\.\.0"),
        (lambda j: (j - 2,), r"topology 'wrong': node 1 reads -1: it must"),
        (lambda j: (j - 1,) if j < 3 else (0, 0.5), r"topology 'wrong': node 3 reads 0\.5: it must"),
        (lambda j: ("a", 0), r"topology 'wrong': node 1 reads 'a': it must"),
        (lambda j: j - 1, r"topology 'wrong': node 1 reads 0: give a set or a list of nodes"),
    ],
    ids=["nothing", "itself", "negative", "fraction", "text", "no set"],
)
def test_a_rule_that_reads_no_earlier_node_is_refused(rule: Callable[[int], object], message: str) -> None:
    register_topology("wrong")(rule)
    with pytest.raises(SpecError, match=message):
        predecessors("wrong", 4)


def test_a_rule_takes_a_node_and_perhaps_the_depth_and_nothing_else() -> None:
    def with_default(j: int, k: int = 3) -> set[int]:
        return {max(0, j - k)}

    def of_nothing() -> set[int]:
        return {0}

    for rule, takes in ((with_default, "j, k=3"), (of_nothing, "nothing")):
        message = rf"^topology 'odd' must take \(j\) or .* by keyword only; it takes {takes}$"
        with pytest.raises(SpecError, match=message):
            register_topology("odd")(rule)
    assert "odd" not in list_topologies()
