"""The shipped JSON Schemas are those of the code, and agree with it about the shipped files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from connsearch.schemas.__main__ import FILES, schema_text

ROOT = Path(__file__).parent.parent
SHIPPED = [
    *((path, "search_space.schema.json") for path in sorted((ROOT / "search_spaces").glob("*.toml"))),
    *((path, "study.schema.json") for path in sorted((ROOT / "studies").glob("*.toml"))),
    *((path, "network.schema.json") for path in sorted((ROOT / "studies" / "networks").glob("*.toml"))),
]


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "connsearch" / "schemas" / name).read_text())
    return found


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_schema_is_current(name: str) -> None:
    assert schema(name) == json.loads(schema_text(FILES[name])), "run python -m connsearch.schemas"


@pytest.mark.parametrize(("path", "name"), SHIPPED, ids=lambda value: getattr(value, "name", value))
def test_a_shipped_file_is_valid(path: Path, name: str) -> None:
    jsonschema.validate(tomllib.loads(path.read_text()), schema(name))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("network.schema.json", {"blocks": [{"topologie": "dense"}]}, "'topologie' was unexpected"),
        ("network.schema.json", {"blocks": [{"n_layers": "3"}]}, "'3' is not of type 'integer'"),
        ("search_space.schema.json", {"blocks": {"n_layers": 2}}, "'budget' is a required property"),
        (
            "search_space.schema.json",
            {"blocks": {"n_layers": 2}, "budget": {"macs": {"any_of": [9]}}},
            r"\[9\] is too short",
        ),
        ("study.schema.json", {"space": 3}, "3 is not valid under any of the given schemas"),
    ],
)
def test_a_wrong_file_is_not(name: str, data: dict[str, Any], message: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=message):
        jsonschema.validate(data, schema(name))
