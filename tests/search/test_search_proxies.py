"""Zero-cost proxies against values worked out by hand, and their correlations with made-up errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import SPACE, make_config
from torch import nn
from torch.nn import functional as F  # noqa: N812

from connsearch.errors import SpecError, StudyError
from connsearch.nn.network import Network
from connsearch.search.proxies import correlation
from connsearch.search.proxies.correlation import estimate, kendall, lead, partial, spearman
from connsearch.search.proxies.report import compare_proxies, report_of
from connsearch.search.proxies.scores import PROXIES, grad_norm, measure_proxies, naswot, snip, synflow
from connsearch.search.ranks import mean_ranks
from connsearch.search.space import SearchSpace
from connsearch.search.study import Study

LABELS = torch.tensor([0, 1])


# ---- NASWOT --------------------------------------------------------------------------------------------


def test_naswot_counts_activations_that_are_alike() -> None:
    """Two images, 3 activations in a layer and 1 in another: 2 + 0 alike, so K = [[4, 2], [2, 4]]."""
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.eye(3))
        second.weight.copy_(torch.tensor([[1.0, 0.0, -1.0]]))
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    images = torch.tensor([[2.0, 1.0, -1.0], [1.0, 0.5, 3.0]])  # on on off | on on on; 2 > 0 | 1 - 3 < 0
    assert naswot(network, images, LABELS) == pytest.approx(math.log(4 * 4 - 2 * 2))


def test_naswot_of_images_that_switch_alike_is_not_finite() -> None:
    network = nn.Sequential(nn.Flatten(), nn.ReLU())
    assert naswot(network, torch.ones(2, 5), LABELS) == -math.inf


def test_naswot_sees_the_statistics_of_the_batch() -> None:
    """Both images lie far above the running mean 0; only the batch's mean tells them apart."""
    network = nn.Sequential(nn.BatchNorm1d(1), nn.ReLU()).eval()
    images = torch.tensor([[100.0], [101.0]])
    assert naswot(network, images, LABELS) == pytest.approx(0.0)  # K is the unit matrix


def test_naswot_needs_activations() -> None:
    with pytest.raises(SpecError, match="the network has none: take another proxy"):
        naswot(nn.Linear(2, 2), torch.ones(2, 2), LABELS)


# ---- SynFlow -------------------------------------------------------------------------------------------


def test_synflow_of_a_linear_network_is_paths_times_layers() -> None:
    """R = sum |W2| |W1| 1, and each layer's weights give R once more."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    first, second = (layer.weight.detach().abs() for layer in network)  # type: ignore[union-attr, operator]
    flow = float((second @ first @ torch.ones(3)).sum())
    assert synflow(network, torch.zeros(2, 3), LABELS) == pytest.approx(math.log(2 * flow), rel=1e-6)


def test_synflow_passes_over_batch_norms_and_keeps_the_network() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.weight, 7.0)
    nn.init.constant_(norm.bias, -3.0)
    norm.running_var = torch.full((4,), 5.0)
    convs = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)
    plain, normed = nn.Sequential(*convs), nn.Sequential(convs[0], norm, nn.ReLU(), convs[1])
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    images = torch.zeros(2, 1, 3, 3)
    assert synflow(normed, images, LABELS) == pytest.approx(synflow(plain, images, LABELS))
    for name, value in normed.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_synflow_needs_double_precision() -> None:
    """60 layers that multiply by 10 each: 1e60 is beyond single precision."""
    layers = [nn.Linear(1, 1, bias=False) for _ in range(60)]
    for layer in layers:
        nn.init.constant_(layer.weight, -10.0)
    network = nn.Sequential(*layers)
    assert synflow(network, torch.ones(2, 1), LABELS) == pytest.approx(60 * math.log(10) + math.log(60))
    for layer in layers:
        nn.init.constant_(layer.weight, 1e30)
    assert synflow(network, torch.ones(2, 1), LABELS) == math.inf


# ---- gradients -----------------------------------------------------------------------------------------


def test_gradient_norm_and_snip_of_a_linear_classifier() -> None:
    """dL/dW = mean over images of (softmax - onehot) x^T."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    images = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 4.0]])
    with torch.no_grad():
        wrong = F.softmax(network(images), dim=1) - F.one_hot(LABELS, 2)
        gradient = wrong.T @ images / 2
        by_hand = float((network.weight * gradient).abs().sum())
    assert grad_norm(network, images, LABELS) == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert snip(network, images, LABELS) == pytest.approx(by_hand, rel=1e-5)


