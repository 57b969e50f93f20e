"""Presets: named architectures as specifications. A preset is data; edit it with `model_copy`.

Sources: DelugeNets (Kuen et al., arXiv 1611.05552, in the form of the authors' code), DenseNets (Huang et
al., arXiv 1608.06993, stem of the authors' current code), SparseNets (Zhu et al., arXiv 1801.05895, with
the stem that the published counts need). Input is 3 x 32 x 32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref
from connsearch.spec.aggregations import AGGREGATIONS
from connsearch.spec.chains import UNITS
from connsearch.spec.network import BlockConfig, NetworkSpec
from connsearch.spec.resolve import resolve

Preset = Callable[[], NetworkSpec]

PRESETS: dict[str, Preset] = {}


def list_presets() -> list[str]:
    """Return the names of all presets.

    >>> "delugenet-146" in list_presets()
    True
    """
    return sorted(PRESETS)


def preset(name: str, *, n_classes: int | None = None) -> NetworkSpec:
    """Return a named architecture.

    Args:
        name: One of `list_presets()`.
        n_classes: In place of the preset's 10.

    Raises:
        SpecError: if the name is unknown.
    """
    if name not in PRESETS:
        raise SpecError(f"unknown preset {name!r}, and no .toml file. {did_you_mean(name, PRESETS)}")
    spec = PRESETS[name]().model_copy(update={"name": name})
    if n_classes is not None:
        spec = NetworkSpec.from_dict({**spec.to_dict(), "n_classes": n_classes})
    return spec


def load_network(net: str, *, n_classes: int | None = None) -> NetworkSpec:
    """Return the network that a preset's name or the path of a NetworkSpec TOML file names.

    Raises:
        SpecError: if it is neither, or the file describes no network.
    """
    if net in PRESETS or not (net.endswith(".toml") or "/" in net):
        return preset(net, n_classes=n_classes)
    spec = NetworkSpec.from_toml(net)
    if n_classes is not None:
        spec = NetworkSpec.from_dict({**spec.to_dict(), "n_classes": n_classes})
    try:
        resolve(spec)
    except SpecError as error:
        raise SpecError(str(error), place=net) from None
    return spec


def _deluge(widths: Sequence[int], depths: Sequence[int], aggregation: Ref) -> NetworkSpec:
    """Three blocks of bottlenecks of expansion 2; block 1's first unit is its node 0."""
    unit = UNITS.ref("bottleneck", expansion=2)
    blocks = tuple(
        BlockConfig(
            topology=Ref("dense"),
            aggregation=aggregation,
            unit=unit,
            n_layers=depth,
            width=width,
            entry_unit=number == 0,
        )
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True))
    )
    return NetworkSpec(stem_ratio=1, blocks=blocks)


def _concatenating(topology: str, depth: int, growth: int, *, bottleneck: bool) -> NetworkSpec:
    """DenseNet or SparseNet: three blocks of concatenated growth; with bottlenecks, transitions halve."""
    block = BlockConfig(
        topology=Ref(topology),
        aggregation=Ref("concat"),
        unit=Ref("dense_bottleneck" if bottleneck else "conv"),
        n_layers=(depth - 4) // (6 if bottleneck else 3),
        width=growth,
    )
    return NetworkSpec(
        stem_ratio=2, transition=Ref("pool"), compression=0.5 if bottleneck else 1.0, blocks=(block,) * 3
    )


def _register() -> None:
    deluge = {
        "delugenet-146": ((32, 64, 128), (8, 16, 24)),
        "delugenet-218": ((32, 64, 128), (12, 24, 36)),
        "wide-delugenet-146": ((56, 112, 224), (8, 16, 24)),
    }
    paper = AGGREGATIONS.ref("depthwise", form="paper")
    for name, (widths, depths) in deluge.items():
        forms = {name: Ref("depthwise"), f"{name}-paper": paper, f"{name}-base-3x3": Ref("sum")}
        for full_name, aggregation in forms.items():
            PRESETS[full_name] = partial(_deluge, widths, depths, aggregation)
    for family, topology in (("densenet", "dense"), ("sparsenet", "sparse")):
        for depth, growth in ((40, 12), (40, 24), (100, 12), (100, 24), (100, 36)):
            PRESETS[f"{family}-{depth}-{growth}"] = partial(
                _concatenating, topology, depth, growth, bottleneck=False
            )
        for depth, growth in ((100, 12), (190, 40), (250, 24)):
            PRESETS[f"{family}-bc-{depth}-{growth}"] = partial(
                _concatenating, topology, depth, growth, bottleneck=True
            )


_register()
