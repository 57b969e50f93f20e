"""Networks as CUDA graphs: captured for good on a GPU, and with the capture faked on a CPU."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from faked_graphs import copies, fake_graphs
from torch import Tensor, nn

import connsearch as cs
from connsearch.errors import KernelError, SpecError
from connsearch.graph import ConnectivityGraph, Node
from connsearch.nn import Network, ahead, build
from connsearch.nn.graphs import GraphedNetwork, graphed
from connsearch.nn.verify import randomise
from connsearch.spec import NetworkSpec

KINDS = {
    "depthwise": ("depthwise(form=paper)", 3),
    "normalised depthwise": ("depthwise", 3),
    "concat": ("concat", 3),
    "weighted": ("weighted", 3),
    "routed": ("routed", 3),
    "sum": ("sum", 3),
    "a table of pointers": ("depthwise", 18),
    "sums begun together": ("depthwise", 13),
}


def block(aggregation: str, n_layers: int = 3, **more: object) -> NetworkSpec:
    made = {"topology": "dense", "aggregation": aggregation, "n_layers": n_layers, "width": 4}
    return NetworkSpec(
        name=aggregation,
        input={"channels": 3, "height": 8, "width": 8},
        n_classes=5,
        blocks=[{**made, "unit": "bottleneck"}],
        **more,
    )


def pair(spec: NetworkSpec, device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    """Return a compiled network and another on copies of its weights, in float64."""
    torch.manual_seed(0)
    network = Network(spec).double()
    randomise(network)
    return build(copy.deepcopy(network), device=device), build(network, device=device)


def some_images(n: int = 3, device: str = "cpu") -> Tensor:
    return torch.randn(n, 3, 8, 8, dtype=torch.float64, device=device)


def trained(module: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    """Return logits, gradients, parameters and running statistics of all steps."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    found: list[Tensor] = []
    for images in batches:
        optimizer.zero_grad()
        logits = module(images)
        logits.square().mean().backward()
        found += copies([logits, *(p.grad for p in module.parameters() if p.grad is not None)])
        optimizer.step()
        found += copies([*module.parameters(), *module.buffers()])
    return found


def assert_close(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)


