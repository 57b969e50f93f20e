"""State dicts in torchvision's format against networks written in plain PyTorch, both ways."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.nn.torchvision import load_torchvision, to_torchvision, torchvision_modules
from connsearch.spec import NetworkSpec
from connsearch.spec.presets import preset
from connsearch.spec.presets.supervised import with_heads

WIDTHS = (64, 128, 256, 512)


class Residual(nn.Module):
    """A residual layer with torchvision's names, a bottleneck if its expansion is 4."""

    def __init__(self, before: int, width: int, stride: int, expansion: int, groups: int, inner: int) -> None:
        super().__init__()
        out, middle = width * expansion, width * inner
        if expansion == 1:
            kernels, channels, strides, split = (3, 3), (before, middle, out), (stride, 1), (1, 1)
        else:
            kernels, channels = (1, 3, 1), (before, middle, middle, out)
            strides, split = (1, stride, 1), (1, groups, 1)
        self.n = len(kernels)
        for i, kernel in enumerate(kernels):
            conv = nn.Conv2d(
                channels[i], channels[i + 1], kernel, strides[i], kernel // 2, groups=split[i], bias=False
            )
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(channels[i + 1]))
        self.downsample: nn.Module | None = None
        if stride != 1 or before != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.n + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.n:
                out = torch.relu(out)
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class PlainResNet(nn.Module):
    """ResNet for large images in plain PyTorch, with torchvision's names."""

    def __init__(
        self, depths: tuple[int, ...], expansion: int, n_classes: int, groups: int = 1, inner: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        before = 64
        for b, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            layers = []
            for i in range(depth):
                stride = 2 if b > 0 and i == 0 else 1
                layers.append(Residual(before, width, stride, expansion, groups, inner))
                before = width * expansion
            self.add_module(f"layer{b + 1}", nn.Sequential(*layers))
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for b in range(1, 5):
            x = getattr(self, f"layer{b}")(x)
        return self.fc(self.mean(x).flatten(1))


def small(name: str, n_classes: int = 1000) -> NetworkSpec:
    """Return a preset for images of 64 x 64 pixels."""
    return preset(name, n_classes=n_classes).model_copy(update={"input": {"height": 64, "width": 64}})


def filled(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict of the module's shapes with random weights and statistics, in float64."""
    rng = torch.Generator().manual_seed(seed)
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


CASES = [
    pytest.param("resnet-18", (2, 2, 2, 2), 1, {}, id="resnet18"),
    pytest.param("resnet-50", (3, 4, 6, 3), 4, {}, id="resnet50"),
    pytest.param("wrn-50-2", (3, 4, 6, 3), 4, {"inner": 2}, id="wide_resnet50_2", marks=pytest.mark.slow),
    pytest.param(
        "resnext-50-32x4d",
        (3, 4, 6, 3),
        4,
        {"inner": 2, "groups": 32},
        id="resnext50_32x4d",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("name", "depths", "expansion", "more"), CASES)
def test_a_torchvision_resnet_gives_the_same_logits_bit_for_bit(
    name: str, depths: tuple[int, ...], expansion: int, more: dict[str, int]
) -> None:
    plain = PlainResNet(depths, expansion, 1000, **more).double().eval()
    state = filled(plain)
    plain.load_state_dict(state)
    network = Network(small(name)).double().eval()
    load_torchvision(network, state)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = plain(images)
        assert torch.equal(network(images), expected)
    assert expected.std() > 1e-3

    back = to_torchvision(network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_ours_goes_into_theirs_after_a_step_of_training() -> None:
    network = Network(small("resnet-18", n_classes=7))
    network.train()(torch.randn(3, 3, 64, 64))
    plain = PlainResNet((2, 2, 2, 2), 1, 7).eval()
    plain.load_state_dict(to_torchvision(network))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(images), network.eval()(images))


def test_counters_of_batches_may_be_missing() -> None:
    network = Network(small("resnet-18"))
    network.train()(torch.randn(2, 3, 64, 64))
    state = {k: v for k, v in to_torchvision(network).items() if "num_batches" not in k}
    load_torchvision(network, state)
    assert to_torchvision(network)["layer1.0.bn1.num_batches_tracked"] == 0


def test_wrong_state_dicts_name_the_key() -> None:
    network = Network(small("resnet-18"))
    state = to_torchvision(network)
    lacking = {k: v for k, v in state.items() if k != "layer2.0.downsample.0.weight"}
    with pytest.raises(SpecError, match=r"^state dict lacks 'layer2\.0\.downsample\.0\.weight': is it of"):
        load_torchvision(network, lacking)
    with pytest.raises(SpecError, match=r"^state dict lacks 'bn1\.bias', .*, .* and 99 more: is it of"):
        load_torchvision(network, {})
    with pytest.raises(SpecError, match=r"^state dict has no use for 'layer1\.2\.conv1\.weight': is it of"):
        load_torchvision(network, {**state, "layer1.2.conv1.weight": torch.zeros(1)})
    message = r"'fc\.weight' is 10 x 512, but 'head\.linear1\.weight' is 1000 x 512: use the network"
    with pytest.raises(SpecError, match=message):
        load_torchvision(network, {**state, "fc.weight": torch.zeros(10, 512)})


def test_the_keys_of_a_resnet() -> None:
    keys = torchvision_modules(preset("resnet-50"))
    assert keys["stem.conv1"] == "conv1"
    assert keys["stem.norm1"] == "bn1"
    assert keys["block3.unit6.norm2"] == "layer3.5.bn2"
    assert keys["block1.unit1_shortcut.norm1"] == "layer1.0.downsample.1"
    assert keys["head.linear1"] == "fc"
    assert len(keys) == len(set(keys.values())) == 53 * 2 + 1


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("resnet-v2-50", "block1.unit1_shortcut"),
        ("wrn-40-4", "stem"),
        ("elu-resnet-110", "stem"),
        ("highway-19", "block1.unit1_join"),
        ("delugenet-146", "block1.layer3"),
    ],
)
def test_networks_that_torchvision_does_not_have(name: str, node: str) -> None:
    message = rf"^torchvision has no network like '{name}': .*no resnet, as node '{node}'"
    with pytest.raises(SpecError, match=message):
        torchvision_modules(preset(name))


def test_a_network_of_several_heads_is_none_of_torchvisions() -> None:
    network = Network(with_heads(preset("resnet-18", n_classes=10), ["block1.unit2_sum"]))
    with pytest.raises(SpecError, match=r"as it has one head, this network has block1.unit2_sum_head, head"):
        to_torchvision(network)
