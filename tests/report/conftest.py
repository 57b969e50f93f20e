from __future__ import annotations

from pathlib import Path

import made_studies
import pytest

from connsearch.search.study import Study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study of eight trials, one of which failed and one diverged."""
    return made_studies.run(tmp_path_factory.mktemp("report") / "study", 8)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a study may be made."""
    return tmp_path / "made"
