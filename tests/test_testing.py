"""Contracts hold for all that is registered, and each way of breaking one is told."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from connsearch.errors import SpecError
from connsearch.graph import TOPOLOGIES, register_topology
from connsearch.nn import implement_aggregation
from connsearch.nn.aggregations import MODULES
from connsearch.nn.verify import Comparison
from connsearch.spec import AGGREGATIONS, UNITS, Aggregation, register_aggregation, register_unit
from connsearch.spec.aggregations import Footprint, Owned
from connsearch.spec.chains import norm_act
from connsearch.spec.ops import Chain, Conv
from connsearch.testing import check_aggregation, check_topology, check_unit

pytestmark = pytest.mark.slow  # every extension is checked whole, many times over

REGISTRIES = (TOPOLOGIES, AGGREGATIONS, MODULES, UNITS)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Unregister what a test registers."""
    before = [set(registry) for registry in REGISTRIES]
    yield
    for registry, names in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - names:
            registry.unregister(name)


# ---- what is registered --------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", [*sorted(TOPOLOGIES), "sparse(base=3)", "random_dag(p=0.2, seed=4)"])
def test_every_topology_keeps_the_contract(topology: str) -> None:
    check_topology(topology)


@pytest.mark.parametrize(
    "aggregation",
    [
        *sorted(AGGREGATIONS),
        "depthwise(form=paper, single=true)",
        "gated(bias=0.5)",
        "routed(hidden=3, single=true)",
        "weighted(activation=sigmoid, single=true)",
    ],
)
def test_every_aggregation_keeps_the_contract(aggregation: str) -> None:
    check_aggregation(aggregation)


@pytest.mark.parametrize("unit", [*sorted(UNITS), "conv(order=post, groups=3)", "attention(heads=4)"])
def test_every_unit_keeps_the_contract(unit: str) -> None:
    check_unit(unit)


def test_random_numbers_go_on_as_if_nothing_had_been_checked() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check_aggregation("weighted")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("check", [check_topology, check_aggregation, check_unit])
def test_a_name_that_nobody_registered_is_told(check: Callable[[str], None]) -> None:
    with pytest.raises(SpecError, match=r"^unknown (topology|aggregation|unit) 'own'\. "):
        check("own")


# ---- topologies ----------------------------------------------------------------------------------------

CALLS = itertools.count()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda j: (j - 1, j), r"node 1 reads 1: it must read some of 0\.\.0$"),
        (lambda j: (j - 1,) if j < 7 else (j - 1, j + 2), r"node 7 reads 9: it must read some of 0\.\.6$"),
        (lambda j: (j - 1,) if j != 5 else (2,), r"no later node of 5 reads node 4$"),
        (lambda j: (j - 1, next(CALLS) % j), r"of 17 layers reads .*, asked again .*: draw from a seed"),
    ],
    ids=["itself", "a later node", "a loose end", "other nodes each time"],
)
def test_a_wrong_topology_is_told(rule: Callable[[int], Iterable[int]], message: str) -> None:
    register_topology("own")(rule)
    with pytest.raises(AssertionError, match=f"^topology 'own': {message}"):
        check_topology("own")


# ---- aggregations --------------------------------------------------------------------------------------


class Own(nn.Module):
    """x = sum_i w_i h_i."""

    def __init__(self, rule: Any, channels: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(len(channels)))

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        total = sources[0] * self.weight[0]
        for w, h in zip(self.weight[1:], sources[1:], strict=True):
            total.addcmul_(h, w)
        return total


RULE: dict[str, Any] = {
    "edge": lambda self, channels, pixels: Owned(params=1, source_macs=channels * pixels),
    "footprint": lambda self, n: Footprint(saves_sources=True),
}


def register(module: Callable[..., nn.Module] | None, **changes: Any) -> None:
    rule = type("OwnRule", (Aggregation,), {**RULE, **changes})
    register_aggregation("own")(dataclass(frozen=True, kw_only=True)(rule))
    if module is not None:
        implement_aggregation("own")(module)


def test_an_aggregation_of_ones_own_keeps_the_contract() -> None:
    register(Own)
    check_aggregation("own")


def of(forward: Callable[[Own, Sequence[Tensor]], Tensor]) -> type[Own]:
    return type("Wrong", (Own,), {"forward": forward})


class Hidden(Own):
    """One number that no state dict holds."""

    def __init__(self, rule: Any, channels: Sequence[int]) -> None:
        super().__init__(rule, channels)
        self.factor = 1 + next(CALLS)

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        return super().forward(sources) * self.factor


class Convolving(Own):
    """The sum through a 1x1 convolution, which the rule does not count."""

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        h = super().forward(sources)
        return nn.functional.conv2d(h, torch.eye(h.shape[1]).to(h)[:, :, None, None])


