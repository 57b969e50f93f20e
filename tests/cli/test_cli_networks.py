"""`list`, `show`, `draw`, `cost`, `sample`, by their whole output, and every way to get their input wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny import NETWORK, SPACE, Call, Result, failed

from connsearch import __version__
from connsearch.catalog import CATALOGS, entries_of
from connsearch.cost.table import cost_record
from connsearch.search.space import SearchSpace
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets import list_presets, preset
from connsearch.text import si

# ---- list ----------------------------------------------------------------------------------------------


def test_list_samplers(call: Call) -> None:
    assert call("list", "samplers") == Result(0, (
        "gp      Gaussian process; takes seconds for each trial after the first hundred. "
        "[n_startup_trials=10]\n"
        "nsga2   Genetic algorithm NSGA-II; one generation has `population_size` trials. "
        "[population_size=20]\n"
        "random  Every knob on its own, uniformly.\n"
        "tpe     Tree-structured Parzen estimator over all knobs together; random for the first trials. "
        "[n_startup_trials=10]\n"
    ), "")  # fmt: skip


def test_list_recipes(call: Call) -> None:
    result = call("list", "recipes")
    assert (result.code, result.err) == (0, "")
    paper, fast, _ = result.out.splitlines()
    assert paper.startswith("delugenet     As DelugeNets were trained on CIFAR (J. Kuen et al., arXiv")
    assert 'epochs = 300, batch_size = 64, optimizer = "sgd", lr = 0.1, momentum = 0.9, ' in paper
    assert "milestones = [0.5, 0.75], gamma = 0.1, " in paper
    assert fast.startswith("fast          For few epochs: one cycle ")
    assert 'schedule = "one_cycle", ' in fast


def test_list_datasets(call: Call) -> None:
    result = call("list", "datasets")
    assert (result.code, result.err) == (0, "")
    lines = {line.partition(" ")[0]: " ".join(line.split()) for line in result.out.splitlines()}
    names = "cifar_binary digits hub idx image_folder mask_folder parquet synthetic"
    assert list(lines) == names.split()
    assert lines["digits"] == (
        "digits 1,797 grey 8 x 8 images of handwritten digits; installed with scikit-learn, "
        "nothing to download."
    )
    assert lines["synthetic"] == (
        "synthetic Images made up in memory, of any size: one smooth pattern per class, shifted and under "
        "noise. [n_train=512, n_val=256, n_test=256, channels=3, height=16, width=16, n_classes=10, "
        "noise=1.0, seed=0]"
    )


def test_list_presets(call: Call) -> None:
    result = call("list", "presets")
    assert (result.code, result.err) == (0, "")
    lines = {line.split()[0]: line for line in result.out.splitlines()}
    rest = "1.06 M parameters   283 M MACs  3 x 32 x 32, 10 classes."
    assert re.fullmatch(f"densenet-40-12 +{rest}", lines["densenet-40-12"])
    for name, line in lines.items():
        record = cost_record(preset(name))
        size = " x ".join(str(n) for n in record["input"])
        numbers = f"{si(record['params'])} parameters +{si(record['macs'])} MACs"
        assert re.fullmatch(f"{name} +{numbers}  {size}, {record['n_classes']} classes\\.", line)
    assert len({line.index(" MACs") for line in lines.values()}) == 1
    assert len({line.index(" parameters") for line in lines.values()}) == 1


@pytest.mark.parametrize("kind", sorted(CATALOGS))
def test_every_list_has_a_line_for_each_entry(call: Call, kind: str) -> None:
    result = call("list", kind)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == sorted(entries_of(kind))
    assert all(re.fullmatch(r"[\w-]+ {2,}\S.*[.\]:]", line) for line in result.out.splitlines())


# ---- show ----------------------------------------------------------------------------------------------

COST = """\
name   params    MACs  conv  linear  aggregation  FLOPs  inference  training  layers  edges
small  1.36 k  78.6 k  76 k      16       2.56 k  152 k     6.4 kB   22.8 kB       4     11
For one image. FLOPs = 2 (conv + linear). Memory: activations in float32, peak in inference, kept in training.
"""
NODES = """\
node           kind  operation  reads  aggregation     in    out  params    MACs
stem           stem  conv       image               1x8x8  4x8x8      36   2.3 k
block1.layer1  unit  basic          1               4x8x8  4x8x8     304  18.4 k
block1.layer2  unit  basic          2  depthwise    4x8x8  4x8x8     320  18.9 k
block1.layer3  unit  basic          2  depthwise    4x8x8  4x8x8     320  18.9 k
block1.layer4  unit  basic          3  depthwise    4x8x8  4x8x8     328  19.2 k
head           head  pool           3  depthwise    4x8x8      4      52     784

