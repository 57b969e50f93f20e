"""Published figures: a second opinion on architectures and on counting.

Exact recounts of each family are in the tests of its presets, in `tests/spec`.
"""

from __future__ import annotations

from typing import Any

import pytest

from connsearch.cost import network_cost
from connsearch.cost.published import Figure, figure_record, figures_of, published_figures, published_table
from connsearch.errors import SpecError
from connsearch.spec.presets import PRESETS, preset


@pytest.mark.parametrize(
    "figure", published_figures(), ids=lambda f: f"{f.preset}-{f.n_classes}-{f.quantity}-{f.printed}"
)
def test_every_published_figure_is_met_or_says_why_not(figure: Figure) -> None:
    assert figure.preset in PRESETS
    if figure.status == "met":
        assert figure.met(), figure_record(figure)
    elif figure.status not in ("unverified", "inferred"):
        assert not figure.met(), f"{figure.status}, and yet met: {figure}"


@pytest.mark.parametrize(
    ("printed", "counted", "met"),
    [
        ("6.69M", 6_694_999, True),
        ("6.69M", 6_695_000, False),  # half rounds up
        ("6.69M", 6_685_000, True),
        ("6.69M", 6_684_999, False),
        ("10.00M", 10_004_868, True),
        ("134G", 134_499_999_999, True),
        ("11689512", 11_689_512, True),
        ("11689512", 11_689_513, False),
    ],
)
def test_a_figure_is_met_to_its_printed_digits(
    monkeypatch: pytest.MonkeyPatch, printed: str, counted: int, met: bool
) -> None:
    figure = Figure(preset="delugenet-146", printed=printed, source="a paper")
    monkeypatch.setattr(Figure, "counted", lambda self: counted)
    assert figure.met() == met


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantity": "gmacs"}, "unknown quantity 'gmacs'. Did you mean 'macs'?"),
        ({"status": "misprint"}, "delugenet-146: a figure that is misprint needs a note"),
        ({"printed": "6,69M"}, "printed: string should match pattern"),
        ({"status": "mett"}, "status: should be 'met', "),
    ],
)
def test_a_wrong_figure_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Figure(**{"preset": "delugenet-146", "printed": "6.69M", "source": "a paper"} | values)
    assert str(caught.value).startswith(message)


def test_the_table_of_some_presets() -> None:
    presets = ["delugenet-218", "wrn-40-4", "unet"]
    lines = published_table(figures_of(presets), presets).splitlines()
    rows = [line.split() for line in lines[1:-1]]
    assert lines[0].split()[:5] == ["preset", "classes", "quantity", "published", "counted"]
    assert rows[0][:7] == ["delugenet-218", "100", "params", "10.00M", "10,004,868", "+0.05", "%"]
    assert ["wrn-40-4", "100", "params", "8.7M", "8,972,340", "+3.13", "%", "misprint"] in [
        r[:8] for r in rows
    ]
    assert rows[-1][:2] == ["unet", "11"]
    assert lines[-2].rstrip().endswith("no figure known  -")
    n_figures = len(rows) - 1
    assert lines[-1].endswith(f" of {n_figures} published figures are met to the printed digit.")


def test_what_others_count_is_called_by_its_name() -> None:
    lines = published_table(figures_of(["hardnet-68"])).splitlines()[1:-1]
    quantities = [line.split()[2] for line in lines]
    assert quantities == ["params", "ptflops", "ptflops"]
    assert lines[1].split()[3:5] == ["4.3G", "4,260,263,250"]
    assert network_cost(preset("hardnet-68")).macs == 4_246_114_304


def test_figures_of_a_typo_name_the_preset() -> None:
    with pytest.raises(SpecError, match=r"^unknown preset 'delugnet-146'.* Did you mean 'delugenet-146'\?"):
        figures_of(["delugnet-146"])


def test_log_dense_in_one_block_is_sparse_of_base_two() -> None:
    """SparseNet's and Log-DenseNet's offsets agree inside a block."""
    spec = preset("sparsenet-100-24")
    blocks = [block.model_copy(update={"topology": "log_dense"}) for block in spec.blocks]
    assert network_cost(spec.model_copy(update={"blocks": tuple(blocks)})) == network_cost(spec)


def test_a_sparsenet_with_global_pooling() -> None:
    """SparseNet-121 with a stem of 64 and a mean over all pixels: 3,250,824, as pytorchcv has it."""
    spec = preset("sparsenet-121-32").model_copy(update={"stem_ratio": 2, "head": "pool"})
    assert network_cost(spec).params == 3_250_824
