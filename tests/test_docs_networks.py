"""The files that docs/networks.md shows are networks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from connsearch.cost import network_cost
from connsearch.spec import BlockConfig, NetworkSpec

PAGE = (Path(__file__).parents[1] / "docs/networks.md").read_text()
FILES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("text", "n_layers"), list(zip(FILES, (10, 2), strict=True)))
def test_a_shown_file_is_a_network(text: str, n_layers: int) -> None:
    assert network_cost(NetworkSpec.from_dict(tomllib.loads(text))).n_layers == n_layers


def test_every_key_is_told() -> None:
    for model in (NetworkSpec, BlockConfig):
        keys = {field.alias or name for name, field in model.model_fields.items()}
        told = {key for key in keys if re.search(rf"[`\[]{key}[`\]]|^{key} =", PAGE, re.MULTILINE)}
        assert keys - told == set()
