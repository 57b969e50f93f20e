"""Files that are either whole or not touched."""

from __future__ import annotations

import os
from pathlib import Path

from connsearch.errors import ConnsearchError


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file through a temporary one beside it, so that nobody sees half of it.

    Raises:
        ConnsearchError: if that is not possible.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        try:
            temporary.write_bytes(content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConnsearchError(f"{target}: cannot be written: {error.strerror or error}") from None
    return target
