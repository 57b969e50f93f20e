"""What a backward pass allocates, and what `peak_bytes` counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from connsearch.ir import saved_elements
from connsearch.kernels import use_backend
from connsearch.nn import Network, build
from connsearch.nn.aggregations import Depthwise, NormalizedDepthwise
from connsearch.nn.fused import weighted_layer
from connsearch.nn.inference import Inference
from connsearch.nn.peak import peak_bytes
from connsearch.nn.shared import share, weights_of
from connsearch.spec import NetworkSpec
from measured import BATCH, PeakMemory

pytestmark = pytest.mark.slow  # every allocation is followed

FORMS = {"paper": Depthwise, "normalized": NormalizedDepthwise}
N_LAYERS, CHANNELS, SIZE = 10, 16, 16
Forward = Callable[[list[nn.Module], list[Tensor]], list[Tensor]]


def fused(aggregations: list[nn.Module], sources: list[Tensor]) -> list[Tensor]:
    """What each layer of a block reads, as the pipeline "fused" runs it: layer j reads the sources 0 to j."""
    weights = [weights_of(module) for module in aggregations]
    stats = isinstance(aggregations[0], NormalizedDepthwise)
    shared = [share(source, weights[i:], stats=stats) for i, source in enumerate(sources)]
    return [weighted_layer(shared[: j + 1], weights[j]) for j in range(len(sources))]


def defined(aggregations: list[nn.Module], sources: list[Tensor]) -> list[Tensor]:
    return [module(sources[: j + 1]) for j, module in enumerate(aggregations)]


def allocated(form: str, forward: Forward, dtype: torch.dtype, memory_format: torch.memory_format) -> float:
    """Return what the backward pass of a block's aggregations allocates beside gradients, in maps.

    Gradients are those of the sources and of the weights, which stay; those of what the layers read are
    there before.
    """
    aggregations: list[nn.Module] = [FORMS[form](j + 1, CHANNELS).to(dtype) for j in range(N_LAYERS)]
    sources = [
        torch.randn(4, CHANNELS, SIZE, SIZE).to(dtype, memory_format=memory_format).requires_grad_(True)
        for _ in range(N_LAYERS)
    ]
    read = forward(aggregations, sources)
    grads = [torch.randn_like(x) for x in read]
    peak = peak_bytes(lambda: torch.autograd.backward(read, grads))
    kept = [*sources, *(p for module in aggregations for p in module.parameters())]
    return (peak - sum(t.grad.nbytes for t in kept if t.grad is not None)) / sources[0].nbytes


@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_aggregations_allocate_gradients_and_no_more_than_one_map(
    form: str, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    with use_backend("cpu"):
        assert 0 <= allocated(form, fused, dtype, memory_format) <= 1.2  # a map, and sums of channels


RESIDENT = """
import ctypes, torch
from connsearch.nn.aggregations import NormalizedDepthwise
from connsearch.nn.fused import weighted_layer
from connsearch.nn.shared import share, weights_of

def memory(what):
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

def run(n_layers, batch):
    modules = [NormalizedDepthwise(j + 1, 128).to(torch.DTYPE) for j in range(n_layers)]
    shape = (batch, 128, 16, 16)
    sources = [torch.randn(shape, dtype=torch.DTYPE).to(memory_format=torch.channels_last) for _ in modules]
    weights = [weights_of(module) for module in modules]
    shared = [share(h.requires_grad_(), weights[i:], stats=True) for i, h in enumerate(sources)]
    read = [weighted_layer(shared[: j + 1], weights[j]) for j in range(n_layers)]
    grads = [torch.randn_like(x) for x in read]
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins anew
    before = memory("VmRSS")
    torch.autograd.backward(read, grads)
    return (memory("VmHWM") - before) / sources[0].nbytes - n_layers

ctypes.CDLL("libc.so.6").mallopt(-3, 1 << 16)  # blocks of 64 KiB go back to the system when they are freed
torch.set_num_threads(1)
run(2, 4)
print(run(10, 64))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
@pytest.mark.parametrize(("dtype", "buffers"), [("float32", 0), ("bfloat16", 1)])
def test_no_memory_is_taken_beside_torch(dtype: str, buffers: int) -> None:
    code = RESIDENT.replace("DTYPE", dtype)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert -0.1 <= float(found.stdout) <= buffers + 0.4


@pytest.mark.parametrize("form", FORMS)
def test_as_defined_they_allocate_more(form: str) -> None:
    assert allocated(form, defined, torch.float32, torch.contiguous_format) > 1


def block(form: str, unit: str, n_layers: int) -> NetworkSpec:
    """A network of one block, in which the maps that are aggregated are the largest."""
    return NetworkSpec(
        name="block",
        input={"channels": 3, "height": SIZE, "width": SIZE},
        n_classes=5,
        blocks=[
            {
                "topology": "dense",
                "aggregation": f"depthwise(form={form})",
                "unit": unit,
                "n_layers": n_layers,
                "width": 8,
            }
        ],
    )


