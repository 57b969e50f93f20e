"""What a sampler is told of a failure, and what memory a training needs at least."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_up import SPACE, make_config

from connsearch.cost import network_cost
from connsearch.data import load_dataset
from connsearch.errors import BudgetError, DataError, StudyError, TrainError
from connsearch.nn import build
from connsearch.search import memory
from connsearch.search.failures import died, failure_of, worst_values
from connsearch.search.memory import OutOfMemoryError, check_memory, free_bytes, needed_bytes
from connsearch.spec.network import NetworkSpec

SPEC = NetworkSpec(
    input={"channels": 1, "height": 8, "width": 8},
    n_classes=4,
    blocks=[{"topology": "dense", "n_layers": 3, "width": 16}],
)
ALL = ["val_error", "macs", "params", "training_bytes"]


def test_the_worst_is_told_as_far_as_it_is_known() -> None:
    space = {**SPACE, "budget": {**SPACE["budget"], "params": 9000}}
    config = make_config(space=space, objectives=dict.fromkeys(ALL, "minimize"))
    assert worst_values(config, None, []) == [1.0, 200_000.0, 9000.0, 1.0]
    cost = network_cost(SPEC)
    assert worst_values(config, cost, []) == [1.0, cost.macs, cost.params, cost.training_bytes]
    config = make_config(objectives=dict.fromkeys(ALL, "maximize"))
    assert worst_values(config, None, []) == [0.0, 0.0, 0.0, 0.0]


def test_what_has_no_bound_is_told_as_the_worst_seen() -> None:
    from optuna.trial import create_trial

    config = make_config(objectives={"training_bytes": "minimize", "params": "minimize"})
    seen = [create_trial(values=values) for values in ([5.0, 7.0], [9.0, 3.0], [float("inf"), 1.0])]
    assert worst_values(config, None, seen) == [9.0, 7.0]


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (BudgetError("too dear"), "too dear", "too dear"),
        (OutOfMemoryError("out of memory on cpu: no"), "out of memory on cpu", "out of memory on cpu: no"),
        (TrainError("3 classes returned"), "3 classes returned", "3 classes returned"),
        (ValueError("a\nb"), "ValueError: a", "ValueError: a\nValueError: a\nb"),
        (ZeroDivisionError(), "ZeroDivisionError", "ZeroDivisionError\nZeroDivisionError"),
    ],
)  # fmt: skip
def test_reasons_can_be_counted(error: Exception, reason: str, detail: str) -> None:
    failure = failure_of(error)
    assert (failure.reason, failure.detail) == (reason, detail)
    assert str(failure) == detail.splitlines()[0]
    assert str(died(3)) == "worker died 3 times in a row before it finished a further epoch"


@pytest.mark.parametrize("error", [StudyError("disk"), DataError("missing")])
def test_what_is_wrong_with_the_study_is_no_failure_of_a_trial(error: Exception) -> None:
    with pytest.raises(type(error), match=f"^{error}$"):
        failure_of(error)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_least_memory_is_what_is_really_kept(optimizer: str) -> None:
    """Against torch: weights, gradients and moments after a step; activations have tests of their own."""
    train = make_config().train.model_copy(update={"optimizer": optimizer})
    cost = network_cost(SPEC)
    network = build(SPEC, pipeline="none")
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    stepper = make(network.parameters(), lr=0.1, **({"momentum": 0.9} if optimizer == "sgd" else {}))
    images = load_dataset(train.dataset).train.images[:4].float()
    network(images).sum().backward()
    stepper.step()
    moments = [v for state in stepper.state.values() for v in state.values() if torch.is_tensor(v) and v.ndim]
    kept = [*network.parameters(), *(p.grad for p in network.parameters()), *moments]
    bytes_kept = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    assert needed_bytes(cost, train, "cpu") == bytes_kept + train.batch_size * cost.training_bytes


def test_what_need_not_be_kept_is_not_counted() -> None:
    train, cost = make_config().train, network_cost(SPEC)
    plain = make_config().train.model_copy(update={"momentum": 0.0})
    assert needed_bytes(cost, train, "cpu") - needed_bytes(cost, plain, "cpu") == 4 * cost.params
    fused = train.model_copy(update={"pipeline": "fused"})
    assert needed_bytes(cost, fused, "cpu") < needed_bytes(cost, train, "cpu")
    assert needed_bytes(cost, train, "cuda:0") < needed_bytes(cost, train, "cpu")  # activations in bfloat16


def test_a_batch_in_parts_needs_the_memory_of_a_part() -> None:
    train, cost = make_config().train, network_cost(SPEC)
    rest = needed_bytes(cost, train, "cpu") - train.batch_size * cost.training_bytes
    for accumulate, images in ((2, 32), (3, 22), (32, 2)):
        divided = train.model_copy(update={"batch_size": 64, "accumulate": accumulate})
        assert needed_bytes(cost, divided, "cpu") == rest + images * cost.training_bytes


def test_an_average_is_one_more_copy_of_the_weights() -> None:
    train, cost = make_config().train, network_cost(SPEC)
    averaged = train.model_copy(update={"ema": 0.99})
    assert needed_bytes(cost, averaged, "cpu") - needed_bytes(cost, train, "cpu") == 4 * cost.params


def test_memory_that_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    train, cost = make_config().train, network_cost(SPEC)
    need = needed_bytes(cost, train, "cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: need)
    check_memory(cost, train, "cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: need - 1)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory on cpu, predicted: [\d.]+ .?B at least for "):
        check_memory(cost, train, "cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    check_memory(cost, train, "cpu")


def test_the_free_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_CGROUPS", ((limit, used),))
    before = free_bytes("cpu")
    limit.write_text("5000\n")
    used.write_text("2000\n")
    assert free_bytes("cpu") == 3000
    limit.write_text("max\n")
    assert before is None or abs((free_bytes("cpu") or 0) - before) < before
    used.write_text("9000\n")
    limit.write_text("5000\n")
    assert free_bytes("cpu") == 0
