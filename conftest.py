"""Doctests of pages run in an empty directory that has the repository's spaces and studies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent


@pytest.fixture(autouse=True)
def _page(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a page its files, and take back what it registers."""
    if request.path.suffix != ".md":
        yield
        return
    from connsearch.graph import TOPOLOGIES

    before = set(TOPOLOGIES)
    directory: Path = request.getfixturevalue("tmp_path")
    for name in ("search_spaces", "studies"):
        shutil.copytree(ROOT / name, directory / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        yield
    for name in set(TOPOLOGIES) - before:
        TOPOLOGIES.unregister(name)