def doubled(module: Own, sources: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        sources[0].mul_(2)
    return Own.forward(module, [source.clone() for source in sources])


def saving(temporaries: int = 0, saved: int = 0, *, sources: bool = True) -> dict[str, Any]:
    return {"footprint": lambda self, n: Footprint(temporaries, saved, sources)}


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "module": (None, {}, "aggregation 'own' has no module: register one with implement_aggregation"),
    "params": (
        Own, {"edge": lambda self, c, p: Owned(params=2)}, "the rule counts 4 parameters, the module has 2"
    ),
    "conv macs": (Convolving, {}, "the rule counts 0 MACs of convolutions, torch 270"),
    "sources saved": (
        Own, saving(sources=False), "the rule's footprint has saves_sources = False, measured is True"
    ),
    "maps saved": (Own, saving(saved=2), "the rule's footprint has saved = 2, measured is 0"),
    "temporaries": (
        Own, saving(1), "the rule's footprint has temporaries = 1, measured is 0"
    ),
    "adds": (Own, {"adds": True}, "`adds` is for the plain sum or mean of the sources"),
    "channels": (
        Own, {"out_channels": lambda self, c: sum(c)}, "the module makes (4, 3, 6, 5), not (4, 6, 6, 5)"
    ),
    "equal channels": (
        of(lambda m, s: torch.cat([Own.forward(m, s)] * 2, 1)),
        {"out_channels": lambda self, c: 2 * c[0]},
        "sources of equal channels, yet another number of them is made",
    ),
    "pixels": (
        of(lambda m, s: Own.forward(m, s).mean((2, 3))), {}, "the module makes (4, 3), not (4, 3, 6, 5)"
    ),
    "dtype": (
        of(lambda m, s: Own.forward(m, s).float()), {}, "the module makes torch.float32 of torch.float64"
    ),
    "value": (of(lambda m, s: Own.forward(m, s) / 0), {}, "what the module makes is not finite"),
    "in place": (of(doubled), {}, "the module changes source 1, which others read: copy it"),
    "source": (
        of(lambda m, s: Own.forward(m, [*s[:-1], s[-1].detach()])), {}, "no gradient reaches source 2"
    ),
    "weight": (
        of(lambda m, s: sum(w * h for w, h in zip(m.weight.detach(), s, strict=True))),
        {},
        "no gradient reaches weight",
    ),
    "gradient": (
        of(lambda m, s: Own.forward(m, s) + (0 * s[0]).abs().sqrt()),
        {},
        "the gradient of source 1 is not finite",
    ),
    "chance": (
        of(lambda m, s: Own.forward(m, s) * torch.rand(())),
        {},
        "evaluation gives another result when it runs again",
    ),
    "batch": (
        of(lambda m, s: Own.forward(m, s) - s[0].mean()),
        {},
        "in evaluation an image depends on the others of its batch",
    ),
    "state": (
        Hidden, {}, "a module with the same state dict computes something else: use parameters and buffers"
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_a_wrong_aggregation_is_told(wrong: str) -> None:
    module, rule, message = WRONG[wrong]
    register(module, **rule)
    place = "aggregation 'own': of sources of 3, 3 channels: "
    with pytest.raises(AssertionError, match=f"^{re.escape(place + message)}"):
        check_aggregation("own")


def test_an_aggregation_that_counts_wrongly_at_another_resolution_is_told() -> None:
    register(Own, edge=lambda self, channels, pixels: Owned(params=pixels // 30))
    message = (
        r"in a network of scope 'block', dense x own, conv: block2\.layer2 counts 336 parameters and has 338$"
    )
    with pytest.raises(AssertionError, match=f"^aggregation 'own': {message}"):
        check_aggregation("own")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("a, b", r".*: aggregation 'own' has no parameter 'b'"),
        ("a ", r".*: the program of 'none' reads back as"),
    ],
)
def test_a_parameter_that_text_cannot_hold_is_told(mode: str, message: str) -> None:
    rule = type("OwnRule", (Aggregation,), {**RULE, "__annotations__": {"mode": "str"}, "mode": "plain"})
    register_aggregation("own")(dataclass(frozen=True, kw_only=True)(rule))
    implement_aggregation("own")(Own)
    check_aggregation({"name": "own", "mode": "bent"})
    with pytest.raises(AssertionError, match=rf"^aggregation 'own\(mode={mode}\)': {message}"):
        check_aggregation({"name": "own", "mode": mode})


def test_a_compiled_network_that_is_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Comparison.errors
    monkeypatch.setattr(Comparison, "errors", lambda *args: exact(*args)._replace(gradients=0.25))
    message = (
        r"^aggregation 'sum': in a network of scope 'block', dense x sum, conv: compiled, its gradients are "
        r"off by 2\.5e-01, more than "
    )
    with pytest.raises(AssertionError, match=message):
        check_aggregation("sum")


# ---- units ---------------------------------------------------------------------------------------------


def unit(out: Any = lambda i, w: w, *, reads: Any = lambda i, w: i, **settings: Any) -> Callable[..., Chain]:
    def rule(in_channels: int, width: int) -> Chain:
        conv = Conv(reads(in_channels, width), out(in_channels, width), **settings)
        return (*norm_act(in_channels, "batch", "relu"), conv)

    return rule


def test_a_unit_of_ones_own_keeps_the_contract() -> None:
    register_unit("own")(unit())
    check_unit("own")


WRONG_UNITS: dict[str, tuple[Callable[..., Any], str]] = {
    "stride": (unit(stride=2), r"of width 24, reading 24 channels: makes 3x3 pixels of 6x5: keep them$"),
    "channels given": (
        unit(lambda i, w: i), r"of width 24, reading 48 channels: gives out 48 channels, of other inputs 24: "
    ),
    "channels read": (
        unit(reads=lambda i, w: w), r"of width 24, reading 48 channels: Conv.* reads 48 channels, not 24$"
    ),
    "width": (unit(lambda i, w: 24), r"in a network of .*, dense x sum, own: a wider block costs no more$"),
    "symbols": (unit(lambda i, w: w // 5), r"in a network of .*: counted with symbols for widths it costs "),
    "list": (lambda i, w: [Conv(i, w)], r"of width 24, reading 24 channels: unit 'own' must return a tuple "),
}  # fmt: skip


@pytest.mark.parametrize("wrong", sorted(WRONG_UNITS))
def test_a_wrong_unit_is_told(wrong: str) -> None:
    rule, message = WRONG_UNITS[wrong]
    register_unit("own")(rule)
    with pytest.raises(AssertionError, match=f"^unit 'own': {message}"):
        check_unit("own")
