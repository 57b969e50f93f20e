"""Which classes the layers of a network are written as: one for all layers with the same operations.

Numbers that differ between layers of a class (channels, strides) are arguments of its constructor; those that
are always equal, or a multiple of another one, are written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from connsearch.errors import SpecError
from connsearch.export import parts
from connsearch.export.arguments import Arguments, solve
from connsearch.export.description import Description, Layer, NamedOps
from connsearch.export.layout import wrapped
from connsearch.export.operations import Form, Value, form, signature, values
from connsearch.registry import Ref
from connsearch.spec.aggregations import rule_of
from connsearch.spec.ops import Act, GlobalPool, Linear, Shape, Softmax, output_shape

PLAIN = ("sum", "mean", "concat", "routed")  # aggregations without parameters: written where they are read
WITH_PARAMETERS = ("weighted", "depthwise", "gated")
RESERVED = frozenset({"Network", *(name for name in vars(parts) if not name.startswith("_"))})


class Construction(NamedTuple):
    """The call of a constructor: a format, and the numbers that it takes."""

    text: str
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return self.text.format(*self.numbers)


class Written(NamedTuple):
    """A class of an exported model.

    Attributes:
        name: Its name.
        ops: The operations of one of its layers.
        shape: What that one reads.
        arguments: The numbers that its constructor takes.
        aggregates: How many of its layers have an aggregation with parameters: "none", "some" or "all".
        gates: How many compute gates, likewise.
    """

    name: str
    ops: NamedOps
    shape: Shape
    arguments: Arguments
    aggregates: str
    gates: str

    def forms(self) -> list[Form]:
        """Return how its operations are written."""
        return forms(self.ops, self.shape)

    def source(self) -> str:
        """Return the class as Python."""
        words = ", ".join(found.words for found in self.forms())
        words = (words[:1].upper() + words[1:]) or "What it reads, as it is"
        lines = [f"class {self.name}(nn.Module):", *_docstring(f"{words}."), ""]
        return "\n".join([*lines, *self._init(), "", *self._forward()])

    def _init(self) -> list[str]:
        children = [
            n for n, how in (("aggregation", self.aggregates), ("gates", self.gates)) if how != "none"
        ]
        optional = {"aggregation": self.aggregates == "some", "gates": self.gates == "some"}
        declared = self.arguments.declared()
        needed = [d for d in declared if "=" not in d]
        needed += [f"{n}: nn.Module" for n in children if not optional[n]]
        rest = [d for d in declared if "=" in d]
        rest += [f"{n}: nn.Module | None = None" for n in children if optional[n]]
        lines = wrapped(f"    def __init__({', '.join(['self', *needed, *rest])}) -> None:")
        lines += ["        super().__init__()", *(f"        self.{n} = {n}" for n in children)]
        given = iter(self.arguments.expressions)
        for (name, op), how in zip(self.ops, self.forms(), strict=True):
            if how.module is not None:
                made = how.module([next(given) for _ in values(op)])
                lines += wrapped(f"        self.{name} = {made}")
        return lines

    def _forward(self) -> list[str]:
        if self.aggregates == "none":
            lines = ["    def forward(self, h: Tensor) -> Tensor:"]
        else:
            lines = ["    def forward(self, sources: Sequence[Tensor]) -> Tensor:"]
            alone = "sources[0] if self.aggregation is None else " if self.aggregates == "some" else ""
            lines.append(f"        h = {alone}self.aggregation(sources)")
        x = "h"
        for (name, _), how in zip(self.ops, self.forms(), strict=True):
            if x != "h" and _makes_a_line(x):
                lines.append(f"        h = {x}")
                x = "h"
            x = how.call(f"self.{name}", x)
        return [*lines, *wrapped(f"        return {x}")]


def _makes_a_line(x: str) -> bool:
    """Return whether an expression makes a line: its last call is a convolution or such."""
    return x.startswith(
        ("self.conv", "self.deconv", "self.linear", "attention(", "F.max_pool2d", "F.avg_pool2d")
    )


def _docstring(words: str) -> list[str]:
    """Return a docstring of as many lines as it takes."""
    if len(words) <= 98:
        return [f'    """{words}"""']
    kept, cut = words[:94].rsplit(", ", 1)[0], ""
    cut = words[len(kept) + 2 :]
    return [f'    """{kept},', f"    {cut}", '    """']


def forms(ops: NamedOps, shape: Shape) -> list[Form]:
    """Return how operations in a row are written, the first of which reads `shape`."""
    found, flat = [], False
    for _, op in ops:
        found.append(form(op, shape, flat=flat))
        flat = isinstance(op, GlobalPool | Linear | Softmax) or (flat and isinstance(op, Act))
        shape = output_shape(op, shape)
    return found


class Classes:
    """The classes of a network, and how each of its layers is made.

    Raises:
        SpecError: if a layer has an aggregation of one's own.
    """

    def __init__(self, description: Description) -> None:
        self._keys: dict[tuple[object, ...], Written] = {}
        members: dict[tuple[object, ...], list[tuple[Layer | None, NamedOps, Shape]]] = {}
        for layer in description.layers:
            _check(layer.name, layer.aggregation)
            if layer.gates:
                shape = out_shape(layer)
                members.setdefault(_key("Gates", layer.gates, shape), []).append((None, layer.gates, shape))
            if not is_inline(layer):
                key = _key(layer.title, layer.ops, layer.in_shape)
                members.setdefault(key, []).append((layer, layer.ops, layer.in_shape))
        taken = set(RESERVED)
        for key, found in members.items():
            name = _unique(str(key[0]), taken)
            taken.add(name)
            self._keys[key] = _written(name, found)

    @property
    def written(self) -> tuple[Written, ...]:
        """The classes, in the order of their first layers."""
        return tuple(self._keys.values())

    def of(self, layer: Layer) -> Written:
        """Return the class of a layer that has one."""
        return self._keys[_key(layer.title, layer.ops, layer.in_shape)]

    def construction(self, layer: Layer) -> Construction:
        """Return how a layer is made."""
        written = self.of(layer)
        words, numbers = _given(written, layer.ops)
        if has_parameters(layer.aggregation):
            text, more = _aggregation(layer)
            words.append(f"aggregation={text}")
            numbers += more
        if layer.gates:
            gates = self._keys[_key("Gates", layer.gates, out_shape(layer))]
            inner, more = _given(gates, layer.gates)
            words.append(f"gates={gates.name}({', '.join(inner)})")
            numbers += more
        return Construction(f"{written.name}({', '.join(words)})", tuple(numbers))


def is_inline(layer: Layer) -> bool:
    """Return whether a layer has no parameters: it is written where it is run, without a class."""
    return not (layer.gates or has_parameters(layer.aggregation) or any(values(op) for _, op in layer.ops))


def has_parameters(aggregation: Ref | None) -> bool:
    """Return whether an aggregation is a module with parameters."""
    return aggregation is not None and aggregation.name in WITH_PARAMETERS


def aggregation_class(ref: Ref) -> str:
    """Return the class of an aggregation with parameters."""
    if ref.name == "depthwise":
        return "Depthwise" if dict(ref.params).get("form") == "paper" else "NormalizedDepthwise"
    return ref.name.capitalize()


def out_shape(layer: Layer) -> Shape:
    """Return the shape that a layer gives out."""
    shape = layer.in_shape
    for _, op in layer.ops:
        shape = output_shape(op, shape)
    return shape


def _aggregation(layer: Layer) -> tuple[str, list[int]]:
    ref, n = layer.aggregation, len(layer.sources)
    assert ref is not None
    name = aggregation_class(ref)
    if name == "Weighted":
        sigmoid = ", sigmoid=True" if dict(ref.params).get("activation") == "sigmoid" else ""
        return f"{name}({{}}{sigmoid})", [n]
    return f"{name}({{}}, {{}})", [n, layer.source_channels[0]]


def _check(name: str, aggregation: Ref | None) -> None:
    if aggregation is not None and aggregation.name not in (*PLAIN, *WITH_PARAMETERS):
        rule_of(aggregation)
        raise SpecError(
            f"aggregation {aggregation.label!r} is one of your own, whose module cannot be written as "
            "Python: export the network as torch or onnx",
            place=name,
        )


def _key(title: str, ops: NamedOps, shape: Shape) -> tuple[object, ...]:
    signatures = []
    for name, op in ops:
        signatures.append((name, signature(op, shape)))
        shape = output_shape(op, shape)
    return (title, tuple(signatures))


def _numbers(ops: NamedOps) -> list[Value]:
    return [value for _, op in ops for value in values(op)]


def _written(name: str, found: Sequence[tuple[Layer | None, NamedOps, Shape]]) -> Written:
    layers = [layer for layer, _, _ in found if layer is not None]
    _, ops, shape = found[0]
    return Written(
        name,
        ops,
        shape,
        solve([_numbers(ops) for _, ops, _ in found], [shape.channels for _, _, shape in found]),
        _how_many([has_parameters(layer.aggregation) for layer in layers]),
        _how_many([bool(layer.gates) for layer in layers]),
    )


def _how_many(have: Sequence[bool]) -> str:
    return "none" if not any(have) else "all" if all(have) else "some"


def _given(written: Written, ops: NamedOps) -> tuple[list[str], list[int]]:
    given = written.arguments.given([value.number for value in _numbers(ops)])
    return [text for text, _ in given], [number for _, number in given]


def _unique(name: str, taken: set[str]) -> str:
    candidates = (name if n == 1 else f"{name}{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)
