"""FC-HarDNets: recounts by hand from the paper's table of channels and layers, and plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.cost import network_cost
from connsearch.cost.counters import conv_traffic
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset
from connsearch.spec.presets.fc_hardnets import PRESETS, fc_hardnet


class Recount:
    """Sums over convolutions, without a graph: parameters, multiply-accumulates, elements."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.params = self.macs = self.elements = 0

    def conv(
        self, reads: int, gives: int, kernel: int, scale: int, *, norm: bool = True, up: int = 0
    ) -> None:
        """Count a convolution at a scale; `up`: a transposed one, which reads that many scales below."""
        pixels, read_pixels = ((self.height >> s) * (self.width >> s) for s in (scale, scale + up))
        weights = reads * gives * kernel**2
        self.params += weights + gives + (2 * reads if norm else 0)
        self.macs += weights * (read_pixels if up else pixels)
        self.elements += reads * read_pixels + gives * pixels

    def block(self, entry: int, depth: int, growth: int, weighting: float, scale: int) -> int:
        """Count a block and return the channels of its odd layers and its last."""
        channels = [entry]
        for k in range(1, depth + 1):
            links = [k - 2**n for n in range(5) if k % 2**n == 0 and k >= 2**n]
            wide = growth * weighting ** (len([n for n in range(1, 5) if k % 2**n == 0]))
            channels.append(int(int(wide + 1) / 2) * 2)
            self.conv(sum(channels[j] for j in links), channels[k], 3, scale)
        return sum(channels[k] for k in range(1, depth + 1) if k % 2 or k == depth)


def recount(
    stem: int, depths: Sequence[int], growths: Sequence[int], weighting: float, n_classes: int = 11
) -> Recount:
    total, skips, entry = Recount(352, 480), [], stem
    total.conv(3, stem, 3, 0, norm=False)
    *down, middle = list(zip(depths, growths, strict=True))
    for scale, (depth, growth) in enumerate(down):
        entry += total.block(entry, depth, growth, weighting, scale)
        skips.append(entry)
        total.conv(entry, entry, 1, scale)
    out = total.block(entry, *middle, weighting, len(down))
    for scale, (depth, growth) in reversed(list(enumerate(down))):
        total.conv(out, out, 3, scale, norm=False, up=1)
        out = total.block(out + skips[scale], depth, growth, weighting, scale)
    total.conv(out, n_classes, 1, 0, norm=False)
    return total


# stem, layers, g, m; then millions of parameters, "GMACs", which are doubled, and CIO in MB, as printed
TABLES = {
    "ref100": ((48, (8,) * 6, (10,) * 6, 1.54), (3.6, 151, 2076)),
    "68": ((8, (4, 4, 4, 4, 8, 8), (4, 6, 8, 8, 10, 10), 1.7), (1.4, 15, 473)),
    "76": ((24, (4, 4, 4, 8, 8, 8), (8, 10, 12, 12, 12, 14), 1.7), (3.5, 53, 932)),  # 54 is printed
    "84": ((32, (4, 4, 8, 8, 8, 8), (10, 12, 14, 16, 20, 22), 1.7), (8.4, 100, 1267)),
}


@pytest.mark.parametrize("name", TABLES)
def test_recounted_figures(name: str) -> None:
    (stem, depths, growths, weighting), printed = TABLES[name]
    expected = recount(stem, depths, growths, weighting)
    spec = fc_hardnet(stem, depths, growths, weighting=weighting)
    cost = network_cost(spec)
    assert (cost.params, cost.macs) == (expected.params, expected.macs)
    assert conv_traffic(spec) == 4 * expected.elements
    counted = (
        round(cost.params / 1e6, 1), round(2 * cost.macs / 1e9), round(conv_traffic(spec) / 1e6)
    )  # fmt: skip
    assert counted == printed
    if f"fc-hardnet-{name}" in PRESETS:
        assert network_cost(preset(f"fc-hardnet-{name}")) == cost


def test_an_fc_hardnet_is_plain_pytorch() -> None:
    small = {"input": InputConfig(height=8, width=12), "n_classes": 3}
    network = Network(fc_hardnet(6, (4, 2), (4, 6), **small)).eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + (0.5 if "var" in key else 0))

    def block(number: int, entry: Tensor, reads: dict[int, list[int]]) -> Tensor:
        """Return the odd layers and the last of a block whose layers read these."""
        outputs = [entry]
        for k, sources in reads.items():
            node = network.node(f"block{number}.layer{k}")
            outputs.append(node.conv1(F.relu(node.norm1(torch.cat([outputs[j] for j in sources], dim=1)))))
        return torch.cat([outputs[k] for k in reads if k % 2 or k == len(reads)], dim=1)

    four, two = {1: [0], 2: [0, 1], 3: [2], 4: [0, 2, 3]}, {1: [0], 2: [0, 1]}
    images = torch.rand(2, 3, 8, 12, generator=generator)
    stem = network.node("stem").conv1(images)
    skip = torch.cat([stem, block(1, stem, four)], dim=1)
    down, up = network.node("down1"), network.node("up2")
    middle = block(2, F.max_pool2d(down.conv1(F.relu(down.norm1(skip))), 2), two)
    out = block(3, torch.cat([skip, up.deconv1(middle)], dim=1), four)
    torch.testing.assert_close(network(images), network.node("head").conv1(out))


def test_each_block_needs_a_growth_rate() -> None:
    with pytest.raises(SpecError, match=r"^growths: 2 blocks need as many growth rates, got \[4\]$"):
        fc_hardnet(8, (4, 4), (4,))
    for depths in ((), (4, 0)):
        with pytest.raises(SpecError, match=r"^depths: each block needs an integer of at least 1, got \["):
            fc_hardnet(8, depths, (4,) * len(depths))
