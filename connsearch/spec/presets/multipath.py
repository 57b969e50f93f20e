"""Multi-path networks with data-dependent routing (Tissera et al., arXiv 2006.13904 and 2107.02450).

X paths of one layout, routed where a block begins: m tensors X_i become n tensors Y_j, one for each path, by
gates g_i = softmax_j(W2 ReLU(W1 mean(X_i) + b1) + b2) of each input tensor.

Cross-connections: Y_j = sum_i g_ij X_i. Cross-prediction: U_ij = conv_ij(X_i) + b_ij, Y_j = ReLU(sum_i g_ij
U_ij). The stem's one tensor goes to all paths (m = 1), the head reads the mean of all paths.

Everything is recalled: of the papers only abstracts could be opened, and no code. They confirm gates that are
computed from a layer's input features, and both algorithms by name. The layouts of the bases, and that
routing is where blocks begin, are this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from connsearch.errors import SpecError, did_you_mean
from connsearch.graph import ConnectivityGraph
from connsearch.graph.build import GraphBuilder
from connsearch.graph.patterns import check_depths
from connsearch.spec.network import NetworkSpec

PRESETS: dict[str, Callable[[], NetworkSpec]] = {}

BASES = ("plain", "residual")
ROUTINGS = ("connection", "prediction")


def multipath(
    n_paths: int,
    *,
    base: str = "residual",
    routing: str = "connection",
    depths: Sequence[int] = (3, 3, 3),
    widths: Sequence[int] = (16, 32, 64),
    hidden: int = 16,
    **settings: Any,
) -> NetworkSpec:
    """Return a network of parallel paths with routing between them.

    Args:
        n_paths: Parallel paths, at least 2.
        base: Of each path. `plain`: convolution - batch norm - ReLU, blocks joined by 2x2 maxima.
            `residual`: ResNet-v1's basic units, shortcuts without weights.
        routing: Cross-`connection`; or cross-`prediction`, whose convolutions are the first of a plain
            block's, and come before a residual block's.
        depths: Units of each block of each path.
        widths: Width of each block of each path.
        hidden: Hidden features of the gates.
        **settings: Other fields, such as `n_classes` and `input`.

    Raises:
        SpecError: if there are fewer than 2 paths, a block has no unit or a value is unknown.
    """
    graph = multipath_graph(n_paths, depths, base=base, routing=routing)
    gates = {"name": "routed", "hidden": hidden, "single": True}
    parts: dict[str, dict[str, Any]] = {
        "connected": {"aggregation": gates},
        "prediction": {"unit": "conv(bias=true, norm=none, activation=none)"},
        "predicted": {"aggregation": gates | {"gates_of": "parent"}, "line": "norm_act(norm=none)"},
        "maximum": {"line": "pool(kind=max)"},
        "strided": {"unit": "post_basic(stride=2)"},
        "shortcut": {"line": "zero_pad"},
        "after": {"line": "norm_act(norm=none)"},
        "average": {"aggregation": "mean"},
    }
    used = {node.part for node in graph.nodes}
    unit = "conv(order=post)" if base == "plain" else "post_basic"
    return NetworkSpec.from_dict(
        {
            "graph": graph,
            "blocks": tuple({"unit": unit, "width": width} for width in widths),
            "parts": tuple({"name": name, **part} for name, part in parts.items() if name in used),
            "stem": "conv(norm=batch, activation=relu)",
            "head": "pool(norm=none, activation=none)",
            **settings,
        }
    )


def multipath_graph(
    n_paths: int, depths: Sequence[int], *, base: str = "residual", routing: str = "connection"
) -> ConnectivityGraph:
    """Return the graph of `multipath`; a node's `path` counts from 0.

    >>> multipath_graph(2, (1, 1), base="plain").in_degrees()["block2.path1.routed"]
    2

    Raises:
        SpecError: if there are fewer than 2 paths, a block has no unit or a value is unknown.
    """
    if n_paths < 2:
        raise SpecError(f"n_paths must be at least 2, got {n_paths}")
    check_depths(depths)
    for what, value, known in (("base", base, BASES), ("routing", routing, ROUTINGS)):
        if value not in known:
            raise SpecError(f"unknown {what} {value!r}. {did_you_mean(value, known)}")
    builder = GraphBuilder()
    lasts = [builder.add("stem", "stem")]
    for block, depth in enumerate(depths, start=1):
        if base == "plain":
            lasts = _pooled(builder, lasts, block) if block > 1 else lasts
            lasts = _routed(builder, lasts, n_paths, block, routing, at=block)
            first = 2 if routing == "prediction" else 1
            lasts = [_plain_path(builder, last, block, path, first, depth) for path, last in enumerate(lasts)]
        else:
            lasts = _routed(builder, lasts, n_paths, block, routing, at=max(block - 1, 1))
            lasts = [_residual_path(builder, last, block, path, depth) for path, last in enumerate(lasts)]
    builder.add("head", "head", reads=lasts, block=len(depths), scale=len(depths) - 1, part="average")
    return builder.graph()


def _routed(
    builder: GraphBuilder, lasts: Sequence[str], n_paths: int, block: int, routing: str, *, at: int
) -> list[str]:
    """Add what distributes several tensors over the paths of a block, at the width of block `at`."""
    outputs = []
    here: dict[str, Any] = {"block": at, "scale": at - 1}
    for path in range(n_paths):
        name, reads = f"block{block}.path{path}", [*lasts]
        if routing == "prediction":
            reads = [
                builder.add(f"{name}.from{i}", reads=[last], path=path, part="prediction", **here)
                for i, last in enumerate(lasts)
            ]
        part = "predicted" if routing == "prediction" else "connected"
        outputs.append(builder.add(f"{name}.routed", "join", reads=reads, path=path, part=part, **here))
    return outputs


def _pooled(builder: GraphBuilder, lasts: Sequence[str], block: int) -> list[str]:
    here: dict[str, Any] = {"block": block, "scale": block - 1}
    return [
        builder.add(
            f"block{block}.path{path}.pool", "transition", reads=[last], path=path, part="maximum", **here
        )
        for path, last in enumerate(lasts)
    ]


def _plain_path(builder: GraphBuilder, last: str, block: int, path: int, first: int, depth: int) -> str:
    """Add units first .. depth of one path in a row, and return the last."""
    for i in range(first, depth + 1):
        name = f"block{block}.path{path}.unit{i}"
        last = builder.add(name, reads=[last], block=block, scale=block - 1, path=path)
    return last


def _residual_path(builder: GraphBuilder, state: str, block: int, path: int, depth: int) -> str:
    """Add units of one path, each joined with the state, and return the last join."""
    here: dict[str, Any] = {"block": block, "scale": block - 1, "path": path}
    for i in range(1, depth + 1):
        name, skip = f"block{block}.path{path}.unit{i}", state
        strided = block > 1 and i == 1
        if strided:
            skip = builder.add(f"{name}_shortcut", "carry", reads=[state], part="shortcut", **here)
        unit = builder.add(name, reads=[state], part="strided" if strided else "", **here)
        state = builder.add(f"{name}_sum", "join", reads=[skip, unit], part="after", **here)
    return state


for _n in (2, 3):
    for _suffix, _routing in (("", "connection"), ("-xpred", "prediction")):
        PRESETS[f"multipath-cnn-{_n}{_suffix}"] = partial(
            multipath, _n, base="plain", routing=_routing, depths=(2, 2, 2), widths=(32, 64, 128)
        )
        PRESETS[f"multipath-resnet-20-{_n}{_suffix}"] = partial(multipath, _n, routing=_routing)
