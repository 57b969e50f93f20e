"""Programs as text: what is written reads back as the same program."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from programs import dropping_network, network, small_presets

from connsearch.errors import SpecError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.ir import PIPELINES, Op, Program, Step, lower, optimize, parse, verify
from connsearch.ir.program import Scale
from connsearch.spec import NetworkSpec
from connsearch.spec.ops import Act, Shape


@settings(max_examples=40)
@given(dropping_network())
def test_any_program_reads_back(spec: NetworkSpec) -> None:
    program = verify(lower(spec))
    assert parse(str(program)) == program
    for pipeline in PIPELINES:
        found = optimize(program, pipeline)
        assert parse(str(found)) == found


def test_presets_read_back() -> None:
    for program in small_presets():
        found = optimize(program)
        assert parse(str(program)) == program
        assert parse(str(found)) == found


@pytest.mark.parametrize(
    "name", ["a b", "a.b", "a | b", "x @y <- %1", 'a "b"', "é", "line\nbreak", ": ", " columns=2", ""]
)
def test_any_name_reads_back(name: str) -> None:
    op = Op((Step(Act("relu"), name), Step(Scale(1 / 3))), (0,), Shape(1, 2, 3))
    program = Program(name, Shape(1, 2, 3), (op, op), ((name, 1), ("b", 2)), n_columns=3)
    assert parse(str(program)) == program


def test_names_of_nodes_survive() -> None:
    nodes = (Node("stem", "stem"), Node("unit 1.a | b"), Node("my head", "head"))
    block = {"width": 4, "aggregation": "depthwise"}
    graph = ConnectivityGraph(nodes, ((), (0,), (0, 1)))
    spec = network("dense", "sum").model_dump(exclude={"blocks", "schema_version", "own_graph", "scope"})
    program = lower(NetworkSpec(**{**spec, "graph": graph, "blocks": [block]}))
    assert '@"unit 1.a | b.conv1"' in str(program)
    for pipeline in PIPELINES:
        found = optimize(program, pipeline)
        assert parse(str(found)) == found


HEAD = "program p: 1x2x2"
HEAD_AND_TAIL = "no program: it has a first line, operations and a last line"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", HEAD_AND_TAIL, id="nothing"),
        pytest.param(HEAD, HEAD_AND_TAIL, id="one line"),
        pytest.param("program p: 1x2\nreturn h %0", "no program: Shape.__new__() missing", id="shape"),
        pytest.param(f"{HEAD}\nreturn h %x", "no program: invalid literal", id="output"),
        pytest.param("%2: 1x2x2 = act('relu') <- %0", "is no operation %1", id="number"),
        pytest.param("%1: 1x2x2 = act('relu')", "is no operation %1", id="no reads"),
        pytest.param("%1: 1x2x2 = acts('relu') <- %0", "\"acts('relu')\" is no step", id="sort"),
        pytest.param("%1: 1x2x2 = act(relu) <- %0", "no program: malformed node", id="value"),
        pytest.param("%1: 1x2x2 = act('relu', 1, 2) <- %0", "no program: Act", id="arguments"),
        pytest.param("%1: 1x2x2 = aggregate.sums <- %0 %0", "unknown aggregation 'sums'", id="rule"),
        pytest.param("%1: 1x2x2 = aggregate.sum{element} <- %0 %0", "no program: list index", id="drop"),
        pytest.param("%1: 1x2x2 = act('relu') @ <- %0", "begins with no name", id="name"),
    ],
)
def test_what_is_no_program_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse(text if not text.startswith("%") else f"{HEAD}\n{text}\nreturn h %1")
