"""Log-DenseNets against the authors' selection of connections, in plain loops, and recounts by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import floor, log2, sqrt
from pathlib import Path
from typing import Any

import pytest

from connsearch.cost import network_cost
from connsearch.errors import SpecError
from connsearch.graph import list_topologies
from connsearch.graph.patterns import Rule, pattern_rule
from connsearch.spec.presets import preset
from connsearch.spec.presets.logdensenets import PRESETS, log_densenet

DEPTHS = [(3,), (2, 2), (4, 1, 6), (12, 12, 12), (6, 12, 32, 32), (22, 22, 22)]


def authors_indices(method: int, i: int, n_layers: int) -> set[int]:
    """`_dense_select_indices` of the authors' code, for layer i counted from 1; 0 is the stem."""
    ui = i - 1
    if method == 0:
        differences = [2**k - 1 for k in range(40) if 2**k <= n_layers]
    elif method == 1:
        differences = list(range(floor(log2(ui + 1)) + 1))
    elif method == 2:
        differences = list(range(floor(log2(n_layers + 1)) + 1))
    elif method == 3:
        n_select = int(log2(n_layers + 1) + 1)
        differences = [int((ui + 1) * t / n_select + 1e-9) for t in range(n_select)]
    elif method == 6:
        differences = list(range(ui // 2 + 1))
    elif method == 7:
        differences = list(range(0, ui + 1, 2))
    else:
        differences = list(range(ui + 1))
    return {ui - difference for difference in differences if ui - difference >= 0}


def authors_loglog(depths: Sequence[int], bottleneck_width: int = 4) -> list[set[int]]:
    """`_pre_compute_connections` of the authors' LogLog-DenseNet; the ends of blocks are keys."""
    n_layers = sum(depths)
    read = [[i - 1] for i in range(n_layers + 1)]

    def connect(a: int, b: int, forced: Sequence[int]) -> None:
        if b - a <= 2:
            return
        step = int(sqrt(b - a))
        keys = sorted({*range(a + (b - 1 - a) % step, b, step), *forced})
        if keys[-1] != b - 1:
            keys.append(b - 1)
        if keys[0] != a:
            keys.insert(0, a)
        for at, key in enumerate(keys):
            if at == 0:
                continue
            read[key] += [k for k in keys[:at] if k not in read[key]]
            for i in range(keys[at - 1] + 1, key):
                if keys[at - 1] not in read[i]:
                    read[i].append(keys[at - 1])
            connect(keys[at - 1], key + 1, [])

    connect(0, n_layers + 1, [sum(depths[: b + 1]) for b in range(len(depths))])
    for i in range(1, n_layers + 1):
        read[i] = [j for j in set(read[i]) if 0 <= j < i]
        for offset in (1, 2, 4, 8, 16, 32):
            if len(read[i]) >= bottleneck_width or i - offset < 0:
                break
            if i - offset not in read[i]:
                read[i].append(i - offset)
    return [set(sources) for sources in read[1:]]


@pytest.mark.parametrize(
    ("pattern", "method"),
    [("log_dense", 0), ("nearest", 2), ("evenly_spaced", 3), ("dense", 4), ("half", 6), ("every_other", 7)],
)
@pytest.mark.parametrize("depths", DEPTHS, ids=str)
def test_patterns_are_the_authors(pattern: str, method: int, depths: tuple[int, ...]) -> None:
    n_layers = sum(depths)
    rule = pattern_rule(pattern, depths)
    assert [set(reads) for reads in rule[:-1]] == [
        authors_indices(method, i, n_layers) for i in range(1, n_layers + 1)
    ]


@pytest.mark.parametrize("depths", [*DEPTHS, (52, 52, 52)], ids=str)
def test_loglog_is_the_authors(depths: tuple[int, ...]) -> None:
    assert [set(reads) for reads in pattern_rule("loglog_dense", depths)[:-1]] == authors_loglog(depths)


@pytest.mark.parametrize("pattern", list_topologies())
def test_the_head_reads_what_the_last_layer_read_and_that_layer(pattern: str) -> None:
    rule = pattern_rule(pattern, (3, 4))
    assert rule[-1] == (*rule[-2], 7)


def test_hubs_are_read_by_all_later_layers() -> None:
    plain, forced = pattern_rule("log_dense", (6, 20)), pattern_rule("log_dense", (6, 20), hubs=[6])
    for j, (reads, more) in enumerate(zip(plain, forced, strict=True), start=1):
        assert set(more) == ({*reads, 6} if j > 6 else {*reads})


# ---- versions ------------------------------------------------------------------------------------------


def block_of(depths: Sequence[int]) -> list[int]:
    return [0, *(b for b, depth in enumerate(depths) for _ in range(depth))]


def bottleneck(channels: int, growth: int) -> int:
    return 2 * channels + channels * 4 * growth + 2 * 4 * growth + 9 * 4 * growth * growth


def squeeze(channels: int, out: int) -> int:
    return 2 * channels + channels * out


def count_v1(rule: Rule, depths: Sequence[int], g: int) -> int:
    """Parameters of version 1: stem, layers, a 1x1 for each feature and change of scale, head of 10."""
    own, total = block_of(depths), 27 * 2 * g
    width = [2 * g, *[g] * sum(depths)]
    for reads in rule[:-1]:
        total += bottleneck(sum(width[j] for j in reads), g)
    last_read = {
        j: max(own[min(i, len(own) - 1)] for i, r in enumerate(rule, start=1) if j in r)
        for j in range(len(own))
    }
    total += sum(squeeze(width[j], width[j]) * max(0, last_read[j] - own[j]) for j in range(len(own)))
    last = sum(width[j] for j in rule[-1])
    return total + 2 * last + 10 * last + 10


def count_v2(rule: Rule, depths: Sequence[int], g: int) -> int:
    """Parameters of version 2: the context grows by min(g (floor(log2(L + 1)) + 1), the block's width)."""
    own, total, context = block_of(depths), 27 * 2 * g, 2 * g
    before = read = 0
    for b, depth in enumerate(depths):
        for i in range(before + 1, before + depth + 1):
            read = context + g * len([j for j in rule[i - 1] if j > 0 and own[j] == b])
            total += bottleneck(read, g)
        before += depth
        if b < len(depths) - 1:
            new = min(g * (floor(log2(sum(depths) + 1)) + 1), g * depth)
            total += squeeze(g * depth, new) + squeeze(context, context)
            context += new
    return total + 12 * (read + g) + 10


@pytest.mark.parametrize("depths", DEPTHS, ids=str)
@pytest.mark.parametrize("pattern", ["log_dense", "loglog_dense", "nearest", "evenly_spaced", "dense"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_parameters_are_as_counted_by_hand(version: str, pattern: str, depths: tuple[int, ...]) -> None:
    rule = pattern_rule(pattern, depths)
    counted = (count_v1 if version == "v1" else count_v2)(rule, depths, 8)
    spec = log_densenet(depths, 8, version=version, pattern=pattern)
    assert network_cost(spec).params == counted


def test_version_two_written_out() -> None:
    graph = log_densenet((3, 2), 4, version="v2").graph()
    assert str(graph).splitlines()[1:] == [
        "stem           stem        image",
        "block1.layer1  unit        stem",
        "block1.layer2  unit        stem, block1.layer1",
        "block1.layer3  unit        stem .. block1.layer2",
        "block2.old     carry       stem",
        "block2.new     transition  block1.layer1 .. block1.layer3",
        "block2.layer1  unit        block2.old, block2.new",
        "block2.layer2  unit        block2.old .. block2.layer1",
        "head           head        block2.old .. block2.layer2",
    ]


def test_one_block_has_nothing_to_carry() -> None:
    v1 = log_densenet((9,), 4)
    assert {node.kind for node in v1.graph().nodes} == {"stem", "unit", "head"}
    assert network_cost(v1).n_edges < network_cost(log_densenet((9,), 4, pattern="dense")).n_edges


def test_a_network_for_large_images() -> None:
    spec = preset("log-densenet-169")
    assert (spec.n_classes, spec.input.height, network_cost(spec).n_layers) == (1000, 224, 82)


def test_presets_are_few_of_the_many_members() -> None:
    """Three depths of each family; the function makes the others."""
    small = [name for name in PRESETS if name.endswith("-24")]
    assert small == [f"{name.rsplit('-', 2)[0]}-{n}-24" for name in small[::3] for n in (12, 32, 52)]
    assert len(small) == 5 * 3
    assert set(PRESETS) - set(small) == {"log-densenet-169", "log-densenet-265", "log-densenet-369"}


def test_the_documented_table_is_what_is_counted() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    table = text.split("| `...-{n}-24`, n = |")[1].split("\n\n")[0].splitlines()[2:]
    shown = {}
    for row in table:
        family, *cells = (cell.strip(" `") for cell in row.strip("|").split("|"))
        for n, cell in zip((12, 32, 52), cells, strict=True):
            params, gmacs = re.findall(r"\d+\.\d+", cell)
            shown[f"{family}-{n}-24"] = float(params), float(gmacs)
    counted = {name: network_cost(preset(name)) for name in PRESETS if name.endswith("-24")}
    assert shown == {k: (round(c.params / 1e6, 2), round(c.macs / 1e9, 2)) for k, c in counted.items()}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": "v3"}, "unknown version 'v3'. Known: v1, v2."),
        ({"pattern": "logdense"}, "unknown topology 'logdense'. Did you mean 'log_dense'"),
        ({"hubs": [7]}, "hubs: there is no layer 7 of 6"),
        ({"hubs": [0]}, "hubs: there is no layer 0 of 6"),
        ({"hubs": iter([2]), "version": "v2"}, r"hubs: version v2 reads .* context only: use v1, got \[2\]"),
        ({"depths": (0, 3)}, r"depths: each block needs an integer of at least 1, got \[0, 3\]"),
        ({"depths": (3, 0), "version": "v2"}, r"depths: each block .*, got \[3, 0\]"),
        ({"depths": ()}, r"depths: each block .*, got \[\]"),
        ({"depths": (1, True)}, r"depths: each block .*, got \[1, True\]"),
    ],
)
def test_wrong_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        log_densenet(**{"depths": (2, 4), "growth": 8, **values})


def test_the_narrowest_depths() -> None:
    for version in ("v1", "v2"):
        assert network_cost(log_densenet((1, 1), 2, version=version)).n_layers == 2
