"""Training: norms over concatenations that run in Triton together with the 1x1 convolutions after them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cases import DENSE, laid_out, name_of, random
from interpreting import run
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch import kernels
from connsearch.kernels import use_backend
from connsearch.nn import Network, build
from connsearch.nn.fused import concat_layer
from connsearch.nn.shared import share
from connsearch.nn.verify import randomise, verify_network
from connsearch.spec import NetworkSpec

pytestmark = pytest.mark.slow  # networks in Triton's interpreter

WIDTHS = [5, 3, 4]


class Counted:
    """How often kernels were called in a `with`."""

    def __init__(self, *names: str) -> None:
        self.calls = dict.fromkeys(names, 0)
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> dict[str, int]:
        for name in self.calls:
            self._patch.setattr(kernels, name, self._counting(name, getattr(kernels, name)))
        return self.calls

    def __exit__(self, *_: Any) -> None:
        self._patch.undo()

    def _counting(self, name: str, kernel: Any) -> Any:
        def call(*args: Any) -> Any:
            self.calls[name] += 1
            return kernel(*args)

        return call


class Reader(nn.Module):
    """conv(relu(norm([h_1, ..., h_N]))) of some of the sources."""

    def __init__(self, sources: list[int], **conv: Any) -> None:
        super().__init__()
        self.sources = sources
        self.norm = nn.BatchNorm2d(sum(WIDTHS[i] for i in sources))
        self.conv = nn.Conv2d(self.norm.num_features, 6, **{"kernel_size": 1, "bias": False, **conv})

    def forward(self, sources: list[Tensor]) -> Tensor:
        return self.conv(F.relu(self.norm(torch.cat([sources[i] for i in self.sources], dim=1))))

    def fused(self, shared: list[Any]) -> Tensor:
        return concat_layer([shared[i] for i in self.sources], self.norm, nn.ReLU(), self.conv)


def step(readers: nn.ModuleList, sources: list[Tensor], *, fused: bool) -> list[Tensor]:
    """Return outputs, gradients of sources and parameters, and running statistics."""
    leaves = [h.detach().requires_grad_() for h in sources]
    given = [share(h * 1, stats=True) for h in leaves] if fused else [h * 1 for h in leaves]
    outputs = [reader.fused(given) if fused else reader(given) for reader in readers]
    outputs += [(h.value if fused else h).sin() for h in given]  # readers that are not fused
    loss = sum((y.double() * torch.linspace(-1, 1, y.numel()).to(y).view_as(y)).sum() for y in outputs)
    params = [p for p in readers.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, [*leaves, *params])
    return [*(y.detach() for y in outputs), *grads, *readers.buffers()]


def readers_agree(
    backend: str, readers: list[dict[str, Any]], calls: int, dtype: torch.dtype, layout: str, device: str
) -> None:
    torch.manual_seed(0)
    defined = nn.ModuleList(Reader(**reader) for reader in readers)
    randomise(defined)
    sources = [laid_out(random((2, C, 5, 7), i), layout) for i, C in enumerate(WIDTHS)]
    fused = copy.deepcopy(defined).to(device, dtype)
    counted = Counted("norm_act_conv", "norm_act_conv_backward")
    with counted as found, use_backend(backend), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        fast = step(fused, [h.to(device, dtype) for h in sources], fused=True)
    assert found == {"norm_act_conv": calls, "norm_act_conv_backward": calls}
    near = {torch.float64: 1e-10, torch.float32: 1e-4}.get(dtype, 5e-2)
    for a, b in zip(fast, step(defined.double(), sources, fused=False), strict=True):
        torch.testing.assert_close(a.cpu().double(), b.double(), rtol=near, atol=near * float(b.abs().max()))


ONE = [{"sources": [0, 1]}]
OVERLAPPING = [{"sources": [0, 1]}, {"sources": [2, 0]}, {"sources": [1]}]
TWICE = [{"sources": [0, 1, 0]}, {"sources": [0, 0]}]
ODD = [
    {"sources": [0, 1], "kernel_size": 3, "padding": 1},
    {"sources": [0, 1], "padding": 1},
    {"sources": [0, 1], "stride": 2},
    {"sources": [0, 1], "groups": 2},
    {"sources": [0, 1], "bias": True},
]


@pytest.mark.gpu
@pytest.mark.parametrize("layout", DENSE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=name_of)
def test_a_reader(dtype: torch.dtype, layout: str) -> None:
    run(readers_agree, "triton", ONE, 1, dtype, layout)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=name_of)
def test_readers_of_the_same_sources(dtype: torch.dtype) -> None:
    run(readers_agree, "triton", OVERLAPPING, 3, dtype, "channels_last")


@pytest.mark.gpu
def test_a_source_that_is_read_twice() -> None:
    run(readers_agree, "triton", TWICE, 2, torch.float64, "nchw")


@pytest.mark.gpu
def test_other_convolutions_are_torchs() -> None:
    run(readers_agree, "triton", ODD, 0, torch.float64, "nchw")


@pytest.mark.parametrize("readers", [OVERLAPPING, TWICE])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_on_a_cpu_all_are_torchs(backend: str, readers: list[dict[str, Any]]) -> None:
    readers_agree(backend, readers, 0, torch.float64, "nchw", "cpu")


def types_agree(device: str) -> None:
    """Autocast decides in which type a convolution is: where not in that of the maps, torch's runs."""
    reader = Reader([0, 1]).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        sources = [random((2, C, 5, 7), i).to(device, dtype) for i, C in enumerate(WIDTHS[:2])]
        autocast = torch.autocast(device, torch.bfloat16)
        with autocast, use_backend("triton"), Counted("norm_act_conv") as found:
            assert reader.fused(sources).dtype == torch.bfloat16
        assert found == {"norm_act_conv": int(dtype == torch.bfloat16)}


