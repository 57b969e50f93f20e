"""Programs as text that people read and `parse` reads back.

    program tiny: 1x8x8
    %1: 4x8x8 = conv(1, 4) @stem.conv1 <- %0
    %2: 4x8x8 = norm('batch', 4) @block1.layer1.norm1 | act('relu') @block1.layer1.act1 <- %1
    return head %2

The steps of an operation are separated by `|`, the module of each follows `@`. An aggregation shows where the
gates of each source are (`operand.column`), and what training does to each at random.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from connsearch.errors import SpecError
from connsearch.ir.program import Aggregate, Op, Program, Scale, Share, Step, What
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.drops import EdgeDrop
from connsearch.spec.ops import OPERATIONS, Shape

_SORTS: dict[str, Any] = {sort._field_defaults["op"]: sort for sort in (*OPERATIONS, Scale, Share)}

_OP = re.compile(r"%(?P<value>\d+): (?P<shape>[\dx]+) = (?P<steps>.*) <- (?P<reads>[%\d ]+)")
_AGGREGATE = re.compile(r"aggregate\.(?P<label>[\w-]+(\([^()]*\))?)(?P<slots>\[.*?\])?(?P<drops>\{.*\})?")
_CALL = re.compile(r"\w+\(.*\)")
_WORD = re.compile(r"[\w.-]+")


def to_text(program: Program) -> str:
    """Return a line for each operation, between a line for the image and one for the outputs."""
    outputs = ", ".join(f"{_quoted(name)} %{value}" for name, value in program.outputs)
    columns = f" columns={program.n_columns}" if program.n_columns > 1 else ""
    return "\n".join(
        [
            f"program {_quoted(program.name)}: {_size(program.image)}{columns}",
            *(f"%{value}: {op_text(op)}" for value, op in enumerate(program.ops, start=1)),
            f"return {outputs}",
        ]
    )


def op_text(op: Op) -> str:
    """Return an operation as it is written after its value."""
    steps = " | ".join(
        f"{what_text(step.what)}{f' @{_quoted(step.at)}' if step.at else ''}" for step in op.steps
    )
    return f"{_size(op.shape)} = {steps} <- {' '.join(f'%{read}' for read in op.reads)}"


def what_text(what: What) -> str:
    """Return what a step does, with all parameters other than defaults.

    >>> from connsearch.spec.ops import Conv
    >>> what_text(Conv(3, 16, kernel=1))
    'conv(3, 16, kernel=1)'
    """
    if isinstance(what, Aggregate):
        slots = " ".join("-" if slot is None else "{}.{}".format(*slot) for slot in what.slots)
        drops = ", ".join("-" if drop is None else " ".join(map(str, drop)) for drop in what.drops)
        return f"aggregate.{what.ref.label}{f'[{slots}]' if slots else ''}{f'{{{drops}}}' if drops else ''}"
    defaults = what._field_defaults
    given = {name: value for name, value in what._asdict().items() if value != defaults.get(name, ...)}
    words = [repr(v) if name not in defaults else f"{name}={v!r}" for name, v in given.items()]
    return f"{what.op}({', '.join(words)})"


def parse(text: str) -> Program:
    """Return the program of a text.

    Raises:
        SpecError: naming the line that does not read.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        raise SpecError("no program: it has a first line, operations and a last line")
    first, *lines, last = lines
    try:
        name, _, rest = _unquoted(first.removeprefix("program "))[0:3]
        size, _, columns = rest.removeprefix(": ").partition(" columns=")
        ops: list[Op] = []
        for line in lines:
            ops.append(_op(line, len(ops) + 1))
        return Program(name, _shape(size), tuple(ops), _outputs(last), int(columns or 1))
    except (ValueError, SyntaxError, LookupError, TypeError) as error:
        raise SpecError(f"no program: {error}") from None


def _op(line: str, value: int) -> Op:
    match = _OP.fullmatch(line.strip())
    if match is None or int(match["value"]) != value:
        raise SpecError(f"line {line!r} is no operation %{value}: value: shape = steps <- operands")
    reads = tuple(int(word[1:]) for word in match["reads"].split())
    return Op(_steps(match["steps"]), reads, _shape(match["shape"]))


def _steps(text: str) -> tuple[Step, ...]:
    steps, rest = [], text
    while rest:
        head, mark, after = _cut(rest)
        at = ""
        if mark == " @":
            at, _, after = _unquoted(after)
            after = after.removeprefix(" | ")
        steps.append(Step(_what(head), at))
        rest = after
    return tuple(steps)


def _cut(text: str) -> tuple[str, str, str]:
    """Return what is before the first ` @` or ` | `, which of them it is, and what comes after."""
    found = [(text.find(mark), mark) for mark in (" @", " | ") if mark in text]
    if not found:
        return text, "", ""
    place, mark = min(found)
    return text[:place], mark, text[place + len(mark) :]


def _what(text: str) -> What:
    match = _AGGREGATE.fullmatch(text)
    if match is not None:
        return Aggregate(AGGREGATIONS.parse(match["label"]), _slots(match["slots"]), _drops(match["drops"]))
    if not _CALL.fullmatch(text) or text.partition("(")[0] not in _SORTS:
        raise SpecError(f"{text!r} is no step")
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    keywords = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    found: What = _SORTS[text.partition("(")[0]](*map(ast.literal_eval, call.args), **keywords)
    return found


def _slots(text: str | None) -> tuple[tuple[int, int] | None, ...]:
    words = (text or "[]")[1:-1].split()
    return tuple(None if w == "-" else (int(w.partition(".")[0]), int(w.partition(".")[2])) for w in words)


def _drops(text: str | None) -> tuple[EdgeDrop | None, ...]:
    words = [word.split() for word in (text or "{}")[1:-1].split(", ") if word]
    return tuple(
        None if w == ["-"] else EdgeDrop(w[0], float(w[1]), float(w[2]), int(w[3]))  # type: ignore[arg-type]  # EdgeDrop's kinds
        for w in words
    )


def _outputs(line: str) -> tuple[tuple[str, int], ...]:
    found, rest = [], line.removeprefix("return ")
    while rest:
        name, _, rest = _unquoted(rest)
        value, _, rest = rest.removeprefix(" %").partition(", ")
        found.append((name, int(value)))
    return tuple(found)


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _shape(text: str) -> Shape:
    return Shape(*map(int, text.split("x")))


def _quoted(name: str) -> str:
    return name if _WORD.fullmatch(name) else json.dumps(name)


def _unquoted(text: str) -> tuple[str, str, str]:
    """Return the name that a text begins with, "", and the rest."""
    if text.startswith('"'):
        name, end = json.JSONDecoder().raw_decode(text)
        return name, "", text[end:]
    match = _WORD.match(text)
    if match is None:
        raise SpecError(f"{text!r} begins with no name")
    return match[0], "", text[match.end() :]
