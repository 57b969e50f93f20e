"""Write the JSON Schemas beside this file."""

from __future__ import annotations

import json
from pathlib import Path

from connsearch.config import Config
from connsearch.files import write_whole
from connsearch.search.config import StudyConfig
from connsearch.search.space import SearchSpace
from connsearch.spec.network import NetworkSpec

FILES: dict[str, type[Config]] = {
    "network.schema.json": NetworkSpec,
    "search_space.schema.json": SearchSpace,
    "study.schema.json": StudyConfig,
}


def schema_text(model: type[Config]) -> str:
    """Return the schema of a file as text."""
    return json.dumps(model.json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    for name, model in FILES.items():
        write_whole(Path(__file__).with_name(name), schema_text(model).encode())
