"""Is what a caller gave a network?"""

from __future__ import annotations

from connsearch.errors import SpecError
from connsearch.spec.network import NetworkSpec


def check_network(given: object) -> None:
    """Refuse what is no specification, with the way from a name or a file to one.

    Raises:
        SpecError: if it is something else.
    """
    if isinstance(given, NetworkSpec):
        return
    way_out = ""
    if isinstance(given, str):
        way = "NetworkSpec.from_toml" if given.endswith(".toml") else "preset"
        way_out = f": give cs.{way}({given!r})"
    raise SpecError(f"a NetworkSpec is asked for, got {repr(given)[:80]}{way_out}")