def test_gradient_norms_of_tensors_add_up() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    images = torch.randn(2, 3)
    F.cross_entropy(network(images), LABELS).backward()
    expected = sum(float(layer.weight.grad.norm()) for layer in (network[0], network[2]))  # type: ignore[union-attr]
    assert grad_norm(network, images, LABELS) == pytest.approx(expected, rel=1e-5)


# ---- of networks of a space ----------------------------------------------------------------------------


def member(**blocks: Any) -> Any:
    table = {"count": 2, "n_layers": 3, "width_ratio": 2.0, "topology": "dense"}
    space = SearchSpace.from_dict(
        {**SPACE, "blocks": table | blocks, "budget": {"macs": 150_000, "tolerance": 0.5}}
    )
    return space.member({}).spec


@pytest.mark.parametrize("aggregation", ["sum", "concat", "depthwise", "routed", "gated", "weighted"])
def test_every_proxy_is_finite_and_repeats_itself(aggregation: str) -> None:
    spec, train = member(aggregation=aggregation), make_config().train
    everything = measure_proxies(spec, train, tuple(PROXIES), study_seed=1, trial=5)
    assert all(value is not None and math.isfinite(value) for value in everything.values())
    state = torch.get_rng_state()
    for name, value in everything.items():  # alone as together: none sees what another did
        assert measure_proxies(spec, train, [name], study_seed=1, trial=5) == {name: value}
    assert torch.equal(torch.get_rng_state(), state)
    others = measure_proxies(spec, train, tuple(PROXIES), study_seed=1, trial=6)
    assert all(others[name] != value for name, value in everything.items())


def test_weights_are_those_that_the_trial_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from connsearch.search.seeds import stream_seed

    seen: list[dict[str, torch.Tensor]] = []
    monkeypatch.setitem(
        PROXIES, "naswot", lambda network, *_: float(seen.append(network.state_dict()) or 1.0)
    )
    spec = member(aggregation="sum")
    measure_proxies(spec, make_config().train, ["naswot"], study_seed=3, trial=2)
    torch.manual_seed(stream_seed(3, 2, "init"))
    for name, value in Network(spec).state_dict().items():
        assert torch.equal(value, seen[0][name])


def test_what_a_network_has_not_is_none() -> None:
    bare = {"activation": "none", "norm": "none"}
    space = SearchSpace.from_dict(
        {
            **SPACE,
            "head": {"name": "pool", **bare},
            "blocks": {"count": 1, "n_layers": 2, "unit": {"name": "conv", "activation": "none"}},
            "budget": {"macs": 150_000, "tolerance": 0.5},
        }
    )
    found = measure_proxies(
        space.member({}).spec, make_config().train, ["naswot", "synflow"], study_seed=0, trial=0
    )
    assert found["naswot"] is None, "no activation"
    assert found["synflow"] is not None


def test_an_unknown_proxy_is_told() -> None:
    with pytest.raises(SpecError, match=r"unknown proxy 'naswott'\. Did you mean 'naswot'"):
        measure_proxies(member(aggregation="sum"), make_config().train, ["naswott"], study_seed=0, trial=0)


# ---- correlation ---------------------------------------------------------------------------------------


def test_ranks_correlations_and_ties() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 40).astype(float)
    y = x + rng.integers(0, 6, 40)
    assert mean_ranks(x).tolist() == (stats.rankdata(x) - 1).tolist()
    assert float(spearman(x, y)) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert float(kendall(x, y)) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_partial_correlation_is_that_of_what_ranks_leave() -> None:
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 200))
    x, y = x + 5 * z, y - 5 * z  # alike in nothing but z
    assert float(spearman(x, y)) < -0.8
    assert abs(float(partial(x, y, z))) < 0.15
    r = {a + b: float(spearman(u, v)) for a, u in (("x", x), ("z", z)) for b, v in (("y", y), ("z", z))}
    by_hand = (r["xy"] - r["xz"] * r["zy"]) / math.sqrt((1 - r["xz"] ** 2) * (1 - r["zy"] ** 2))
    assert float(partial(x, y, z)) == pytest.approx(by_hand)
    assert np.isnan(partial(x, y, x))


