"""The forward pass of an exported network: one statement for each layer, loops where layers repeat.

Four sorts of loops are written: layers that each read all of a list that grows; layers that read the outputs
so and so many steps before them; layers side by side; groups that repeat, each reading what the one before
gave out.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

from connsearch.export import parts
from connsearch.export.classes import Classes, forms, has_parameters, is_inline
from connsearch.export.description import Description, Layer
from connsearch.export.drops import Drops
from connsearch.export.layout import wrapped
from connsearch.export.paths import Paths
from connsearch.export.patterns import Patterns
from connsearch.export.series import INDEX, Counted, Repeat, counted, longest_repeat
from connsearch.export.sources import Element, Names, display, joined

INDENT = " " * 8
LEAST = 3  # repetitions that are worth a loop
LONGEST_INLINE = 88


class Wiring:
    """The statements of a forward pass.

    Args:
        description: The network.
        classes: Of its layers.
        paths: Of its layers.
        inference: Whether the network is never trained: nothing is dropped at random.
    """

    def __init__(
        self, description: Description, classes: Classes, paths: Paths, *, inference: bool = False
    ) -> None:
        self.layers = description.layers
        self.classes, self.paths = classes, paths
        self.heads = description.heads
        self.names = Names()
        self.gates: dict[int, str] = {}
        self.readers: list[list[int]] = [[] for _ in self.layers]
        for index, layer in enumerate(self.layers):
            for source in layer.sources:
                self.readers[source].append(index)
        self.patterns = Patterns(self.layers, self.readers)
        self.drops = Drops(self.layers, inference=inference)
        self.taken = {
            "self",
            "images",
            "torch",
            "nn",
            "F",
            INDEX,
            "sum",
            "len",
            "range",
            "sources",
            *vars(parts),
        }
        self.lines: list[str] = []

    def run(self) -> list[str]:
        """Return the body of the forward pass, all but what it returns."""
        self.lines += [f"{INDENT}{line}" for line in self.drops.begin()]
        at = 0
        while at < len(self.layers):
            at += self._grown(at) or self._side_by_side(at) or self._repeated(at) or self._one(at)
        return self.lines

    def result(self, head: int) -> str:
        """Return the expression of a head's logits."""
        return self.names.one(head)

    # ---- one layer -------------------------------------------------------------------------------

    def _one(self, index: int) -> int:
        layer = self.layers[index]
        expression = self._expression(layer, self._words(index))
        if self._goes_into_the_next(index, expression):
            self.names.call(index, expression)
            return 1
        name = self._variable(layer.name)
        self._add(f"{name} = {expression}")
        self.names.call(index, name)
        if layer.gates:
            self.gates[index] = self._variable(f"{layer.name}_gates")
            self._add(f"{self.gates[index]} = {self.paths.layer(layer.name)}.gates({name})")
        return 1

    def _goes_into_the_next(self, index: int, expression: str) -> bool:
        """Return whether a layer is written inside the statement of the next, which alone reads it."""
        if self.readers[index] != [index + 1] or self.layers[index].gates or len(expression) > LONGEST_INLINE:
            return False
        after = self.layers[index + 1]
        return is_inline(after) and not after.drops and not is_inline(self.layers[index])

    def _words(self, index: int) -> list[str]:
        """Return what a layer reads, source by source."""
        layer = self.layers[index]
        if not layer.drops:
            return self.names.many(layer.sources)
        lines, words = self.drops.sources(index, [self.names.one(s) for s in layer.sources], self._variable)
        for line in lines:
            self._add(line)
        return words

    def _expression(self, layer: Layer, words: Sequence[str], path: str = "", n: str = "") -> str:
        """Return what a layer gives out.

        Args:
            layer: The layer.
            words: What it reads.
            path: The expression of its module, by default that of its name.
            n: How many sources there are, where that is no constant.
        """
        x = self._read(layer, words, n or str(len(layer.sources)))
        if not is_inline(layer):
            return f"{path or self.paths.layer(layer.name)}({x})"
        for (_, _), how in zip(layer.ops, forms(layer.ops, layer.in_shape), strict=True):
            x = how.call("", x)
        return x

    def _read(self, layer: Layer, words: Sequence[str], n: str) -> str:
        """Return the input of a layer: its one source, or several, joined unless its own class does it."""
        if has_parameters(layer.aggregation):
            return display(words)
        x = self._joined(layer, words, n)
        joins = not is_inline(layer) and self.classes.of(layer).aggregates != "none"  # of other sources
        return f"[{x}]" if joins else x

    def _joined(self, layer: Layer, words: Sequence[str], n: str) -> str:
        ref = layer.aggregation
        if not layer.sources:
            return "images"
        if ref is None or self.drops.are_paths(layer):
            return words[0]
        if ref.name == "routed":
            return f"route({display(words)}, [{', '.join(self._gates(layer))}])"
        return joined(ref, words, n)

    def _gates(self, layer: Layer) -> list[str]:
        return [
            "None" if slot is None else f"{self.gates[owner]}[:, {slot}]"
            for owner, slot in zip(layer.gated_by, layer.slots, strict=True)
        ]

    # ---- lists -----------------------------------------------------------------------------------

    def _grown(self, at: int) -> int:
        """Write layers from one on that read lists which grow by what they give out; return how many."""
        for length in range(self._count(at), LEAST - 1, -1):
            if self.patterns.reads_all(at, length):
                self._write_list(at, length, ())
                return length
            steps = self.patterns.steps(at, length)
            if steps:
                self._write_list(at, length, steps)
                return length
        return 0

    def _count(self, at: int) -> int:
        """Return how many layers from one on have names that count and are run alike."""
        if at + 1 >= len(self.layers):
            return 1
        series = counted(self.layers[at].name, self.layers[at + 1].name)
        length = 1
        while (
            series is not None
            and at + length < len(self.layers)
            and self.layers[at + length].name == series.named(series.start + length)
            and self._alike(self.layers[at + length], self.layers[at + length - 1], in_list=length > 1)
        ):
            length += 1
        return length

    def _alike(self, one: Layer, other: Layer, *, in_list: bool) -> bool:
        """Return whether two layers differ by name and sources alone; a first one may read one source."""
        if (
            one.gates
            or other.gates
            or one.slots
            or other.slots
            or one.drops
            or other.drops
            or one.kind == "head"
        ):
            return False
        same = one.aggregation == other.aggregation
        if not in_list and not same:
            same = other.aggregation is None and self._reads_one_alike(one, other)
        return same and self._runs_alike(one, other)

    def _reads_one_alike(self, one: Layer, other: Layer) -> bool:
        """Return whether a layer without an aggregation can be called as one with it."""
        if has_parameters(one.aggregation):
            return self.classes.of(one).name == self.classes.of(other).name if not is_inline(other) else False
        return one.aggregation is not None and one.aggregation.name in ("sum", "mean", "concat")

    def _runs_alike(self, one: Layer, other: Layer) -> bool:
        if is_inline(one) or is_inline(other):
            blank = [self._inlined(layer) for layer in (one, other)]
            return is_inline(one) and is_inline(other) and blank[0] == blank[1]
        return self.classes.of(one).name == self.classes.of(other).name

    def _inlined(self, layer: Layer) -> str:
        x = "h"
        for how in forms(layer.ops, layer.in_shape):
            x = how.call("", x)
        return x

    def _write_list(self, at: int, length: int, steps: tuple[int, ...]) -> None:
        """Write a list that starts as what the first layer reads; without steps, each reads all of it."""
        layers, base = self.layers[at : at + length], self.layers[at].sources
        series = counted(layers[0].name, layers[1].name)
        assert series is not None
        name = self._variable(_list_name(series))
        self._add(f"{name} = [{', '.join(self.names.many(base))}]")
        self.names.lengths[name] = len(base) + length
        self._add(f"for {INDEX} in range({series.start}, {series.start + length}):")
        read = name
        if steps:
            read = "sources"
            self._add(
                f"    {read} = [{name}[-k] for k in ({', '.join(map(str, steps))}) if k <= len({name})]"
            )
        expression = self._expression(layers[-1], [f"*{read}"], self.paths.layer(series), f"len({read})")
        self._add(f"    {name}.append({expression})")
        for place, index in enumerate((*base, *range(at, at + length))):
            self.names.place(index, Element(name, place))

    # ---- side by side ----------------------------------------------------------------------------

    def _side_by_side(self, at: int) -> int:
        """Write layers from one on that each read one layer: the same one, or the next of a list."""
        for length in range(self._count(at), LEAST - 1, -1):
            rows = [self.layers[at + k].sources for k in range(length)]
            read = (
                None
                if any(len(row) != 1 or row[0] >= at for row in rows)
                else self._row([r[0] for r in rows])
            )
            if read is not None:
                self._write_side_by_side(at, length, *read)
                return length
        return 0

    def _row(self, sources: Sequence[int]) -> tuple[str, str] | None:
        """Return what is run over and its expression in the loop, None if sources are in no row."""
        if len(set(sources)) == 1:
            return "", self.names.one(sources[0])
        words = self.names.many(sources)
        return (words[0][1:], "h") if len(words) == 1 else None

    def _write_side_by_side(self, at: int, length: int, run: str, read: str) -> None:
        series = counted(self.layers[at].name, self.layers[at + 1].name)
        assert series is not None
        name = self._variable(f"{series.stem}s")
        made = self._expression(self.layers[at], [read], self.paths.layer(series))
        over = f"for {INDEX} in range({series.start}, {series.start + length})"
        if run:
            over = f"for {INDEX}, h in enumerate({run}, start={series.start})"
        self._add(f"{name} = [{made} {over}]")
        self.names.lengths[name] = length
        for place in range(length):
            self.names.place(at + place, Element(name, place))

    # ---- groups that repeat ----------------------------------------------------------------------

    def _repeated(self, at: int) -> int:
        names = [layer.name for layer in self.layers]
        repeat = longest_repeat(names, at, self._repeats, least=LEAST)
        if repeat is None:
            return 0
        state = self.patterns.state(at, repeat)
        if state is None:
            return 0
        self._write_group(at, repeat, state)
        return repeat.length

    def _repeats(self, at: int, period: int, times: int) -> bool:
        """Return whether the last repetition is what the first is, and reads likewise."""
        for m in range(period):
            one, other = self.layers[at + (times - 1) * period + m], self.layers[at + m]
            if not self._alike(one, other, in_list=True) or len(one.sources) != len(other.sources):
                return False
        return self.patterns.state(at, Repeat(period, times, ())) is not None

    def _write_group(self, at: int, repeat: Repeat, state: dict[int, int]) -> None:
        variables = [self._variable(name.stem) for name in repeat.names]
        outside = {m: self.names.one(index) for m, index in state.items()}
        for m, expression in outside.items():
            self._add(f"{variables[m]} = {expression}")
        self._add(repeat.loop())
        for m in range(repeat.period):
            for source in self.layers[at + repeat.period + m].sources:
                if at <= source < at + repeat.period:
                    self.names.call(source, variables[source - at])
        body_at = at + repeat.period  # the second repetition shows what all do
        for m in range(repeat.period):
            layer = self.layers[body_at + m]
            expression = self._expression(
                layer, self.names.many(layer.sources), self.paths.layer(repeat.names[m])
            )
            last = at + repeat.length - repeat.period + m
            alone = self.readers[last] == [last + 1] and m + 1 < repeat.period and m not in state
            if alone and self._goes_into_the_next(body_at + m, expression):
                self.names.call(body_at + m, expression)
                continue
            self._add(f"    {variables[m]} = {expression}")
            self.names.call(body_at + m, variables[m])
        for m in range(repeat.period):
            self.names.call(at + repeat.length - repeat.period + m, variables[m])

    # ---- names -----------------------------------------------------------------------------------

    def _add(self, line: str) -> None:
        self.lines += wrapped(INDENT + line)

    def _variable(self, name: str) -> str:
        """Return a variable's name that no other has."""
        word = re.sub(r"\W", "_", name, flags=re.ASCII).lower().strip("_") or "h"
        word = f"h_{word}" if word[0].isdigit() or keyword.iskeyword(word) else word
        candidates = (word if n == 1 else f"{word}_{n}" for n in range(1, len(self.taken) + 2))
        found = next(candidate for candidate in candidates if candidate not in self.taken)
        self.taken.add(found)
        return found


def _list_name(series: Counted) -> str:
    """Return the name of a list of outputs: that of what contains the layers, else of the layers."""
    outer, dot, _ = series.head.rpartition(".")
    return outer if dot else f"{series.stem}s"
