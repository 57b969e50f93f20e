"""How a line of Python that is too long is broken: as formatters do it, one item of a bracket to a line."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 100
OPENING, CLOSING = "([{", ")]}"


def wrapped(line: str, width: int = WIDTH) -> list[str]:
    """Return a line as it is, or its last outermost bracket opened, recursively.

    >>> print("\\n".join(wrapped("x = add(first, second(third, fourth))", width=26)))
    x = add(
        first,
        second(third, fourth),
    )
    """
    if len(line) <= width:
        return [line]
    bracket = _last_bracket(line)
    if bracket is None:
        return [line]
    start, end = bracket
    indent = line[: len(line) - len(line.lstrip())]
    head, body, tail = line[: start + 1], line[start + 1 : end], line[end:]
    whole = f"{indent}    {body}"
    clauses = _clauses(body)
    if len(clauses) > 1:
        fits = len(whole) <= width
        return [head, *([whole] if fits else [f"{indent}    {c}" for c in clauses]), f"{indent}{tail}"]
    items = split(body)
    if len(items) == 1:
        return [head, *wrapped(whole, width), f"{indent}{tail}"]
    if len(whole) <= width and not _keeps_comma(line, start):
        return [head, whole, f"{indent}{tail}"]
    opened = [w for item in items for w in _with_comma(wrapped(f"{indent}    {item}", width - 1))]
    return [head, *opened, f"{indent}{tail}"]


def _keeps_comma(line: str, start: int) -> bool:
    """Return whether each item of an opened bracket gets a line of its own: of a dictionary."""
    return line[start] == "{"


def _with_comma(lines: list[str]) -> list[str]:
    return [*lines[:-1], f"{lines[-1]},"]


def code(line: str) -> Iterator[tuple[int, str]]:
    """Yield the letters that are in no string, with their places.

    >>> "".join(letter for _, letter in code('f("a(", b["]"])'))
    'f(, b[])'
    """
    inside = escaped = False
    for place, letter in enumerate(line):
        if letter == '"' and not escaped:
            inside = not inside
        elif not inside:
            yield place, letter
        escaped = inside and letter == "\\" and not escaped


def split(body: str) -> list[str]:
    """Return the parts between the commas that are in no bracket.

    >>> split("a, f(b, c), 'd'")
    ['a', 'f(b, c)', "'d'"]
    """
    items, depth, begin = [], 0, 0
    for place, letter in code(body):
        depth += (letter in OPENING) - (letter in CLOSING)
        if letter == "," and depth == 0:
            items.append(body[begin:place].strip())
            begin = place + 1
    last = body[begin:].strip()
    return [*items, last] if last else items


def _clauses(body: str) -> list[str]:
    """Return a comprehension's clauses; the whole if it is none.

    >>> _clauses("f(x for x in y) for y in z if y"), _clauses("a, b")
    (['f(x for x in y)', 'for y in z', 'if y'], ['a, b'])
    """
    found: list[str] = []
    depth, begin = 0, 0
    for place, letter in code(body):
        depth += (letter in OPENING) - (letter in CLOSING)
        word = body[place + 1 :].startswith(("for ", "if "))
        if depth == 0 and letter == " " and word and (found or body[place + 1 :].startswith("for ")):
            found.append(body[begin:place])
            begin = place + 1
    return [*found, body[begin:]]


def _last_bracket(line: str) -> tuple[int, int] | None:
    """Return where the last outermost bracket with something inside opens and closes."""
    depth, start, found = 0, 0, None
    for place, letter in code(line):
        if letter in OPENING:
            if depth == 0:
                start = place
            depth += 1
        elif letter in CLOSING:
            depth -= 1
            if depth == 0 and place > start + 1:
                found = (start, place)
    return found