def test_kendall_of_pairs_near_in_macs() -> None:
    macs = np.array([100.0, 105.0, 200.0, 210.0])
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 0.0, 0.5])
    assert float(kendall(x, y, macs)) == 0.0  # one pair ordered alike, one not; the other four are far


def test_bootstrap_of_kendall_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 25))
    rows = rng.integers(25, size=(4, 25))
    times = np.stack([np.bincount(row, minlength=25) for row in rows]).astype(float)
    expected = [float(kendall(x[row], y[row])) for row in rows]
    assert kendall(x, y, times=times) == pytest.approx(expected)


def test_an_interval_holds_the_value_and_little_data_says_nothing() -> None:
    x = np.arange(30.0)
    found = estimate(spearman, x, x + np.random.default_rng(0).normal(size=30) * 10)
    assert -1 <= found.low < found.value < found.high <= 1
    assert np.isnan(estimate(spearman, x[:9], x[:9]).value)
    assert np.isnan(estimate(spearman, np.ones(30), x).value)


def test_lead_counts_what_falls_with_the_error() -> None:
    error = np.arange(20.0)
    assert float(lead(-error, error, error)) == pytest.approx(2.0)  # MACs go the wrong way altogether
    assert float(lead(-error, np.ones(20), error)) == pytest.approx(1.0)  # equal MACs order nothing
    assert float(lead(error, -error, error)) == pytest.approx(-2.0)


# ---- the report ----------------------------------------------------------------------------------------


def frame(n: int = 60) -> pd.DataFrame:
    """Errors that fall with MACs and with a second thing, which one proxy sees and the other does not."""
    rng = np.random.default_rng(0)
    size, skill = rng.normal(size=(2, n))
    columns = {
        "trial": np.arange(n),
        "val_error": 1 / (1 + np.exp(size + 2 * skill)),
        "macs": np.exp(size) * 1e6,
        "good": size + 2 * skill + rng.normal(size=n) / 2,
        "size": size + rng.normal(size=n) / 10,
    }
    return pd.DataFrame(columns)


def test_the_report_tells_a_proxy_that_beats_macs_from_one_that_only_grows() -> None:
    report = report_of(frame())
    macs, good, size = report.standings
    assert (macs.proxy, good.proxy, size.proxy) == ("macs", "good", "size")
    assert good.beats_macs
    assert not size.beats_macs
    assert not macs.beats_macs
    assert good.partial.high < -0.5
    assert size.partial.low < 0 < size.partial.high
    assert np.isnan(macs.partial.value)
    assert "clearly better than MACs: good" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["proxies"][0]["partial"]["value"] is None


def test_values_that_are_not_known_are_left_out() -> None:
    table = frame()
    table.loc[:9, "good"] = np.nan
    assert [standing.trials for standing in report_of(table).standings] == [60, 50, 60]


def test_proxies_of_a_study(tmp_path: Path, made_up: None) -> None:
    study = Study.from_config(tmp_path / "study", make_config(n_trials=10))
    study.run(9, device="cpu")
    with pytest.raises(StudyError, match=r"study: 9 trials can be ranked, correlations need 10: run more"):
        compare_proxies(study)
    study.run(10, device="cpu")
    seen: list[tuple[int, int]] = []
    report = compare_proxies(study, ["naswot", "snip"], on_trial=lambda *done: seen.append(done))
    assert seen[-1] == (10, 10)
    assert [standing.proxy for standing in report.standings] == ["macs", "params", "naswot", "snip"]
    trial = study.trials()[3]
    member = study.config.space.member(trial.params)
    value = measure_proxies(
        member.spec, study.config.train, ["naswot"], study_seed=study.config.seed, trial=3
    )
    assert report.trials.set_index("trial").loc[3, "naswot"] == value["naswot"]
    report.to_csv(tmp_path / "proxies.csv")
    assert pd.read_csv(tmp_path / "proxies.csv").columns[:4].tolist() == [
        "trial",
        "val_error",
        "macs",
        "params",
    ]
    assert correlation.FEWEST == 10
