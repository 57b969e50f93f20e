from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from connsearch.errors import SpecError
from connsearch.registry import Ref
from connsearch.train import TrainConfig


def test_defaults() -> None:
    config = TrainConfig.from_dict({"dataset": "digits"})
    assert config.to_dict() == {"dataset": "digits"}
    assert (config.epochs, config.batch_size, config.optimizer, config.lr) == (12, 64, "sgd", 0.1)
    assert (config.schedule, config.momentum, config.weight_decay) == ("cosine", 0.9, 1e-4)
    assert config.decay_norms
    assert config.augment
    assert (config.precision, config.layout, config.ema, config.accumulate) == ("auto", "auto", 0.0, 1)


def test_a_data_set_with_parameters_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text('epochs = 3\ndataset = { name = "synthetic", noise = 2.0, seed = 0 }\n')
    config = TrainConfig.from_toml(path)
    assert config.dataset == Ref("synthetic", (("noise", 2.0),))
    path.write_text(config.to_toml())
    assert TrainConfig.from_toml(path) == config


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries(
        {"dataset": st.sampled_from(["digits", "synthetic", "synthetic(n_train=64)"])},
        optional={
            "epochs": st.integers(2, 500),
            "batch_size": st.integers(2, 4096),
            "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
            "lr": st.floats(1e-9, 1e9),
            "decay_norms": st.booleans(),
            "schedule": st.sampled_from(["constant", "step", "cosine"]),
            "milestones": st.lists(st.floats(0.01, 0.99), unique=True).map(lambda m: tuple(sorted(m))),
            "warmup_epochs": st.floats(0, 1.99),
        },
    )
)
def test_toml_and_json_give_the_value_back(data: dict[str, Any]) -> None:
    config = TrainConfig.from_dict(data)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_json(config.to_json()) == config
    assert hash(TrainConfig.from_dict(config.to_dict())) == hash(config)


@pytest.mark.parametrize(
    ("key", "wrong", "near", "message"),
    [
        ("epochs", 0, 1, "epochs: .*greater than or equal to 1, got 0"),
        ("batch_size", 1, 2, "batch_size: .*greater than or equal to 2, got 1"),
        ("optimizer", "sdg", "sgd", "optimizer: .*'sgd', 'adam' or 'adamw', got 'sdg'"),
        ("lr", 0.0, 1e-12, "lr: .*greater than 0, got 0.0"),
        ("lr", float("inf"), 1e6, "lr: .*finite number, got inf"),
        ("momentum", 1.0, 0.999, "momentum: .*less than 1, got 1.0"),
        ("momentum", -0.1, 0.0, "momentum: .*greater than or equal to 0, got -0.1"),
        ("weight_decay", -1e-9, 0.0, "weight_decay: .*greater than or equal to 0"),
        (
            "schedule",
            "linear",
            "step",
            "schedule: .*'step', 'cosine' or 'one_cycle', got 'linear'",
        ),
        ("milestones", [0.5, 1.0], [0.5, 0.99], r"milestones\[1\]: .*less than 1, got 1.0"),
        ("milestones", [0.0], [], r"milestones\[0\]: .*greater than 0, got 0.0"),
        ("milestones", [0.5, 0.5], [0.5, 0.51], r"milestones must ascend, got \[0.5, 0.5\]"),
        ("peak", 0.0, 0.01, "peak: .*greater than 0, got 0.0"),
        ("peak", 1.0, 0.99, "peak: .*less than 1, got 1.0"),
        ("ema", 1.0, 0.9999, "ema: .*less than 1, got 1.0"),
        ("ema", -0.1, 0.0, "ema: .*greater than or equal to 0, got -0.1"),
        ("accumulate", 0, 1, "accumulate: .*greater than or equal to 1, got 0"),
        (
            "accumulate",
            33,
            32,
            "accumulate = 33 leaves less than 2 of batch_size = 64 images at once: set at",
        ),
        ("precision", "bf16", "bfloat16", "precision: .*'auto', 'float32' or 'bfloat16', got 'bf16'"),
        ("layout", "nchw", "channels_first", "layout: .*'auto', 'channels_first' or 'channels_last', got"),
        ("gamma", 0.0, 1.0, "gamma: .*greater than 0, got 0.0"),
        ("gamma", 1.1, 1.0, "gamma: .*less than or equal to 1, got 1.1"),
        ("warmup_epochs", -0.5, 0.0, "warmup_epochs: .*greater than or equal to 0"),
        ("warmup_epochs", 12.0, 11.9, "warmup_epochs = 12.0 must be below epochs = 12"),
        ("label_smoothing", 1.0, 0.99, "label_smoothing: .*less than 1, got 1.0"),
        ("grad_clip", -1.0, 0.0, "grad_clip: .*greater than or equal to 0, got -1.0"),
        ("dataset", "digit", "digits", r"dataset: unknown dataset 'digit'\. Did you mean 'digits'\?"),
    ],
)
def test_a_value_out_of_range_is_named_and_its_neighbour_passes(
    key: str, wrong: object, near: object, message: str
) -> None:
    TrainConfig.from_dict({"dataset": "digits"} | {key: near})
    with pytest.raises(SpecError, match=f"^study.toml: {message}"):
        TrainConfig.from_dict({"dataset": "digits"} | {key: wrong}, source="study.toml")


def test_the_data_set_is_required_and_keys_are_known() -> None:
    with pytest.raises(SpecError, match=r"^dataset: is missing$"):
        TrainConfig.from_dict({})
    with pytest.raises(SpecError, match=r"^epoch: unknown key\. Did you mean 'epochs'\?"):
        TrainConfig.from_dict({"dataset": "digits", "epoch": 3})
