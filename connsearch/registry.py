"""Registries: named functions or classes, and how a file refers to one of them.

An entry's *parameters* are its keyword-only arguments; each has a default, and the default's type is
the parameter's type. A `Ref` is an entry's name with the parameters that differ from their defaults,
so that two spellings of the same choice are equal.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from connsearch.errors import SpecError, did_you_mean

T = TypeVar("T", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")
Scalar = bool | int | float | str

_LABEL = re.compile(r"(?P<name>[\w-]+)(\((?P<params>[^()]*)\))?")


class Ref(NamedTuple):
    """A registered name and its parameters, sorted, defaults left out.

    >>> Ref("sparse", (("base", 3),)).label
    'sparse(base=3)'
    """

    name: str
    params: tuple[tuple[str, Scalar], ...] = ()

    @property
    def label(self) -> str:
        """The reference as one word: `name` or `name(key=value, ...)`."""
        inner = ", ".join(f"{key}={_write(value)}" for key, value in self.params)
        return f"{self.name}({inner})" if inner else self.name

    def __str__(self) -> str:
        return self.label

    def to_data(self) -> str | dict[str, Scalar]:
        """Return what TOML and JSON hold: the bare name, or a table with the parameters."""
        return {"name": self.name, **dict(self.params)} if self.params else self.name


def _write(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_CACHES: list[Callable[[], None]] = []


def entry_cache(function: Callable[P, R]) -> Callable[P, R]:
    """Remember what a function made of references; all is forgotten when an entry is unregistered."""
    cached = lru_cache(maxsize=65536)(function)
    _CACHES.append(cached.cache_clear)
    return cast(Callable[P, R], cached)


class Registry(Mapping[str, T], Generic[T]):
    """Entries of one kind by name; registering a name twice is an error.

    Args:
        kind: What an entry is, for messages: "topology", "aggregation", ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._parameters: dict[str, dict[str, Scalar]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under `name` and gives it back unchanged.

        Raises:
            SpecError: if the name is taken or is no word of letters, digits, `_` and `-`, or if a
                keyword-only argument has no default.
        """

        def add(entry: T) -> T:
            if name in self._entries:
                raise SpecError(f"{self.kind} {name!r} is registered already: choose another name")
            if not re.fullmatch(r"[\w-]+", name):
                raise SpecError(f"{self.kind} name {name!r} must be letters, digits, '_' and '-' only")
            self._parameters[name] = _parameters(entry)
            self._entries[name] = entry
            return entry

        return add

    def unregister(self, name: str) -> None:
        """Forget an entry; for notebooks and tests that register twice."""
        del self._entries[name], self._parameters[name]
        for clear in _CACHES:
            clear()

    def __getitem__(self, name: str) -> T:
        """Return the entry; a typo is a `SpecError` that proposes the nearest name."""
        try:
            return self._entries[name]
        except KeyError:
            raise SpecError(f"unknown {self.kind} {name!r}. {did_you_mean(name, self._entries)}") from None

    __eq__ = object.__eq__  # a registry is itself, not its content
    __hash__ = object.__hash__

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def parameters(self, name: str) -> dict[str, Scalar]:
        """Return the parameters of an entry with their defaults."""
        self[name]  # a typo is told
        return dict(self._parameters[name])

    def bind(self, ref: Ref) -> dict[str, Scalar]:
        """Return every parameter of an entry: defaults, overridden by the reference."""
        return self.parameters(ref.name) | dict(ref.params)

    def ref(self, name: str, /, **params: Scalar) -> Ref:
        """Return a checked reference.

        Raises:
            SpecError: if the name or a parameter is unknown or a value has the wrong type.
        """
        known = self.parameters(name)
        for key, value in params.items():
            if key not in known:
                known_words = did_you_mean(key, known)
                raise SpecError(f"{self.kind} {name!r} has no parameter {key!r}. {known_words}")
            params[key] = _typed(value, known[key], f"{self.kind} {name!r}: {key}")
        return Ref(name, tuple(sorted((k, v) for k, v in params.items() if v != known[k])))

    def parse(self, data: object) -> Ref:
        """Read a reference from what a file or a caller gives: a `Ref`, a name, a label or a table.

        >>> topologies = Registry("topology")
        >>> @topologies.register("sparse")
        ... def sparse(j, *, base=2): ...
        >>> topologies.parse({"name": "sparse", "base": 3}) == topologies.parse("sparse(base=3)")
        True
        """
        if isinstance(data, Ref):
            return self.ref(data.name, **dict(data.params))
        if isinstance(data, str):
            return self._parse_label(data)
        if isinstance(data, Mapping) and isinstance(data.get("name"), str):
            return self.ref(data["name"], **{k: v for k, v in data.items() if k != "name"})
        way_out = f": register it first, @cs.register_{self.kind}('name')" if callable(data) else ""
        raise SpecError(f"a {self.kind} is a name or a table with a name, got {data!r}{way_out}")

    def _parse_label(self, label: str) -> Ref:
        match = _LABEL.fullmatch(label)
        if match is None:
            return self.ref(label)
        known = self.parameters(match["name"])
        params: dict[str, Scalar] = {}
        for item in filter(None, re.split(r"\s*,\s*", (match["params"] or "").strip())):
            key, _, text = item.partition("=")
            if key in params:
                raise SpecError(f"{self.kind} {label!r}: {key!r} is given twice")
            params[key] = _read(text, known.get(key, ""))
        return self.ref(match["name"], **params)


def _parameters(entry: Callable[..., Any]) -> dict[str, Scalar]:
    found = {}
    for parameter in inspect.signature(entry).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if not isinstance(parameter.default, bool | int | float | str):
            raise SpecError(f"{entry.__name__}: parameter {parameter.name!r} needs a plain default value")
        found[parameter.name] = parameter.default
    return found


def _typed(value: object, default: Scalar, place: str) -> Scalar:
    if type(default) is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not type(default):
        raise SpecError(f"{place} must be {type(default).__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{place} must be finite, got {value!r}")
    return value


def _read(text: str, default: Scalar) -> Scalar:
    """Read a value of a label as the type of its default; what does not read stays text and fails later."""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            return text
    return text


def ref_field(registry: Registry[Any]) -> Any:
    """Return the pydantic type of a field that refers to an entry of `registry`."""
    schema = {
        "description": f"A {registry.kind}: its name, or a table with its name and parameters.",
        "anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}],
    }
    return Annotated[
        Ref, PlainValidator(registry.parse), PlainSerializer(Ref.to_data), WithJsonSchema(schema)
    ]
