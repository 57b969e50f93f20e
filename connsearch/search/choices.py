"""Choices: how a file says "this one", "any of these" or "between these".

A bare value is fixed; a table `{ any_of = [...] }` is a choice among values; a table
`{ low, high, step, log }` is a range, both ends included. Where a network goes down in resolution and up
again, a table `{ down, up }` holds a choice for each of the two ways.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref, Registry

Value = bool | int | float | str


@dataclass(frozen=True)
class Fixed:
    """One value; nothing to search."""

    value: Any


@dataclass(frozen=True)
class AnyOf:
    """One of at least two different values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(self.values)) < len(self.values):
            raise SpecError(f"any_of needs at least two different values, got {_words(self.values)}")


@dataclass(frozen=True)
class IntRange:
    """Integers low, low + step, ..., at most high."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or self.step < 1 or (self.log and (self.low < 1 or self.step > 1)):
            raise SpecError(
                f"a range needs low <= high, step >= 1 and, if log, low >= 1 without step; got {self}"
            )


@dataclass(frozen=True)
class FloatRange:
    """Numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if (
            not self.low <= self.high
            or (self.log and self.low <= 0)
            or not math.isfinite(self.high - self.low)
        ):
            raise SpecError(f"a range needs low <= high and, if log, low > 0; got {self}")


Choice = Fixed | AnyOf | IntRange | FloatRange


@dataclass(frozen=True)
class Ways:
    """A choice for blocks on the way down, the lowest included, and one for those on the way up."""

    down: Choice
    up: Choice


def of_way(choice: Choice | Ways, way: str) -> Choice:
    """Return the choice for blocks on a way: "down", "up", or "" where there is one way only."""
    if not isinstance(choice, Ways):
        return choice
    return choice.up if way == "up" else choice.down