"""
GRAPH = """\
ConnectivityGraph(6 nodes, 11 edges)
stem           stem        image
block1.layer1  unit        stem
block1.layer2  unit        stem, block1.layer1
block1.layer3  unit        block1.layer1, block1.layer2
block1.layer4  unit        stem, block1.layer2, block1.layer3
head           head        block1.layer1, block1.layer3, block1.layer4
in-degree: max 3, mean 1.83; backpropagation distance: max 2, mean 1.27
"""


def test_show(call: Call, here: Path) -> None:
    assert call("show", "net.toml") == Result(0, NODES + COST, "")


def test_show_graph(call: Call, here: Path) -> None:
    assert call("show", "net.toml", "--graph") == Result(0, GRAPH, "")


def test_show_a_preset(call: Call) -> None:
    result = call("show", "densenet-40-12")
    assert (result.code, result.err) == (0, "")
    rows = result.out.split("\n\n")[0].splitlines()
    assert len(rows) == 1 + len(preset("densenet-40-12").graph())


def test_show_names_the_operations_of_parts(call: Call) -> None:
    rows = {line.split()[0]: line.split()[1:3] for line in call("show", "mixnet-250").out.splitlines()[1:742]}
    assert rows["stem"] == ["stem", "conv"]
    assert rows["block1.layer1_kept"] == ["join", "slice"]
    assert rows["block1.layer1_inner"] == ["unit", "dense_bottleneck"]
    assert rows["block1.layer1"] == ["join", "3"]  # concatenates only
    assert rows["transition1"] == ["transition", "pool"]


def test_show_tells_what_is_dropped(call: Call) -> None:
    line = "drop  stochastic_depth(survival=0.5): 54 edges"
    for args in ([], ["--graph"]):
        assert line in call("show", "stochastic-depth-resnet-110", *args).out.splitlines()
        assert "drop  " not in call("show", "resnet-110", *args).out


def test_show_graph_of_a_deep_network_fits_a_screen(call: Call) -> None:
    lines = call("show", "resnet-v2-1001", "--graph").out.splitlines()
    assert lines[0] == "ConnectivityGraph(674 nodes, 1006 edges)"
    assert lines[6:11] == [
        "block1.unit2           unit        block1.unit1_sum",
        "block1.unit2_sum       join        block1.unit1_sum, block1.unit2",
        "...                    108 more like the 2 above",
        "block1.unit111         unit        block1.unit110_sum",
        "block1.unit111_sum     join        block1.unit110_sum, block1.unit111",
    ]
    assert len(lines) < 40
    assert lines[-1].startswith("in-degree: max 2, mean 1.49; backpropagation distance: max ")


# ---- cost ----------------------------------------------------------------------------------------------


def test_cost(call: Call, here: Path) -> None:
    assert call("cost", "net.toml") == Result(0, COST, "")


def test_cost_of_several(call: Call, here: Path) -> None:
    result = call("cost", "net.toml", "delugenet-146", "./net.toml")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == [
        "name",
        "small",
        "delugenet-146",
        "small",
        "For",
    ]


def test_cost_json_is_the_published_format(call: Call, here: Path) -> None:
    result = call("cost", "net.toml", "delugenet-146", "--classes", 100, "--json")
    assert (result.code, result.err) == (0, "")
    small, deluge = json.loads(result.out)
    assert small == {
        "name": "small", "input": [1, 8, 8], "n_classes": 100, "params": 1840, "macs": 78992,
        "macs_by": {"conv": 76032, "linear": 400, "aggregation": 2560},
        "flops": {"2mac": 152864, "delugenet": 165152, "sparsenet": 157472},
        "peak_activation_bytes": {"inference": 6400, "training": 22800}, "n_layers": 4, "n_edges": 11,
    }  # fmt: skip
    assert deluge == cost_record(preset("delugenet-146", n_classes=100))
    assert list(deluge) == list(small)

    def numbers(data: object) -> list[object]:
        if isinstance(data, dict | list):
            return [n for item in (data.values() if isinstance(data, dict) else data) for n in numbers(item)]
        return [] if isinstance(data, str) else [data]

    assert {type(number) for number in numbers(deluge)} == {int}


# ---- draw ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_draw(call: Call, here: Path, suffix: str, start: bytes) -> None:
    assert call("draw", "net.toml", "-o", f"net.{suffix}") == Result(0, "", f"wrote net.{suffix}\n")
    assert (here / f"net.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.gif", "a.gif: cannot draw to a file ending in '.gif'. Known: .pdf, .png, .svg."),
        ("a", "a: cannot draw to a file ending in ''. Known: .pdf, .png, .svg."),
        (".", ".: cannot draw to a file ending in ''. Known: .pdf, .png, .svg."),
        ("nowhere/a.svg", "nowhere/a.svg: there is no directory nowhere: make it first"),
        ("net.toml/a.svg", "net.toml/a.svg: there is no directory net.toml: make it first"),
    ],
)
def test_draw_where_it_cannot(call: Call, here: Path, output: str, message: str) -> None:
    before = sorted(here.rglob("*"))
    assert call("draw", "net.toml", "-o", output) == failed(message)
    assert sorted(here.rglob("*")) == before


# ---- sample --------------------------------------------------------------------------------------------


def test_sample(call: Call, here: Path) -> None:
    assert call("sample", "space.toml", "-n", 3) == Result(0, (
        "topology  aggregation  layers  widths    MACs  of budget  params\n"
        "dense     sum          1       7       60.5 k     79.8 %  1.02 k\n"
        "dense     sum          2       4       39.2 k     98.3 %     672\n"
        "dense     sum          1       8       78.4 k     95.3 %  1.31 k\n"
    ), "")  # fmt: skip


def test_sample_json(call: Call, here: Path) -> None:
    result = call("sample", "space.toml", "-n", 4, "--seed", 3, "--json")
    assert (result.code, result.err) == (0, "")
    members = json.loads(result.out)
    assert len(members) == 4
    space = SearchSpace.from_toml("space.toml")
    for record in members:
        assert list(record) == ["knobs", "budget", "network", "cost"]
        member = space.member(record["knobs"])
        assert NetworkSpec.from_dict(record["network"]) == member.spec
        assert record["budget"] == {"macs": record["knobs"]["macs_budget"]} == member.budget.bounds()
        assert record["cost"] == cost_record(member.spec)
        assert record["cost"]["macs"] <= record["budget"]["macs"]


def test_the_seed_decides_what_is_drawn(call: Call, here: Path) -> None:
    drawn = [call("sample", "space.toml", "--seed", seed).out for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert call("sample", "space.toml").out == drawn[0]


def test_a_space_without_members(call: Call, here: Path) -> None:
    (here / "space.toml").write_text(SPACE.replace("30_000", "20_000"))
    assert call("sample", "space.toml") == failed(
        "budget: no chain x sum fits: macs: the least possible is 20,752 (widths 4 of 1 layers), "
        "over the budget of 20,000: raise macs or use fewer layers"
    )


# ---- bad input -----------------------------------------------------------------------------------------

PRESETS = f"{len(list_presets())} are known."
BAD_NETWORKS = {
    'topology = "logdense"': "topology: unknown topology 'logdense'. Did you mean 'log_dense'? "
    "Known: chain, dense, evenly_spaced, every_other, half, harmonic, log_dense, loglog_dense, nearest, "
    "random_dag, sparse.",
    'topology = "sparse(bas=3)"': "topology: topology 'sparse' has no parameter 'bas'. Did you mean 'base'? "
    "Known: base.",
    'aggregation = "depthwis"': "aggregation: unknown aggregation 'depthwis'. Did you mean 'depthwise'? "
    f"Known: {', '.join(sorted(AGGREGATIONS))}.",
    "n_layer = 4": "n_layer: unknown key. Did you mean 'n_layers'? "
    "Known: aggregation, entry_unit, n_layers, topology, unit, width.",
    'n_layers = "4"': "n_layers: must be an integer, got '4'",
    "width = 4.5": "width: must be an integer, got 4.5",
    "width = 0": "width: should be greater than or equal to 1, got 0",
}


@pytest.mark.parametrize("wrong", BAD_NETWORKS)
@pytest.mark.parametrize("command", [["show"], ["cost", "--json"], ["draw", "-o", "a.svg"]], ids=" ".join)
def test_a_network_file_that_is_wrong(call: Call, here: Path, command: list[str], wrong: str) -> None:
    key = wrong.split()[0]
    right = "\n".join(line for line in NETWORK.splitlines() if not line.startswith(f"{key} ="))
    (here / "bad.toml").write_text(f"{right}\n{wrong}\n")
    assert call(*command, "bad.toml") == failed(f"bad.toml: blocks[0].{BAD_NETWORKS[wrong]}")
    assert not (here / "a.svg").exists()


@pytest.mark.parametrize(
    ("command", "file", "message"),
    [
        ("cost", "study.toml", "is a study, and a network is asked for: try `connsearch plan study.toml`"),
        ("show", "space.toml", "is a space, and a network is asked for: try `connsearch sample space.toml`"),
        ("sample", "study.toml", "is a study, and a space is asked for: try `connsearch plan study.toml`"),
        ("sample", "net.toml", "is a network, and a space is asked for: try `connsearch cost net.toml`"),
        ("plan", "space.toml", "is a space, and a study is asked for: try `connsearch sample space.toml`"),
        ("run", "net.toml", "is a network, and a study is asked for: try `connsearch cost net.toml`"),
        ("tournament", "net.toml", "is a network, and a study is asked for: try `connsearch cost net.toml`"),
    ],
)
def test_a_file_of_another_kind(call: Call, here: Path, command: str, file: str, message: str) -> None:
    assert call(command, file) == failed(f"{file}: {message}")


@pytest.mark.parametrize("command", ["show", "cost", "sample", "plan", "run"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("directory", "cannot be read: [Errno 21] Is a directory: 'bad.toml'"),
        (b"", "(blocks|space): is missing"),
        (b"[blocks\n", "is no TOML: "),
        (b"\x00\x01\x02", "is no TOML: "),
        (b"\xff\xfe\x00", "cannot be read: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"a = 1", "(blocks|space|a): (is missing|unknown key)"),
        (b"[[blocks]]\nwidth = 1\n[[space]]", "(space: |is a study, and a (network|space) )"),
    ],
    ids=["missing", "directory", "empty", "no toml", "binary", "other encoding", "unknown key", "odd tables"],
)  # fmt: skip
def test_a_file_that_is_none(
    call: Call, here: Path, command: str, content: bytes | str | None, message: str
) -> None:
    if content == "directory":
        (here / "bad.toml").mkdir()
    elif isinstance(content, bytes):
        (here / "bad.toml").write_bytes(content)
    before = sorted(here.rglob("*"))
    result = call(command, "bad.toml")
    assert (result.code, result.out) == (1, "")
    pattern = message if message.startswith("(") else re.escape(message)
    assert re.fullmatch(rf"Error: bad\.toml: {pattern}.*\n", result.err), result.err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("densenet-40-12x",
         f"unknown preset 'densenet-40-12x', and no .toml file. Did you mean 'densenet-40-12'? "
         f"Similar: densenet-40-24, densenet-100-12, densenet-40-36. {PRESETS}"),
        ("zzz", f"unknown preset 'zzz', and no .toml file. {PRESETS}"),
        ("", f"unknown preset '', and no .toml file. {PRESETS}"),
        (".", f"unknown preset '.', and no .toml file. {PRESETS}"),
        ("./net", "./net: no such file"),
    ],
)  # fmt: skip
def test_a_preset_that_is_none(call: Call, here: Path, net: str, message: str) -> None:
    for command in (["show"], ["show", "--graph"], ["cost"], ["draw", "-o", "a.svg"]):
        assert call(*command, net) == failed(message)


def test_one_bad_network_spoils_the_table(call: Call, here: Path) -> None:
    assert call("cost", "net.toml", "nothing.toml", "--json") == failed("nothing.toml: no such file")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Usage: "),
        (["nothing"], "No such command 'nothing'."),
        (["list"], "Missing argument"),
        (["list", "nothing"], "unknown kind 'nothing'. Known: aggregations, datasets, drops, heads, "),
        (["list", "topologys"], "unknown kind 'topologys'. Did you mean 'topologies'? Known: aggregations, "),
        (["show"], "Missing argument 'NET'"),
        (["show", "a", "b"], "unexpected extra argument"),
        (["show", "a", "--grpah"], "No such option: --grpah"),
        (["cost"], "name networks, or give --all (not both)"),
        (["cost", "densenet-40-12", "--classes", "0"], "Invalid value for '--classes'"),
        (["cost", "densenet-40-12", "--classes", "ten"], "Invalid value for '--classes'"),
        (["draw", "densenet-40-12"], "Missing option '-o' / '--output'"),
        (["sample", "space.toml", "-n", "0"], "Invalid value for '-n'"),
        (["sample", "space.toml", "--seed", "x"], "Invalid value for '--seed'"),
        (["run", "study.toml", "--trials", "0"], "Invalid value for '--trials'"),
        (["run"], "Missing argument 'STUDY.toml'"),
        (["front"], "Missing argument 'DIR'"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(call: Call, here: Path, args: list[str], message: str) -> None:
    result = call(*args)
    assert result.code == 2
    assert message in result.out + result.err


def test_version_and_help(call: Call) -> None:
    assert call("--version") == Result(0, f"connsearch {__version__}\n", "")
    for command in (
        [],
        ["list"],
        ["show"],
        ["draw"],
        ["cost"],
        ["sample"],
        ["plan"],
        ["run"],
        ["status"],
        ["front"],
    ):
        result = call(*command, "--help")
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith("Usage: ")