def in_backward(spec: NetworkSpec, pipeline: str) -> float:
    """Return the maps alive at once that a backward pass gives out, gradients of parameters apart."""
    compiled = build(spec, pipeline=pipeline).train()
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    widest = max(m.num_features for m in compiled.modules() if isinstance(m, nn.BatchNorm2d))
    loss = compiled(images).square().mean()
    with PeakMemory(torch.empty(0)) as memory:
        loss.backward()
    return memory.peak / (BATCH * widest * SIZE * SIZE * 4)


@pytest.mark.parametrize("unit", ["basic", "bottleneck"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_layers", [2, 7])
def test_a_block_allocates_gradients_and_one_buffer(form: str, unit: str, n_layers: int) -> None:
    # The gradients: of what the layers after the first and the head read, which wait until their sources are
    # gathered, and of what a convolution gives out and reads. The buffer: what it reads, made again. What a
    # convolution of torch's allocates inside is not seen here.
    gradients, buffer, logits = n_layers + 2, 1, 0.001
    with use_backend("cpu"):
        assert in_backward(block(form, unit, n_layers), "fused") <= gradients + buffer + logits


@pytest.mark.parametrize("pipeline", ["none", "default", "fused"])
def test_a_forward_pass_holds_what_it_keeps_and_what_is_still_read(pipeline: str) -> None:
    """Of a sparse block, what layers give out is read by two others, and not kept: it goes before the end."""
    compiled = build(sparse_sums(n_layers=12), pipeline=pipeline).train()
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    kept = 4 * BATCH * (saved_elements(compiled.program) - compiled.program.image.size)
    a_map = 4 * BATCH * 8 * SIZE * SIZE
    with use_backend("reference"):
        peak = peak_bytes(lambda: compiled(images))
    assert kept < peak < kept + 4.5 * a_map


def sparse_sums(n_layers: int) -> NetworkSpec:
    made = {
        "topology": "nearest(k=2)",
        "aggregation": "sum",
        "unit": "conv",
        "n_layers": n_layers,
        "width": 8,
    }
    return NetworkSpec(input={"channels": 3, "height": SIZE, "width": SIZE}, n_classes=5, blocks=[made])


def test_a_layer_more_allocates_its_gradients_alone() -> None:
    """Temporary memory of torch's convolutions included: it does not grow with the depth."""
    spent = {}
    for n_layers in (3, 4, 8):
        compiled = build(block("normalized", "basic", n_layers)).train()
        loss = compiled(torch.randn(BATCH, 3, SIZE, SIZE)).square().mean()
        spent[n_layers] = peak_bytes(loss.backward)
        spent[n_layers] -= sum(p.grad.nbytes for p in compiled.parameters() if p.grad is not None)
    a_map = BATCH * 8 * SIZE * SIZE * 4
    assert spent[4] - spent[3] <= 1.05 * a_map
    assert spent[8] - spent[4] <= 4 * 1.05 * a_map


def test_peak_bytes_counts_what_is_alive_at_once() -> None:
    a = torch.zeros(1000)

    def run() -> Tensor:
        b = a + 1  # 4000 bytes
        b = torch.cat([b, b])  # 8000 beside them, then alone
        return b * 2  # another 8000

    assert 16_000 <= peak_bytes(run) <= 16_064  # scalars
    assert peak_bytes(lambda: a.add_(1)) <= 64
    assert peak_bytes(lambda: None) == 0


def test_peak_bytes_does_not_count_what_was_there() -> None:
    held = [torch.zeros(1000)]

    def run() -> None:
        held.append(torch.zeros(500))
        held.clear()
        held.append(torch.zeros(600))

    assert 2400 <= peak_bytes(run) <= 2464


def test_evaluation_is_measured_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    run = Inference.run

    def watched(self: Inference, images: Tensor) -> tuple[Tensor, ...]:
        ran.append(len(images))
        return run(self, images)

    monkeypatch.setattr(Inference, "run", watched)
    network = Network(block("paper", "bottleneck", 4)).eval()
    images = torch.randn(8, 3, SIZE, SIZE)
    with torch.no_grad():
        compiled = build(network)
        compiled(images)
        peak = peak_bytes(lambda: compiled(images))
        assert ran == [8, 8]
    widest = 8 * 16 * SIZE * SIZE * 4
    assert widest <= peak < 8 * widest


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_bytes_on_a_gpu() -> None:
    a = torch.zeros(1 << 20, device="cuda")
    assert peak_bytes(lambda: (a + 1) * 2, "cuda") == 2 * a.nbytes
