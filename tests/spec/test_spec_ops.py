"""Operations as values."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from connsearch.spec.ops import ACTIVATIONS, NORMS, Act, Norm, Op, is_batch_norm, is_relu, op_names

OPERATIONS = get_args(Op)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(OPERATIONS, 2)))
def test_different_operations_are_unequal_whatever_their_numbers(one: type, other: type) -> None:
    """As bare tuples `GlobalPool()` and `Softmax()` would share what caches know of each other."""
    assert one._field_defaults["op"] != other._field_defaults["op"]
    assert one._fields[-1] == other._fields[-1] == "op"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_a_name_in_state_dicts(operation: type) -> None:
    numbers = {field: 1 for field in operation._fields if field not in operation._field_defaults}
    assert op_names((operation(**numbers),))[0].endswith("1")


def test_batch_norm_and_relu_are_told_from_all_others() -> None:
    others = [Norm(kind, 4) for kind in NORMS] + [Act(kind) for kind in ACTIVATIONS]
    others += [Norm("relu", 4), Act("batch"), None]
    assert [op for op in others if is_batch_norm(op)] == [Norm("batch", 4)]
    assert [op for op in others if is_relu(op)] == [Act("relu")]
