"""Configuration values: frozen pydantic models that read and write TOML and JSON.

Errors say `file: place: what is wrong` in one line, whatever pydantic found.
"""

from __future__ import annotations

import json
import re
import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from connsearch.errors import SpecError, did_you_mean

_EXACT: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
}
_KINDS = dict.fromkeys(("tuple_type", "list_type"), "must be an array") | dict.fromkeys(
    ("dict_type", "mapping_type", "model_type", "model_attributes_type"), "must be a table"
)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 2, 3, 3, 3
_SHORT.maxstring = _SHORT.maxother = 60
_TEXT = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"(?m)^( +)\[\n +({_TEXT}),\n +({_TEXT}),\n +\]")
"""An array of two texts in an array, such as an edge, that was written over four lines."""


class Config(BaseModel):
    """Base of configuration values: frozen, unknown keys refused, no silent conversion."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    def __init__(self, /, **data: Any) -> None:
        """Check the values.

        Raises:
            SpecError: naming the place, the value and what is allowed.
        """
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise problem(error, type(self)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_conversion(cls, value: object, info: ValidationInfo) -> object:
        """Refuse text and truth values for numbers, fractions for integers, all else for truth values."""
        _check_exact(cls.model_fields[info.field_name or ""].annotation, value)
        return value

    def replaced(self, /, **checked: Any) -> Self:
        """Return a copy with values that are known to be valid, without checking them again."""
        return super().model_copy(update=checked)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some values replaced, checked like any other.

        Raises:
            SpecError: if the result is not valid.
        """
        copy = super().model_copy(update=update, deep=deep)
        if not update:
            return copy
        for name in update:
            if name not in type(self).model_fields:
                raise SpecError(f"{name}: unknown field. {did_you_mean(name, type(self).model_fields)}")
        return type(self)(**{name: getattr(copy, name) for name in copy.model_fields_set})

    @classmethod
    def from_dict(cls, data: object, *, source: str = "") -> Self:
        """Return the value that plain data describe.

        Args:
            data: What a TOML or JSON file holds.
            source: The file's name, put in front of an error.

        Raises:
            SpecError: naming the file, the place inside it, the value and what is allowed.
        """
        if not isinstance(data, Mapping):
            raise SpecError(f"a table is expected, got {_shown(data)}", place=source)
        try:
            return cls(**data)
        except SpecError as error:
            raise SpecError(str(error), place=source) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file.

        Raises:
            SpecError: if the file cannot be read, is no TOML, or describes no valid value.
        """
        return cls.from_dict(read_toml(path), source=str(path))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of the file format."""
        return cls.model_json_schema(by_alias=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, values that equal their defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def to_full_dict(self) -> dict[str, Any]:
        """Return plain data, defaults included: for records that must outlive a change of defaults."""
        return self.model_dump(mode="json", by_alias=True)

    def to_toml(self) -> str:
        """Return the value as TOML text; `from_toml` of it gives the value back."""
        return _PAIR.sub(r"\1[\2, \3]", tomli_w.dumps(self.to_dict()))

    def to_json(self) -> str:
        """Return the value as one line of JSON."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the value that JSON text describes.

        Raises:
            SpecError: if the text is no JSON, or describes no valid value.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise SpecError(f"this is no JSON: {error}") from None
        return cls.from_dict(data)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        SpecError: if the file is missing, unreadable or no TOML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: is no TOML: {error}") from None


def override(data: dict[str, Any], text: str) -> None:
    """Put a value in place of what a table holds, as `--set` says it.

    Args:
        data: The table; it is changed, and tables that are missing on the way are made.
        text: `key.key=value`; the value is TOML, or text where it is no TOML.

    Raises:
        SpecError: if the text is no such thing, or leads through something else than a table.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"--set takes key=value, got {text!r}")
    *outer, last = key.strip().split(".")
    table: Any = data
    for part in outer:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SpecError(f"--set {text}: {part!r} is a value, not a table")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value


def _check_exact(kind: Any, value: object) -> None:
    """Raise `SpecError`, with its place inside the value, where pydantic would convert a value to a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        _check_exact(inner[0], value)
    elif origin in (Union, UnionType) and value is not None:
        if len(kinds := [kind for kind in inner if kind is not NoneType]) == 1:
            _check_exact(kinds[0], value)
    elif origin is tuple and isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_item(inner[0], item, f"[{i}]")
    elif origin is Literal:
        for allowed in inner:
            if allowed == value and type(allowed) is not type(value):
                raise SpecError(f"should be {allowed!r}, got {_shown(value)}")
    elif kind in _EXACT and type(value) not in _EXACT[kind][1]:
        raise SpecError(f"must be {_EXACT[kind][0]}, got {_shown(value)}")


def _check_item(kind: Any, item: object, place: str) -> None:
    try:
        _check_exact(kind, item)
    except SpecError as error:
        raise SpecError(error.detail, place=_join(place, error.place)) from None


def problem(error: ValidationError, model: type[BaseModel]) -> SpecError:
    """Return the first problem of a validation error with its place, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    place, detail = _place(first["loc"]), _detail(first, model)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SpecError) and cause.place:
        place, detail = _join(place, cause.place), cause.detail
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return SpecError(detail + more, place=place)


def _place(loc: tuple[int | str, ...]) -> str:
    place = ""
    for part in loc:
        place = _join(place, f"[{part}]" if isinstance(part, int) else part)
    return place


def _join(outer: str, inner: str) -> str:
    dot = "." if outer and inner and not inner.startswith("[") else ""
    return f"{outer}{dot}{inner}"


def _detail(first: ErrorDetails, model: type[BaseModel]) -> str:
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown key. {did_you_mean(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return "is missing"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    message = _KINDS.get(first["type"], first["msg"].removeprefix("Input "))
    return f"{message[0].lower()}{message[1:]}, got {_shown(first['input'])}"


def _shown(value: object) -> str:
    """Return a wrong value as text, the inside of a long one left out."""
    return _SHORT.repr(value)
