"""Settings of the tests of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connsearch.data import registry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test has a cache of its own, and forgets what it loaded."""
    monkeypatch.setenv("CONNSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    registry._load.cache_clear()
    yield tmp_path / "cache" / "datasets"
    registry._load.cache_clear()
