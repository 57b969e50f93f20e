"""Configuration values: files in and out, and messages that name the file, the place and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from connsearch.config import Config, read_toml
from connsearch.errors import SpecError


class Wheel(Config):
    size: int = Field(3, ge=1)
    load: float = 1.0
    spare: bool = False


class Cart(Config):
    kind: str = Field("plain", alias="type")
    wheels: tuple[Wheel, ...] = ()
    best: Wheel = Wheel()
    count: int = 0
    weight: float | None = None
    stops: tuple[Annotated[float, Field(gt=0)], ...] = ()
    version: Literal[1] = 1


class Needy(Config):
    needed: int


def message(data: object, model: type[Config] = Cart, source: str = "") -> str:
    with pytest.raises(SpecError, match=r".") as caught:
        model.from_dict(data, source=source)
    return str(caught.value)


# ---- messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"cout": 1},
         "cout: unknown key. Did you mean 'count'? "
         "Known: best, count, stops, type, version, weight, wheels."),
        ({"self": 1}, "self: unknown key. Known: best, count, stops, type, version, weight, wheels."),
        ({"best": {"self": 1}}, "best.self: unknown key. Known: load, size, spare."),
        ({"stops": [0.5, "0.7"]}, "stops[1]: must be a number, got '0.7'"),
        ({"stops": [True]}, "stops[0]: must be a number, got True"),
        ({"stops": [0.5, 0]}, "stops[1]: should be greater than 0, got 0"),
        ({"weight": "1"}, "weight: must be a number, got '1'"),
        ({"version": True}, "version: should be 1, got True"),
        ({"version": 1.0}, "version: should be 1, got 1.0"),
        ({"version": 2}, "version: should be 1, got 2"),
        (
            {"wheels": [{}, {"sise": 1}]},
            "wheels[1].sise: unknown key. Did you mean 'size'? Known: load, size, spare.",
        ),
        ({"best": {"zzz": 1}}, "best.zzz: unknown key. Known: load, size, spare."),
        ({"count": "1"}, "count: must be an integer, got '1'"),
        ({"count": 1.0}, "count: must be an integer, got 1.0"),
        ({"count": True}, "count: must be an integer, got True"),
        ({"count": None}, "count: must be an integer, got None"),
        ({"best": {"load": "1"}}, "best.load: must be a number, got '1'"),
        ({"best": {"load": False}}, "best.load: must be a number, got False"),
        ({"best": {"spare": 1}}, "best.spare: must be true or false, got 1"),
        ({"best": {"spare": "yes"}}, "best.spare: must be true or false, got 'yes'"),
        ({"wheels": [{"size": 0}]}, "wheels[0].size: should be greater than or equal to 1, got 0"),
        ({"best": {"load": float("nan")}}, "best.load: should be a finite number, got nan"),
        ({"wheels": 3}, "wheels: must be an array, got 3"),
        ({"wheels": list("abcdef")}, "wheels[0]: must be a table, got 'a' (and 5 more)"),
        ({"best": [{"size": 3, "load": 2.5}] * 9},
         "best: must be a table, got [{'load': 2.5, 'size': 3}, {'load': 2.5, 'size': 3}, "
         "{'load': 2.5, 'size': 3}, ...]"),
        ({"count": "12" * 500}, f"count: must be an integer, got '{'12' * 13}1...{'12' * 14}'"),
        ({"type": 3}, "type: should be a valid string, got 3"),
        ({"count": "1", "cout": 2}, "count: must be an integer, got '1' (and 1 more)"),
        (3, "a table is expected, got 3"),
        (None, "a table is expected, got None"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(data: object, expected: str) -> None:
    assert message(data) == expected
    named = message(data, source="a/cart.toml")
    assert named == f"a/cart.toml: {expected}"
    assert "\n" not in named


def test_a_missing_key_is_named() -> None:
    assert message({}, Needy, "needy.toml") == "needy.toml: needed: is missing"


def test_a_call_says_the_same_without_a_file() -> None:
    with pytest.raises(SpecError, match=r"^count: must be an integer, got '1'$"):
        Cart(count="1")


def test_an_integer_is_a_number_but_not_the_reverse() -> None:
    assert Wheel(load=2).load == 2.0
    assert isinstance(Wheel(load=2).load, float)


def test_integers_among_numbers_become_numbers() -> None:
    assert [type(stop) for stop in Cart(stops=[1, 0.5]).stops] == [float, float]


def test_values_are_frozen_and_hashable() -> None:
    cart = Cart(wheels=({"size": 2},), type="big")
    with pytest.raises(ValidationError, match="frozen"):
        cart.count = 3
    assert {cart: 1}[Cart(wheels=(Wheel(size=2),), kind="big")] == 1


# ---- files -----------------------------------------------------------------------------------------------


def test_toml_json_and_plain_data_read_back(tmp_path: Path) -> None:
    cart = Cart(type="big", wheels=({"size": 2, "spare": True}, {}), best={"load": 0.1}, count=4, weight=2)
    path = tmp_path / "cart.toml"
    path.write_text(cart.to_toml(), encoding="utf-8")
    assert Cart.from_toml(path) == Cart.from_toml(str(path)) == cart
    assert Cart.from_json(cart.to_json()) == Cart.from_dict(cart.to_dict()) == cart
    assert "\n" not in cart.to_json()


def test_defaults_are_not_written() -> None:
    assert Cart(count=0, best={"size": 3}).to_dict() == {}
    assert Cart(type="big").to_toml() == 'type = "big"\n'


@pytest.fixture
def read_fails(tmp_path: Path) -> Any:
    def run(path: Path) -> str:
        with pytest.raises(SpecError, match=r".") as caught:
            Cart.from_toml(path)
        return str(caught.value)

    return run


def test_a_file_that_is_not_there(tmp_path: Path, read_fails: Any) -> None:
    assert read_fails(tmp_path / "no.toml") == f"{tmp_path}/no.toml: no such file"


def test_a_directory_in_place_of_a_file(tmp_path: Path, read_fails: Any) -> None:
    assert read_fails(tmp_path) == f"{tmp_path}: cannot be read: [Errno 21] Is a directory: '{tmp_path}'"


def test_a_file_that_is_no_toml(tmp_path: Path, read_fails: Any) -> None:
    (tmp_path / "bad.toml").write_text("count = \n", encoding="utf-8")
    said = read_fails(tmp_path / "bad.toml")
    assert said.startswith(f"{tmp_path}/bad.toml: is no TOML: ")
    assert "line 1" in said
    assert "\n" not in said


def test_a_file_that_is_no_text(tmp_path: Path, read_fails: Any) -> None:
    (tmp_path / "bad.toml").write_bytes(b"count = \xff")
    assert read_fails(tmp_path / "bad.toml").startswith(f"{tmp_path}/bad.toml: cannot be read: 'utf-8' codec")


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, read_fails: Any) -> None:
    (tmp_path / "bad.toml").write_text("[[wheels]]\nsize = 1.5\n", encoding="utf-8")
    assert (
        read_fails(tmp_path / "bad.toml")
        == f"{tmp_path}/bad.toml: wheels[0].size: must be an integer, got 1.5"
    )


def test_text_that_is_no_json() -> None:
    with pytest.raises(SpecError, match=r"^this is no JSON: Expecting value: line 1 column 1 \(char 0\)$"):
        Cart.from_json("")


def test_read_toml_gives_the_tables(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("x = 1\n[y]\nz = true\n", encoding="utf-8")
    assert read_toml(tmp_path / "a.toml") == {"x": 1, "y": {"z": True}}
