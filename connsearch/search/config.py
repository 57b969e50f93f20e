"""StudyConfig: everything that makes a study what it is, as `studies/*.toml` say it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from connsearch.config import Config, override, read_toml
from connsearch.data.registry import DATASETS
from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref, ref_field
from connsearch.search.measured import Limits
from connsearch.search.measures import ERRORS, error_of
from connsearch.search.proxies.prefilter import Prefilter
from connsearch.search.pruning.rules import PRUNERS, make_pruner
from connsearch.search.replicates.plan import ReplicatesConfig
from connsearch.search.samplers import SAMPLERS
from connsearch.search.space import SearchSpace
from connsearch.search.tournament.contestants import TournamentConfig
from connsearch.search.transfer.warm_start import WarmStart
from connsearch.train.config import TrainConfig

if TYPE_CHECKING:
    SamplerRef = Ref
    PrunerRef = Ref
else:
    SamplerRef = ref_field(SAMPLERS)
    PrunerRef = ref_field(PRUNERS)

OBJECTIVES = (*ERRORS, "macs", "params", "inference_bytes", "training_bytes")
Direction = Literal["minimize", "maximize"]


class StudyConfig(Config):
    """A study: a question, a space, objectives, a sampler, training.

    Attributes:
        question: What the study is to answer.
        space: The search space; in a file, its table or the path of its own file, relative to this one.
        objectives: What is optimised, and whether less or more is better. `val_error`, and for label maps
            `val_iou_error` (1 - mean IoU), are measured on the validation split, the others are counted.
        n_trials: How many trials the study has when it is complete.
        seed: All randomness follows from it.
        sampler: Who proposes trials.
        pruner: Which trials are ended before their last epoch: none, or by a rule.
        constraints: Greatest milliseconds and bytes of a network, measured before it is trained.
        duplicates: What a trial does whose network an earlier one had, perhaps spelled otherwise:
            "replicate" trains it with seeds of its own, "reuse" takes the earlier result.
        train: How networks are trained.
        tournament: How `connsearch tournament` compares all pairs of topology and aggregation; of use to
            no other command until it has named the contestants.
        replicates: Which trials of another study are repeated; `connsearch replicate` fills it in.
        warm_start: What the study begins with: presets, designs and results of another study.
        prefilter: Which zero-cost proxy picks one of several candidates, once it has proved itself.

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
    pruner: PrunerRef = Ref("none")
    constraints: Limits = Limits()
    duplicates: Literal["replicate", "reuse"] = "replicate"
    train: TrainConfig = TrainConfig(dataset=DATASETS.ref("digits"))
    tournament: TournamentConfig | None = None
    replicates: ReplicatesConfig | None = None
    warm_start: WarmStart | None = None
    prefilter: Prefilter | None = None

    @model_validator(mode="after")
    def _known_objectives(self) -> Self:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise SpecError(
                    f"unknown objective {name!r}. {did_you_mean(name, OBJECTIVES)}", place="objectives"
                )
        if not self.objectives:
            raise SpecError("name at least one objective", place="objectives")
        if self.objectives.keys() >= set(ERRORS):
            raise SpecError(f"{' and '.join(ERRORS)} are two errors: name one", place="objectives")
        return self

    @model_validator(mode="after")
    def _usable_pruner(self) -> Self:
        error = error_of(self.objectives)
        if self.pruner.name != "none" and self.objectives.get(error) != "minimize":
            raise SpecError(
                f"{self.pruner.name!r} compares errors: add {error} = 'minimize' to the objectives, or "
                "leave the pruner out", place="pruner",
            )  # fmt: skip
        try:
            make_pruner(self.pruner, self.train.epochs)
        except SpecError as error:
            raise SpecError(error.detail, place="pruner") from None
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
        if isinstance(data.get("train"), dict) and "dataset" in data["train"]:
            data["train"]["dataset"] = DATASETS.beside(data["train"]["dataset"], path)
        given = list(overrides)
        for text in given:
            if text.partition("=")[0].strip() == "space":
                override(data, text)
        if isinstance(data.get("space"), str):
            file = Path(path).parent / data["space"]
            data["space"] = read_toml(file)
            SearchSpace.from_dict(data["space"], source=str(file))  # its errors name its own file
        for text in given:
            if text.partition("=")[0].strip() != "space":
                override(data, text)
        config = cls.from_dict(data, source=str(path))
        if config.warm_start is not None:
            config.warm_start.beside(path)
        return config

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a study file, in which the space may be a path."""
        schema = super().json_schema()
        schema["properties"]["space"] = {"anyOf": [schema["properties"]["space"], {"type": "string"}]}
        return schema

    def identity(self) -> dict[str, Any]:
        """Return what must agree for two runs to belong to one study, by dotted key."""
        data = self.model_dump(mode="json", by_alias=True, exclude={"question", "n_trials"})
        data["train"] = self.train.identity()
        data["tournament"] = self.tournament.identity() if self.tournament is not None else None
        data["warm_start"] = self.warm_start.identity() if self.warm_start is not None else None
        order = ", ".join(self.objectives)  # a trial's values are recorded in this order
        return {**dict(_flat(data, "")), "objectives": order}

    def bare(self, **more: Any) -> Self:
        """Return a study with the question, space, objectives, seed and training of this one, and with more.

        Nothing draws, prunes or filters its trials: each is given and trained to its end.
        """
        kept = {name: getattr(self, name) for name in ("question", "space", "objectives", "seed", "train")}
        return type(self)(**{**kept, "sampler": "random", **more})


def _flat(data: Any, place: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(data, dict):
        yield place, data
        return
    for key, value in data.items():
        yield from _flat(value, f"{place}.{key}" if place else key)