def steps_agree(kind: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregation, n_layers = KINDS[kind]
    if kind == "sums begun together":
        monkeypatch.setattr(ahead, "CACHE_BYTES", 0)
    plain, captured = pair(block(aggregation, n_layers), device)
    batches = [some_images(device=device) for _ in range(3)]
    step = graphed(captured, batches[1])
    assert_close(trained(step, batches), trained(plain, batches))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a faked capture did."""
    return fake_graphs(monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_network(kind: str, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    steps_agree(kind, "cpu", monkeypatch)
    passes = ["graph", "end graph"] * 2  # forward, backward
    assert log == ["device", "stream", "end stream", *passes, "end device", *["replay"] * 6]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_steps_on_a_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps_agree(kind, "cuda", monkeypatch)


def evaluations_agree(device: str) -> None:
    plain, captured = (module.eval() for module in pair(block("concat"), device))
    infer, images = graphed(captured, some_images(device=device)), some_images(device=device)
    for _ in range(2):
        with torch.no_grad():
            expected = plain(images)
        found = infer(images)
        assert not found.requires_grad
        assert_close([found], [expected])
        with torch.no_grad():  # what is captured anew
            for module in (plain, captured):
                for tensor in (*module.parameters(), *module.buffers()):
                    tensor.mul_(2)


def test_evaluation(log: list[str]) -> None:
    evaluations_agree("cpu")
    assert log.count("graph") == 2  # forward, twice
    assert log.count("replay") == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_evaluation_on_a_gpu() -> None:
    evaluations_agree("cuda")


@pytest.mark.usefixtures("log")
def test_a_capture_changes_nothing() -> None:
    _, network = pair(block("depthwise"))
    images = some_images()
    before = copies([images, *network.state_dict().values()])
    step = graphed(network, images)
    assert_close([images, *network.state_dict().values()], before)
    assert all(p.grad is None for p in network.parameters())
    step(some_images())
    torch.testing.assert_close(images, before[0])


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_add_up(*, set_to_none: bool) -> None:
    plain, network = pair(block("depthwise"))
    batches, found = [some_images() for _ in range(3)], []
    for module in (plain, graphed(network, batches[0])):
        module(batches[0]).square().sum().backward()
        module.zero_grad(set_to_none=set_to_none)
        for images in batches[1:]:
            module(images).square().sum().backward()
        found.append(copies([p.grad for p in module.parameters() if p.grad is not None]))
    assert_close(*found)


@pytest.mark.usefixtures("log")
def test_gradients_of_images() -> None:
    plain, network = pair(block("depthwise"))
    images = some_images().requires_grad_()
    step = graphed(network, images)
    images = some_images().requires_grad_()
    grads = [torch.autograd.grad(module(images).square().sum(), images)[0] for module in (plain, step)]
    assert_close(grads[:1], grads[1:])


@pytest.mark.usefixtures("log")
def test_a_backward_pass_follows_its_forward_pass() -> None:
    _, network = pair(block("sum"))
    step = graphed(network, some_images())
    first, second = step(some_images()), step(some_images())
    with pytest.raises(KernelError, match="a CUDA graph goes backward once, before the next forward pass"):
        first.sum().backward()
    second.sum().backward(retain_graph=True)
    with pytest.raises(KernelError, match="a CUDA graph goes backward once"):
        second.sum().backward()


def test_the_other_mode_runs_the_network_itself(log: list[str]) -> None:
    plain, network = pair(block("depthwise"))
    batches = [some_images() for _ in range(2)]
    step = graphed(network, batches[0])
    trained(step, batches), trained(plain, batches)
    log.clear()
    for images in (some_images(7), batches[0]):
        assert not step.eval().network.training
        with torch.no_grad():
            assert_close([step(images)], [plain.eval()(images)])
    assert not log
    assert_close(trained(step.train(), batches), trained(plain.train(), batches))


def test_constants_of_evaluation_follow_replays(log: list[str]) -> None:
    """A replay moves running statistics, which torch does not count by itself."""
    plain, network = pair(block("depthwise"))
    step, images = graphed(network, some_images()), some_images()
    infer = graphed(network.eval(), images)
    network.train()
    for module in (step, plain):
        with torch.no_grad():
            module(images)
    network.eval()
    log.clear()
    with torch.no_grad():
        assert_close([infer(images)], [plain.eval()(images)])
    assert "device" in log  # it was captured anew


@pytest.mark.usefixtures("log")
def test_a_graph_of_evaluation_holds_the_constants_that_it_reads() -> None:
    _, network = pair(block("depthwise"))
    infer = graphed(network.eval(), some_images())
    constants = weakref.ref(network._inference)
    network.train()
    assert constants() is not None
    del infer
    gc.collect()
    assert constants() is None


@pytest.mark.parametrize("change", ["freeze", "thaw", "move", "set"])
def test_what_was_changed_is_captured_anew(change: str, log: list[str]) -> None:
    plain, network = pair(block("concat"))
    for module in (plain, network):
        module.get_submodule("block1.layer1.conv1").requires_grad_(change != "thaw")
    batches = [some_images() for _ in range(2)]
    step = graphed(network, batches[0])
    for module in (plain, step):
        part = module.get_submodule("block1.layer1")
        if change in ("freeze", "thaw"):
            part.conv1.requires_grad_(change == "thaw")
        elif change == "move":
            part.conv1.weight.data = part.conv1.weight.data.clone()
        else:
            part.norm1.eval()
    assert_close(trained(step, batches), trained(plain, batches))
    assert log.count("device") == 2


def supervised() -> NetworkSpec:
    """Two layers, each with a head."""
    nodes = (Node("stem", "stem"), Node("a"), Node("early", "head"), Node("b"), Node("late", "head"))
    graph = ConnectivityGraph(nodes, ((), (0,), (1,), (1,), (3,)))
    shape = {"channels": 3, "height": 8, "width": 8}
    return NetworkSpec.from_graph(graph, width=4, unit="conv", n_classes=5, input=shape)


@pytest.mark.usefixtures("log")
def test_other_heads_get_no_gradients() -> None:
    plain, network = pair(supervised())
    batches = [some_images() for _ in range(2)]
    step = graphed(network, batches[0])
    assert_close(trained(step, batches), trained(plain, batches))
    assert network.get_parameter("early.linear1.weight").grad is None


@pytest.mark.usefixtures("log")
def test_the_state_is_the_networks_own() -> None:
    _, network = pair(block("depthwise"))
    step = cs.graphed(network, some_images())
    assert isinstance(step, GraphedNetwork)
    assert step.state_dict().keys() == network.state_dict().keys()
    assert all(a is b for a, b in zip(step.parameters(), network.parameters(), strict=True))
    with pytest.raises(KernelError, match="CUDA graphs cannot be copied or saved: copy the network"):
        copy.deepcopy(step)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            some_images(2),
            r"images are torch.float64 2 x 3 x 8 x 8 on cpu, the graph is of torch.float64 3 x 3",
        ),
        (
            some_images().float(),
            "images are torch.float32 3 x 3 x 8 x 8 on cpu, the graph is of torch.float64",
        ),
        (
            some_images().requires_grad_(),
            "8 on cpu, with gradients, the graph is of torch.float64 3 x 3 x 8 x 8 on",
        ),
    ],
)
def test_other_images_are_refused(images: Tensor, message: str) -> None:
    step = graphed(pair(block("sum"))[1], some_images())
    with pytest.raises(SpecError, match=message):
        step(images)


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(SpecError, match=r"^CUDA graphs need images on a CUDA device, not on cpu$"):
        graphed(build(block("sum")), some_images())


@pytest.mark.usefixtures("log")
def test_what_cannot_be_captured_is_told() -> None:
    images, network = some_images(), build(block("sum")).double()
    with pytest.raises(SpecError, match=r"^the network is on meta, the images are on cpu: move one$"):
        graphed(build(block("sum"), device="meta"), images)
    dropping = block("sum", drop="stochastic_depth(survival=0.5)")
    with pytest.raises(SpecError, match="training of sum decides at random for each step"):
        graphed(build(dropping).double(), images)
    graphed(build(dropping).double().eval(), images)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(SpecError, match=r"^autocast keeps casts, .* give it cache_enabled=False$"),
    ):
        graphed(network, images)
    network.get_submodule("block1.layer1.conv1").register_forward_hook(lambda *_: None)
    with pytest.raises(
        SpecError, match=r"^block1.layer1.conv1 has hooks or a forward of its own, which no CUDA"
    ):
        graphed(network, images)


@pytest.mark.parametrize("kind", KINDS)
def test_ports_give_the_gradients_that_a_capture_asks_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of parameters alone, by `autograd.grad`, of logits with a gradient of their own."""
    aggregation, n_layers = KINDS[kind]
    if kind == "sums begun together":
        monkeypatch.setattr(ahead, "CACHE_BYTES", 0)
    plain, asked = pair(block(aggregation, n_layers))
    images, grad = some_images(), torch.randn(3, 5, dtype=torch.float64)
    plain(images).backward(grad)
    for _ in range(2):
        found = torch.autograd.grad(
            (asked(images),), tuple(asked.parameters()), (grad,), only_inputs=True, allow_unused=True
        )
        assert_close([*found], [p.grad for p in plain.parameters() if p.grad is not None])
