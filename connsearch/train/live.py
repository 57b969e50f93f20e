"""Lines for people who wait: printed ones, and on a terminal one below them that changes."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text


class LiveLine:
    """Prints lines; as a context, and on a terminal alone, keeps a live one below them.

    Args:
        console: Where to print; a terminal or not.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = Live(console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    @property
    def is_live(self) -> bool:
        """Whether there is a live line."""
        return self._live is not None

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(text), soft_wrap=True)

    def show(self, text: str) -> None:
        """Put a text into the live line, if there is one; what does not fit is cut off."""
        if self._live is not None:
            self._live.update(Text(text, overflow="ellipsis", no_wrap=True))
