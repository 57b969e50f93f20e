from __future__ import annotations

import os

import pytest
from made_up import made_up_outcome


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write journals without fsync: they need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make errors up instead of training."""
    monkeypatch.setattr("connsearch.search.attempt.evaluate_network", made_up_outcome)