@pytest.mark.gpu
def test_autocast() -> None:
    run(types_agree)


def block(topology: str, n_layers: int = 2, n_blocks: int = 2) -> NetworkSpec:
    """Layers as in DenseNet-BC, and its transitions."""
    made = {
        "topology": topology,
        "aggregation": "concat",
        "unit": "bottleneck",
        "n_layers": n_layers,
        "width": 3,
    }
    return NetworkSpec(
        name=topology, input={"channels": 3, "height": 6, "width": 5}, n_classes=4, blocks=[made] * n_blocks
    )


def network_agrees(spec: dict[str, Any], dtype: torch.dtype, channels_last: bool, device: str) -> None:
    counted = Counted("norm_act_conv", "norm_act_conv_backward")
    with counted as calls, use_backend("triton"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        found = verify_network(
            NetworkSpec.from_dict(spec),
            device=device,
            batch=4,
            steps=1,
            dtype=dtype,
            channels_last=channels_last,
        )
    found.raise_if_wrong()
    assert calls["norm_act_conv"] == calls["norm_act_conv_backward"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("topology", "dtype", "channels_last"),
    [
        ("dense", torch.float32, True),
        pytest.param("dense", torch.bfloat16, False, marks=pytest.mark.slow),
        pytest.param("nearest(k=2)", torch.bfloat16, True, marks=pytest.mark.slow),
        pytest.param("log_dense", torch.float32, False, marks=pytest.mark.slow),
    ],
)
def test_a_network_equals_its_definition(topology: str, dtype: torch.dtype, *, channels_last: bool) -> None:
    run(network_agrees, block(topology).to_dict(), dtype, channels_last)


def kept_bytes(backend: str, spec: NetworkSpec) -> int:
    """Return what a forward pass keeps for the backward pass."""
    torch.manual_seed(0)
    compiled, storages = build(Network(spec)), {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with use_backend(backend), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compiled(torch.randn(2, 3, 6, 5))
    return sum(storage.nbytes() for storage in storages.values())


def keeps_no_more(spec: dict[str, Any], device: str) -> None:
    spec_ = NetworkSpec.from_dict(spec)
    assert kept_bytes("triton", spec_) <= kept_bytes("reference", spec_)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU, where the CPU's kernels do not run")
def test_no_more_is_kept() -> None:
    run(keeps_no_more, block("dense", n_blocks=1).to_dict())
