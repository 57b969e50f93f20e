"""Networks with several heads: the last is the network's own, the others supervise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.data import load_dataset
from connsearch.graph import ConnectivityGraph, Node
from connsearch.nn import Network, build
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec
from connsearch.train import TrainConfig, train


def supervised() -> NetworkSpec:
    """Two layers, each with a head."""
    nodes = (Node("stem", "stem"), Node("a"), Node("early", "head"), Node("b"), Node("late", "head"))
    graph = ConnectivityGraph(nodes, ((), (0,), (1,), (1,), (3,)))
    shape = {"channels": 1, "height": 8, "width": 8}
    return NetworkSpec.from_graph(graph, width=4, unit="conv", n_classes=10, input=shape)


def test_every_head_gives_logits_and_the_last_is_the_networks_own() -> None:
    network = Network(supervised()).eval()
    x = torch.randn(3, 1, 8, 8)
    found = network.logits_by_head(x)
    assert list(found) == list(network.heads) == ["early", "late"]
    assert torch.equal(network(x), found["late"])
    assert not torch.equal(found["early"], found["late"])


@pytest.mark.parametrize("make", [Network, build])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_training_weighs_the_loss_of_further_heads(
    make: Callable[[NetworkSpec], nn.Module], weight: float
) -> None:
    data = load_dataset(Ref("synthetic", (("n_train", 32), ("n_val", 8), ("n_test", 8))))
    spec = supervised()
    spec = spec.model_copy(
        update={
            "input": dict(zip(("channels", "height", "width"), data.train.images.shape[1:], strict=True)),
            "n_classes": data.n_classes,
        }
    )
    torch.manual_seed(0)
    network = make(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = TrainConfig(
        dataset="synthetic", epochs=1, batch_size=32, augment=False, head_weight=weight, weight_decay=0.0
    )
    record = train(network, data, config, seed=0).curve[0]
    moved = not torch.equal(before["early.linear1.weight"], network.state_dict()["early.linear1.weight"])
    assert moved == (weight > 0)
    reference = Network(spec)
    reference.load_state_dict(before)
    logits = reference.train().logits_by_head(data.train.images)
    early, late = (F.cross_entropy(found, data.train.labels) for found in logits.values())
    assert record.train_loss == pytest.approx((late + weight * early).item(), rel=1e-4)
