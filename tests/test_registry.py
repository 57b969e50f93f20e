"""References and registries: labels, tables, defaults, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES
from connsearch.registry import Ref, Registry
from connsearch.spec import AGGREGATIONS, UNITS, NetworkSpec
from connsearch.spec.chains import HEADS, STEMS, TRANSITIONS
from connsearch.spec.ops import Conv
from strategies import refs

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry for registry in (TOPOLOGIES, AGGREGATIONS, UNITS, STEMS, TRANSITIONS, HEADS)
}
ENTRIES = [(kind, name) for kind, registry in sorted(REGISTRIES.items()) for name in sorted(registry)]


def make() -> Registry[Any]:
    registry: Registry[Any] = Registry("tool")

    @registry.register("saw")
    def saw(
        j: int, *, teeth: int = 24, length: float = 1.5, wood: str = "oak", fine: bool = False
    ) -> None: ...

    @registry.register("axe-2")
    def axe(j: int) -> None: ...

    return registry


# ---- every entry of every registry ---------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_spelling_out_the_defaults_changes_nothing(kind: str, name: str) -> None:
    registry = REGISTRIES[kind]
    bare = registry.parse(name)
    assert bare == Ref(name) == registry.ref(name, **registry.parameters(name))
    assert bare == registry.parse({"name": name, **registry.parameters(name)})
    assert registry.bind(bare) == registry.parameters(name)
    assert (bare.label, bare.to_data()) == (name, name)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_an_unknown_parameter_of_any_entry_is_refused(kind: str, name: str) -> None:
    with pytest.raises(SpecError, match=rf"{kind} '{name}' has no parameter 'nonsense'\. .*Known: "):
        REGISTRIES[kind].ref(name, nonsense=1)


@given(st.sampled_from([TOPOLOGIES, AGGREGATIONS, UNITS]).flatmap(lambda r: st.tuples(st.just(r), refs(r))))
def test_label_and_table_read_back(drawn: tuple[Registry[Any], Ref]) -> None:
    registry, ref = drawn
    assert registry.parse(ref.label) == registry.parse(ref.to_data()) == registry.parse(ref) == ref
    assert str(ref) == ref.label
    assert hash(registry.parse(ref.label)) == hash(ref)


# ---- labels and tables ---------------------------------------------------------------------------------


@given(
    st.integers(-9, 99),
    st.floats(allow_nan=False, allow_infinity=False),
    st.from_regex(r"[\w.-]*", fullmatch=True),
    st.booleans(),
)
def test_every_type_of_parameter_reads_back(teeth: int, length: float, wood: str, fine: bool) -> None:
    tools = make()
    ref = tools.ref("saw", teeth=teeth, length=length, wood=wood, fine=fine)
    assert tools.parse(ref.label) == tools.parse(ref.to_data()) == ref
    assert tools.bind(ref) == {"teeth": teeth, "length": length, "wood": wood, "fine": fine}


@pytest.mark.parametrize(
    ("data", "label"),
    [
        ("saw", "saw"),
        ("saw()", "saw"),
        ("saw(teeth=24)", "saw"),
        ("saw(wood=ash,teeth=3)", "saw(teeth=3, wood=ash)"),
        ("saw( fine=True ,  length=2 )", "saw(fine=true, length=2.0)"),
        ({"name": "saw", "length": 2}, "saw(length=2.0)"),
        ({"name": "axe-2"}, "axe-2"),
        (Ref("saw", (("teeth", 24),)), "saw"),
    ],
)
def test_spellings_of_one_reference(data: object, label: str) -> None:
    assert make().parse(data).label == label


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("sav", r"unknown tool 'sav'\. Did you mean 'saw'\? Known: axe-2, saw\."),
        ("saw(teeth=3", r"unknown tool 'saw\(teeth=3'\. Known: axe-2, saw\."),
        ("", r"unknown tool ''\. Known: axe-2, saw\."),
        (
            "saw(teath=3)",
            r"tool 'saw' has no parameter 'teath'\. Did you mean 'teeth'\? Known: fine, length, ",
        ),
        ("axe-2(x=1)", r"tool 'axe-2' has no parameter 'x'\. Known: none\."),
        ("saw(3)", r"tool 'saw' has no parameter '3'"),
        ("saw(teeth=3.5)", r"tool 'saw': teeth must be int, got '3\.5'"),
        ("saw(teeth=)", r"tool 'saw': teeth must be int, got ''"),
        ("saw(length=long)", r"tool 'saw': length must be float, got 'long'"),
        ("saw(length=nan)", r"tool 'saw': length must be finite, got nan"),
        ("saw(fine=yes)", r"tool 'saw': fine must be bool, got 'yes'"),
        ("saw(name=3)", r"tool 'saw' has no parameter 'name'\. Known: fine, length, teeth, wood\.$"),
        ("saw(self=3)", r"tool 'saw' has no parameter 'self'\. Known: fine, length, teeth, wood\.$"),
        ({"name": "saw", "self": 3}, r"tool 'saw' has no parameter 'self'\. Known: "),
        ({"name": "saw", "length": 10**400}, r"tool 'saw': length must be finite, got inf"),
        ({"name": "saw", "teeth": "3"}, r"tool 'saw': teeth must be int, got '3'"),
        ({"name": "saw", "teeth": True}, r"tool 'saw': teeth must be int, got True"),
        ({"name": "saw", "teeth": 3.0}, r"tool 'saw': teeth must be int, got 3\.0"),
        ({"name": "saw", "fine": 1}, r"tool 'saw': fine must be bool, got 1"),
        ({"name": "saw", "wood": None}, r"tool 'saw': wood must be str, got None"),
        ({"name": "saw", "length": float("inf")}, r"tool 'saw': length must be finite, got inf"),
        ({"teeth": 3}, r"a tool is a name or a table with a name, got \{'teeth': 3\}"),
        ({"name": 3}, r"a tool is a name or a table with a name, got \{'name': 3\}"),
        (None, r"a tool is a name or a table with a name, got None"),
        (Ref("saw", (("teath", 3),)), r"tool 'saw' has no parameter 'teath'"),
    ],
)
def test_a_wrong_reference_is_named(data: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make().parse(data)


# ---- registering -----------------------------------------------------------------------------------------


def test_a_registry_is_a_mapping_by_name() -> None:
    tools = make()
    assert (sorted(tools), len(tools), "saw" in tools, "sav" in tools) == (["axe-2", "saw"], 2, True, False)
    assert tools["saw"].__name__ == "saw"
    assert tools != make()
    assert tools == tools  # a registry is itself, not its content
    tools.unregister("saw")
    assert sorted(tools) == ["axe-2"]


def test_a_name_is_taken_once() -> None:
    tools = make()
    with pytest.raises(SpecError, match=r"tool 'saw' is registered already: choose another name"):
        tools.register("saw")(lambda j: None)


@pytest.mark.parametrize("name", ["", "a b", "a(b)", "a.b"])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(SpecError, match=r"tool name '.*' must be letters, digits, '_' and '-' only"):
        make().register(name)(lambda j: None)


def test_a_parameter_needs_a_plain_default() -> None:
    def without(j: int, *, size: int) -> None: ...

    def with_list(j: int, *, size: list[int] = []) -> None: ...  # noqa: B006  # it must be refused

    for rule in (without, with_list):
        tools = make()
        with pytest.raises(SpecError, match=r"with.*: parameter 'size' needs a plain default value"):
            tools.register("new")(rule)
        assert "new" not in tools


def test_a_parameter_is_given_once() -> None:
    with pytest.raises(SpecError, match=r"topology 'sparse\(base=3, base=4\)': 'base' is given twice"):
        TOPOLOGIES.parse("sparse(base=3, base=4)")


def test_an_entry_that_is_registered_anew_is_counted_anew() -> None:
    def params() -> int:
        return network_cost(NetworkSpec(blocks=[{"unit": "anew", "n_layers": 1, "width": 4}])).params

    found = []
    for kernel in (3, 1):
        UNITS.register("anew")(lambda c_in, width, kernel=kernel: (Conv(c_in, width, kernel),))
        found.append(params())
        UNITS.unregister("anew")
    assert found[0] - found[1] == (9 - 1) * 4 * 4
