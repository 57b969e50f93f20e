"""DenseNets in torchvision's format against one written in plain PyTorch, both ways."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.nn.torchvision import densenet_keys, load_torchvision, to_torchvision, torchvision_modules
from connsearch.spec import NetworkSpec
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset

DEPTHS = (6, 12, 24, 16)


def modules(**named: nn.Module) -> nn.Module:
    """Return a container with these children."""
    found = nn.Module()
    for name, child in named.items():
        found.add_module(name, child)
    return found


def dense_layer(before: int, growth: int) -> nn.Module:
    return modules(
        norm1=nn.BatchNorm2d(before),
        conv1=nn.Conv2d(before, 4 * growth, 1, bias=False),
        norm2=nn.BatchNorm2d(4 * growth),
        conv2=nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
    )


class PlainDenseNet(nn.Module):
    """DenseNet-BC for large images in plain PyTorch, with torchvision's names."""

    def __init__(self, depths: tuple[int, ...], growth: int, n_classes: int) -> None:
        super().__init__()
        self.depths = depths
        channels = 2 * growth
        features = modules(conv0=nn.Conv2d(3, channels, 7, 2, 3, bias=False), norm0=nn.BatchNorm2d(channels))
        for b, depth in enumerate(depths, start=1):
            layers = {f"denselayer{i + 1}": dense_layer(channels + i * growth, growth) for i in range(depth)}
            features.add_module(f"denseblock{b}", modules(**layers))
            channels += depth * growth
            if b < len(depths):
                half = channels // 2
                conv = nn.Conv2d(channels, half, 1, bias=False)
                features.add_module(f"transition{b}", modules(norm=nn.BatchNorm2d(channels), conv=conv))
                channels = half
        features.add_module("norm5", nn.BatchNorm2d(channels))
        self.features = features
        self.classifier = nn.Linear(channels, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        f = self.features
        x = nn.functional.max_pool2d(torch.relu(f.norm0(f.conv0(x))), 3, 2, 1)
        for b, depth in enumerate(self.depths, start=1):
            block = getattr(f, f"denseblock{b}")
            for i in range(1, depth + 1):
                layer = getattr(block, f"denselayer{i}")
                inner = layer.conv1(torch.relu(layer.norm1(x)))
                x = torch.cat([x, layer.conv2(torch.relu(layer.norm2(inner)))], dim=1)
            if b < len(self.depths):
                transition = getattr(f, f"transition{b}")
                x = nn.functional.avg_pool2d(transition.conv(torch.relu(transition.norm(x))), 2)
        return self.classifier(torch.relu(f.norm5(x)).mean(dim=(2, 3)))


def small(name: str, n_classes: int = 1000) -> NetworkSpec:
    """Return a preset for images of 64 x 64 pixels."""
    return preset(name, n_classes=n_classes).replaced(input=InputConfig(height=64, width=64))


def filled(module: nn.Module) -> dict[str, Tensor]:
    """Return a state dict of the module's shapes with random weights and statistics, in float64."""
    rng = torch.Generator().manual_seed(0)
    found = {}
    for key, tensor in module.state_dict().items():
        if tensor.dtype == torch.int64:
            found[key] = torch.randint(1, 99, tensor.shape, generator=rng)
            continue
        values = torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        if tensor.dim() > 1:
            values *= (2 / tensor[0].numel()) ** 0.5
        elif key.endswith("running_var"):
            values = 0.5 + values.abs()
        found[key] = values
    return found


def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pair() -> tuple[PlainDenseNet, Network, dict[str, Tensor]]:
    """Return a plain DenseNet-121, ours with the same weights, and the weights."""
    plain = PlainDenseNet(DEPTHS, 32, 1000).double()
    state = filled(plain)
    plain.load_state_dict(state)
    network = Network(small("densenet-121")).double()
    load_torchvision(network, state)
    return plain, network, {key: tensor.clone() for key, tensor in state.items()}


def test_evaluation_is_equal_bit_for_bit(pair: tuple[PlainDenseNet, Network, dict[str, Tensor]]) -> None:
    plain, network, state = pair
    back = to_torchvision(network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    with torch.no_grad():
        expected = plain.eval()(images())
        assert torch.equal(network.eval()(images()), expected)
    assert expected.std() > 1e-3


def test_training_is_equal_bit_for_bit(pair: tuple[PlainDenseNet, Network, dict[str, Tensor]]) -> None:
    """Logits, gradients and the running statistics after a step."""
    plain, network, _ = pair
    expected, found = plain.train()(images()), network.train()(images())
    assert torch.equal(found, expected)
    expected.square().mean().backward()
    found.square().mean().backward()
    keys = densenet_keys(network.spec)
    theirs = dict(plain.named_parameters())
    for name, parameter in network.named_parameters():
        module, _, tensor = name.rpartition(".")
        torch.testing.assert_close(parameter.grad, theirs[f"{keys[module]}.{tensor}"].grad)
    after, ours = plain.state_dict(), to_torchvision(network)
    assert all(torch.equal(ours[key], after[key]) for key in after)


def test_keys_of_old_files() -> None:
    """They have `norm.1` for `norm1`, and no counters."""
    spec = small("densenet-121", n_classes=7)
    state = filled(PlainDenseNet(DEPTHS, 32, 7))
    old = {
        re.sub(r"(denselayer\d+\.)(norm|conv)(\d)", r"\1\2.\3", key): tensor
        for key, tensor in state.items()
        if "num_batches" not in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    network = Network(spec).double()
    load_torchvision(network, old)
    back = to_torchvision(network)
    assert all(torch.equal(back[key], state[key]) for key in state if "num_batches" not in key)


def test_the_keys_of_a_densenet() -> None:
    keys = torchvision_modules(preset("densenet-121"))
    assert keys["stem.conv1"] == "features.conv0"
    assert keys["block3.layer24.conv2"] == "features.denseblock3.denselayer24.conv2"
    assert keys["transition3.norm1"] == "features.transition3.norm"
    assert keys["head.norm1"] == "features.norm5"
    assert keys["head.linear1"] == "classifier"
    assert len(keys) == len(set(keys.values())) == 2 + 4 * sum(DEPTHS) + 2 * 3 + 2


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("sparsenet-121-32", "block1.layer3"),
        ("densenet-bc-100-12", "stem"),
        ("resnet-50", "block1.unit1"),
        ("hardnet-68", "stem_conv"),
    ],
)
def test_networks_that_are_no_densenet(name: str, node: str) -> None:
    with pytest.raises(SpecError, match=rf"^node '{node}.*' is none of its layers$"):
        densenet_keys(preset(name))
