"""StudyConfig: everything that makes a study what it is, as `studies/*.toml` say it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from connsearch.config import Config, read_toml
from connsearch.data.registry import DATASETS
from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref, ref_field
from connsearch.search.samplers import SAMPLERS
from connsearch.search.space import SearchSpace
from connsearch.train.config import TrainConfig

if TYPE_CHECKING:
    SamplerRef = Ref
else:
    SamplerRef = ref_field(SAMPLERS)

OBJECTIVES = ("val_error", "macs", "params", "inference_bytes", "training_bytes")
Direction = Literal["minimize", "maximize"]


class StudyConfig(Config):
    """A study: a question, a space, objectives, a sampler, training.

    Attributes:
        question: What the study is to answer.
        space: The search space; in a file, its table or the path of its own file, relative to this one.
        objectives: What is optimised, and whether less or more is better. `val_error` is measured on the
            validation split, the others are counted.
        n_trials: How many trials the study has when it is complete.
        seed: All randomness follows from it.
        sampler: Who proposes trials.
        duplicates: What a trial does whose network an earlier one had, perhaps spelled otherwise:
            "replicate" trains it with seeds of its own, "reuse" takes the earlier result.
        train: How networks are trained.

    Raises:
        SpecError: if a value is wrong (the message names its place).
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    question: str = ""
    space: SearchSpace
    objectives: dict[str, Direction] = Field(default={"val_error": "minimize", "macs": "minimize"})
    n_trials: int = Field(40, ge=1)
    seed: int = Field(0, ge=0)
    sampler: SamplerRef = Ref("tpe")
    duplicates: Literal["replicate", "reuse"] = "replicate"
    train: TrainConfig = TrainConfig(dataset=DATASETS.ref("digits"))

    @model_validator(mode="after")
    def _known_objectives(self) -> Self:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise SpecError(
                    f"unknown objective {name!r}. {did_you_mean(name, OBJECTIVES)}", place="objectives"
                )
        if not self.objectives:
            raise SpecError("name at least one objective", place="objectives")
        return self

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a study file.

        Args:
            path: The file.
            overrides: `key.key=value` each, put in place of what the file says; `space.` reaches into
                the space, wherever it is written. Values are TOML, or text where they are no TOML.

        Raises:
            SpecError: if the file or its space cannot be read, or describes no valid study.
        """
        data = read_toml(path)
        given = list(overrides)
        for override in given:
            if override.partition("=")[0].strip() == "space":
                _override(data, override)
        if isinstance(data.get("space"), str):
            file = Path(path).parent / data["space"]
            data["space"] = read_toml(file)
            SearchSpace.from_dict(data["space"], source=str(file))  # its errors name its own file
        for override in given:
            if override.partition("=")[0].strip() != "space":
                _override(data, override)
        return cls.from_dict(data, source=str(path))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a study file, in which the space may be a path."""
        schema = super().json_schema()
        schema["properties"]["space"] = {"anyOf": [schema["properties"]["space"], {"type": "string"}]}
        return schema

    def identity(self) -> dict[str, Any]:
        """Return what must agree for two runs to belong to one study, by dotted key."""
        data = self.model_dump(mode="json", by_alias=True, exclude={"question", "n_trials"})
        order = ", ".join(self.objectives)  # a trial's values are recorded in this order
        return {**dict(_flat(data, "")), "objectives": order}


def _flat(data: Any, place: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(data, dict):
        yield place, data
        return
    for key, value in data.items():
        yield from _flat(value, f"{place}.{key}" if place else key)


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"--set takes key=value, got {override!r}")
    *outer, last = key.strip().split(".")
    table: Any = data
    for part in outer:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SpecError(f"--set {override}: {part!r} is a value, not a table")
    try:
        table[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = text
