"""DenseNets and SparseNets: exact recounts, the rule, the ends, and the form that adds."""

from __future__ import annotations

import pytest
import torch

from connsearch.cost import Budget, fit_width, network_cost
from connsearch.errors import SpecError
from connsearch.nn import Network
from connsearch.registry import Ref
from connsearch.spec import NetworkSpec, resolve
from connsearch.spec.network import InputConfig
from connsearch.spec.presets import preset
from connsearch.spec.presets.densenets import summed

# ---- counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n_classes", "params"),
    [
        ("densenet-40-12", 100, 1_100_428),
        ("densenet-100-12", 100, 7_189_468),
        ("densenet-100-24", 100, 28_283_476),
        ("densenet-40-12-stem-16", 10, 1_019_722),
        ("densenet-bc-100-12", 100, 800_032),
        ("densenet-bc-100-12", 10, 769_162),
        ("densenet-bc-250-24", 100, 15_480_556),
        ("densenet-bc-250-24", 10, 15_324_406),
        ("densenet-bc-190-40", 100, 25_821_620),
        ("densenet-bc-190-40", 10, 25_624_430),
        ("sparsenet-40-24", 100, 757_252),
        ("sparsenet-100-24", 100, 2_522_404),
        ("sparsenet-100-36", 100, 5_645_908),
        ("sparsenet-bc-100-16-32-64", 100, 4_365_428),
        ("sparsenet-bc-100-32-64-128", 100, 17_339_780),
    ],
)
def test_parameters_for_small_images(name: str, n_classes: int, params: int) -> None:
    assert network_cost(preset(name, n_classes=n_classes)).params == params


@pytest.mark.parametrize(
    ("name", "params", "gflops"),
    [
        ("densenet-121", 7_978_856, 5.700),
        ("densenet-161", 28_681_000, None),
        ("densenet-169", 14_149_480, 6.758),
        ("densenet-201", 20_013_928, 8.632),
        ("sparsenet-121-32", 4_513_576, 3.463),
        ("sparsenet-201-32", 7_221_896, 4.130),
    ],
)
def test_parameters_and_flops_for_large_images(name: str, params: int, gflops: float | None) -> None:
    cost = network_cost(preset(name))
    assert cost.params == params
    if gflops is not None:
        assert cost.flops("sparsenet") / 1e9 == pytest.approx(gflops, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("sparsenet-121-32", 3.23),
        ("sparsenet-169-32", 4.69),
        ("sparsenet-201-32", 5.69),
        ("sparsenet-201-48", 12.60),
    ],
)
def test_a_mean_over_all_pixels_would_not_meet_sparsenet_s_figures(name: str, millions: float) -> None:
    spec = preset(name).replaced(head=Ref("pool"))
    assert network_cost(spec).params / 1e6 == pytest.approx(millions, abs=5e-3)


@pytest.mark.parametrize(("name", "gflops"), [("densenet-100-12", 3.65), ("densenet-100-24", 14.56)])
def test_flops_that_count_one_for_each_normalised_element(name: str, gflops: float) -> None:
    """Table 1 of DelugeNets (arXiv 1611.05552), in a convention of its own."""
    cost = network_cost(preset(name, n_classes=100))
    assert (cost.flops("2mac") + cost.norm_elements) / 1e9 == pytest.approx(gflops, abs=5e-3)


# ---- the rule -------------------------------------------------------------------------------------------


def offsets(spec: NetworkSpec, block: int) -> list[list[int]]:
    """Return how far back each layer of a block reads, and its reader one past the last."""
    graph = spec.graph()
    first = graph.index(f"block{block}.layer1")
    n = spec.blocks[block - 1].n_layers
    return [[first + i - s for s in reversed(graph.sources[first + i])] for i in range(n + 1)]


@pytest.mark.parametrize(("name", "base"), [("sparsenet-40-12", 2), ("sparsenet-100-24-base-3", 3)])
def test_sparsenets_read_powers_of_their_base(name: str, base: int) -> None:
    for block in (1, 2, 3):
        for j, found in enumerate(offsets(preset(name), block), start=1):
            assert found == [base**k for k in range(9) if base**k <= j]


def test_growth_of_each_stage() -> None:
    assert preset("sparsenet-bc-100-32-64-128").widths == (32, 64, 128)
    plans = {plan.node.name: plan for plan in resolve(preset("sparsenet-100-16-32-64")).nodes}
    assert plans["stem"].out_shape.channels == 32
    assert [plans[f"block{b}.layer1"].out_shape.channels for b in (1, 2, 3)] == [16, 32, 64]


# ---- ends -----------------------------------------------------------------------------------------------


def test_the_head_of_large_sparsenets_reads_nine_pixels() -> None:
    head = resolve(preset("sparsenet-121-32")).nodes[-1]
    assert head.in_shape[1:] == (7, 7)
    assert head.chain[-1].in_features == 9 * head.in_shape.channels


def test_the_head_of_large_sparsenets_refuses_other_images() -> None:
    spec = preset("sparsenet-121-32").replaced(input=InputConfig(height=160, width=160))
    message = r"^head: 'flat' reads 1440 features, but 160 x 2 x 2 are left: change the input's size$"
    with pytest.raises(SpecError, match=message):
        resolve(spec)
    four = spec.replaced(head=Ref("flat", (("cells", 4),)))
    assert network_cost(four).params < network_cost(preset("sparsenet-121-32")).params


def test_a_stem_of_its_own_width_stays_as_wide() -> None:
    spec = preset("densenet-40-12-stem-16")
    assert resolve(spec.with_widths([3, 5, 7])).nodes[0].out_shape.channels == 16


# ---- the form that adds ---------------------------------------------------------------------------------


def test_summed_sparsenets_double_their_width() -> None:
    plans = resolve(preset("sparsenet-40-24-sum")).nodes
    assert [plan.out_shape.channels for plan in plans if plan.node.name.endswith("layer1")] == [24, 48, 96]
    assert {plan.aggregation for plan in plans if len(plan.sources) > 1} == {Ref("sum")}


def test_summed_sparsenets_by_their_rule() -> None:
    """y_l = F_l(y_{l-1} + y_{l-2} + y_{l-4} + ...), the next block or the head one further."""
    spec = summed(40, 3).replaced(input=InputConfig(height=8, width=8))
    network = Network(spec).double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def apply(name: str, h: torch.Tensor) -> torch.Tensor:
        node = network.node(name)
        for operation in node.line:
            h = node.get_submodule(operation)(h)
        return h

    h = apply("stem", images)
    for block in (1, 2, 3):
        y = [h]
        for layer in range(1, 8):
            total = sum(y[layer - offset] for offset in (1, 2, 4, 8) if offset <= layer)
            if layer < 7:
                y.append(apply(f"block{block}.layer{layer}", total))
        h = apply(f"transition{block}" if block < 3 else "head", total)
    torch.testing.assert_close(network(images), h)


@pytest.mark.parametrize(
    "name",
    [
        "densenet-bc-100-12",
        "densenet-40-12-stem-16",
        "sparsenet-40-12",
        "sparsenet-40-12-sum",
        "sparsenet-121-32",
    ],
)
def test_widths_that_meet_a_budget(name: str) -> None:
    spec = preset(name)
    budget = Budget(params=network_cost(spec).params // 2)
    fitted = network_cost(fit_width(spec, budget)).params
    assert 0.97 < fitted / budget.params <= 1
