"""What of a program is computed at all, and how much of it is held at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from connsearch.ir.program import Program

# The values that each value's operation reads, in the order of the program.
Reads = dict[int, tuple[int, ...]]


def live_reads(program: Program, dead: Mapping[int, Collection[int]] | None = None) -> Reads:
    """Return what is read by each operation that the outputs need.

    Args:
        program: The program.
        dead: For some values, places of operands that their operations do without: sources whose weights
            are all 0. What nothing else reads is not computed.
    """
    needed = set(program.kept)
    found: Reads = {}
    for value in range(len(program.ops), 0, -1):
        if value in needed:
            skipped = dead.get(value, ()) if dead else ()
            reads = program.op(value).reads
            found[value] = tuple(read for place, read in enumerate(reads) if place not in skipped)
            needed.update(found[value])
    return dict(reversed(found.items()))


def peak_elements(program: Program, reads: Reads) -> int:
    """Return the most elements of one image that are held while an operation runs.

    Held are what it reads, what is read after it, and what it gives out; what is read for the last time is
    released when it has run.
    """
    last = {read: value for value, operands in reads.items() for read in operands}
    held = peak = program.image.size
    for value, operands in reads.items():
        held += program.shape(value).size
        peak = max(peak, held)
        held -= sum(program.shape(read).size for read in set(operands) if last[read] == value)
    return peak
