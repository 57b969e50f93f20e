"""Doctests of pages run in an empty directory that has the repository's spaces and studies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from connsearch.registry import Registry

ROOT = Path(__file__).parent


@pytest.fixture(autouse=True)
def _page(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give a page its files, and take back what it registers."""
    if request.path.suffix != ".md":
        yield
        return
    from connsearch.graph import TOPOLOGIES
    from connsearch.nn.aggregations import MODULES
    from connsearch.spec import AGGREGATIONS, UNITS

    registries: list[Registry[Any]] = [TOPOLOGIES, AGGREGATIONS, MODULES, UNITS]
    before = [set(registry) for registry in registries]
    directory: Path = request.getfixturevalue("tmp_path")
    for name in ("search_spaces", "studies"):
        shutil.copytree(ROOT / name, directory / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry) - names:
            registry.unregister(name)
