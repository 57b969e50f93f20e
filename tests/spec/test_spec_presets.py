"""Presets as data: each is a valid network that files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from connsearch.cost import network_cost
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.presets import FAMILIES, PRESETS, preset


def test_names_of_families_differ() -> None:
    assert sum(map(len, FAMILIES.values())) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_toml_and_json(name: str, tmp_path: Path) -> None:
    spec = preset(name)
    path = tmp_path / "net.toml"
    path.write_text(spec.to_toml(), encoding="utf-8")
    again = NetworkSpec.from_toml(path)
    assert again == spec
    assert hash(again) == hash(spec)
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert resolve(again) == resolve(spec)
    assert network_cost(spec).n_layers > 0