def values(choice: Choice | Ways) -> list[Any]:
    """Return the ends of a range, or all values of another choice: what bounds are found from."""
    if isinstance(choice, Ways):
        return list(dict.fromkeys([*values(choice.down), *values(choice.up)]))
    if isinstance(choice, Fixed):
        return [choice.value]
    if isinstance(choice, AnyOf):
        return list(choice.values)
    if isinstance(choice, IntRange):
        return [choice.low, choice.low + (choice.high - choice.low) // choice.step * choice.step]
    return [choice.low, choice.high]


def middle(choice: Choice | Ways) -> Any:
    """Return the fixed value, the middle one of several, or the middle of a range, on its grid.

    Raises:
        SpecError: if the ways down and up have different ones.

    >>> middle(IntRange(2, 10)), middle(IntRange(2, 10, step=4)), middle(AnyOf((8, 2, 4)))
    (6, 6, 4)
    >>> middle(FloatRange(1.0, 2.5)), middle(FloatRange(1.0, 4.0, log=True))
    (1.75, 2.0)
    """
    if isinstance(choice, Ways):
        down, up = middle(choice.down), middle(choice.up)
        if down != up:
            raise SpecError(f"the middle is {down} on the way down and {up} on the way up: name one value")
        return down
    if isinstance(choice, Fixed):
        return choice.value
    if isinstance(choice, AnyOf):
        return sorted(choice.values)[len(choice.values) // 2]
    exact = math.sqrt(choice.low * choice.high) if choice.log else (choice.low + choice.high) / 2
    if isinstance(choice, FloatRange):
        return exact
    return choice.low + choice.step * int((exact - choice.low) / choice.step + 0.5)


def draw(choice: Choice, rng: random.Random) -> Any:
    """Return one value: uniform, or uniform in the logarithm."""
    if isinstance(choice, Fixed):
        return choice.value
    if isinstance(choice, AnyOf):
        return rng.choice(choice.values)
    if choice.log:
        drawn = math.exp(rng.uniform(math.log(choice.low), math.log(choice.high)))
        inside = min(max(drawn, choice.low), choice.high)
        return round(inside) if isinstance(choice, IntRange) else inside
    if isinstance(choice, IntRange):
        return rng.randrange(choice.low, choice.high + 1, choice.step)
    return rng.uniform(choice.low, choice.high)


def _words(items: Sequence[Any]) -> str:
    return ", ".join(str(item) for item in items) or "none"


# ---- reading and writing ---------------------------------------------------------------------------

_SPAN = ("low", "high")
_WHOLE_SPAN = (*_SPAN, "step")


def _read(data: object, item: Callable[[object], Any], number: type | None) -> Choice:
    if isinstance(data, Fixed | AnyOf | IntRange | FloatRange):
        return data
    if isinstance(data, Mapping) and "any_of" in data:
        _only(data, ["any_of"])
        if not isinstance(data["any_of"], list | tuple):
            raise SpecError(f"any_of must be a list, got {data['any_of']!r}")
        return AnyOf(tuple(item(value) for value in data["any_of"]))
    if number is not None and isinstance(data, Mapping):
        keys = _WHOLE_SPAN if number is int else _SPAN
        _only(data, ["any_of", *keys, "log"])
        missing = [key for key in _SPAN if key not in data]
        if missing:
            raise SpecError(f"a range needs low and high, {missing[0]} is missing")
        ends = {key: item(data[key]) for key in keys if key in data}
        log = data.get("log", False)
        if not isinstance(log, bool):
            raise SpecError(f"log must be true or false, got {log!r}")
        return IntRange(**ends, log=log) if number is int else FloatRange(**ends, log=log)
    return Fixed(item(data))


def _read_ways(data: object, read: Callable[[object], Choice]) -> Choice | Ways:
    """Return a choice, or one for each way if a table names one of them."""
    if isinstance(data, Ways) or not isinstance(data, Mapping) or not {"down", "up"} & set(data):
        return data if isinstance(data, Ways) else read(data)
    _only(data, ["down", "up"])
    found = {}
    for way in ("down", "up"):
        if way not in data:
            raise SpecError(f"down and up are needed, {way} is missing")
        try:
            found[way] = read(data[way])
        except SpecError as error:
            raise SpecError(error.detail, place=f"{way}.{error.place}" if error.place else way) from None
    return Ways(**found)


def _only(data: Mapping[str, object], known: Sequence[str]) -> None:
    for key in data:
        if key not in known:
            raise SpecError(f"unknown key {key!r}. {did_you_mean(str(key), known)}")


def _write(choice: Choice | Ways) -> Any:
    if isinstance(choice, Ways):
        return {"down": _write(choice.down), "up": _write(choice.up)}
    if isinstance(choice, Fixed):
        return _plain(choice.value)
    if isinstance(choice, AnyOf):
        return {"any_of": [_plain(value) for value in choice.values]}
    table: dict[str, Any] = {"low": choice.low, "high": choice.high}
    if isinstance(choice, IntRange) and choice.step != 1:
        table["step"] = choice.step
    return table | ({"log": True} if choice.log else {})


def _plain(value: Any) -> Any:
    return value.to_data() if isinstance(value, Ref) else value


def _any_of_schema(item: dict[str, Any]) -> dict[str, Any]:
    listed = {"type": "array", "items": item, "minItems": 2, "uniqueItems": True}
    return _table_schema({"any_of": listed}, ["any_of"])


def _span_schema(item: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return _table_schema(dict.fromkeys(keys, item) | {"log": {"type": "boolean"}}, ["low", "high"])


def _table_schema(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _field(
    item: Callable[[object], Any], number: type | None, schema: dict[str, Any], *, ways: bool = False
) -> Any:
    keys = {int: _WHOLE_SPAN, float: _SPAN}
    options = [schema, _any_of_schema(schema), *([_span_schema(schema, keys[number])] if number else [])]
    if ways:
        each = {"anyOf": list(options)}
        options.append(_table_schema({"down": each, "up": each}, ["down", "up"]))

    def read(data: object) -> Choice:
        return _read(data, item, number)

    return Annotated[
        Any,
        PlainValidator((lambda data: _read_ways(data, read)) if ways else read),
        PlainSerializer(_write),
        WithJsonSchema({"anyOf": options}),
    ]


def _integer(data: object) -> int:
    if type(data) is not int:
        raise SpecError(f"must be an integer, got {data!r}")
    return data


def _number(data: object) -> float:
    if isinstance(data, int | float) and type(data) is not bool and abs(data) <= sys.float_info.max:
        return float(data)
    raise SpecError(f"must be a number, got {data!r}")


def _text(data: object) -> str:
    if not isinstance(data, str):
        raise SpecError(f"must be text, got {data!r}")
    return data


def _read_ladder(data: object) -> Choice:
    if isinstance(data, list | tuple):
        data = data[0] if len(data) == 1 else {"any_of": list(data)}
    if isinstance(data, Mapping) and "any_of" not in data:
        data = {"log": "step" not in data, **data}
    return _read(data, _integer, int)


def _write_ladder(choice: Choice) -> Any:
    if isinstance(choice, AnyOf):
        return list(choice.values)
    if isinstance(choice, IntRange):
        table = _write(choice)
        table.pop("log", None)
        return table if choice.log == (choice.step == 1) else {**table, "log": choice.log}
    return _write(choice)


_INTEGER = {"type": "integer"}
_NUMBER = {"type": "number"}
INT_CHOICE = _field(_integer, int, _INTEGER)
INT_OF_WAYS = _field(_integer, int, _INTEGER, ways=True)
FLOAT_CHOICE = _field(_number, float, _NUMBER)
FLOAT_OF_WAYS = _field(_number, float, _NUMBER, ways=True)
TEXT_CHOICE = _field(_text, None, {"type": "string"})
# A number, a list (a ladder), or a range, searched in the logarithm unless it has steps or says not to.
LADDER_CHOICE = Annotated[
    Any,
    PlainValidator(_read_ladder),
    PlainSerializer(_write_ladder),
    WithJsonSchema(
        {
            "anyOf": [
                _INTEGER,
                {"type": "array", "items": _INTEGER, "minItems": 1, "uniqueItems": True},
                _any_of_schema(_INTEGER),
                _span_schema(_INTEGER, _WHOLE_SPAN),
            ]
        }
    ),
]


def ref_choice(registry: Registry[Any], *, ways: bool = False) -> Any:
    """Return the pydantic type of a choice among entries of a registry, if asked also of one for each way."""
    return _field(registry.parse, None, {"anyOf": [{"type": "string"}, {"type": "object"}]}, ways=ways)
