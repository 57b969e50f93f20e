"""Presets: named architectures as specifications. A preset is data; edit it with `model_copy`.

Each family has a file of its own, which says its sources.
"""

from __future__ import annotations

from connsearch.errors import SpecError, did_you_mean
from connsearch.spec.network import NetworkSpec
from connsearch.spec.presets import (
    delugenets,
    dense_prediction,
    densenets,
    fc_hardnets,
    fractal,
    hardnets,
    highways,
    logdensenets,
    mixed,
    multipath,
    random_wiring,
    resnets,
    stochastic,
    supervised,
    transformers,
)
from connsearch.spec.resolve import resolve

FAMILIES = {
    "DelugeNet": delugenets.PRESETS,
    "DenseNet and SparseNet": densenets.PRESETS,
    "Log-DenseNet": logdensenets.PRESETS,
    "Dense prediction": dense_prediction.PRESETS,
    "Dual path and mixed link network": mixed.PRESETS,
    "HarDNet": hardnets.PRESETS | fc_hardnets.PRESETS,
    "ResNet": resnets.PRESETS,
    "Highway network": highways.PRESETS,
    "Multi-path network": multipath.PRESETS,
    "FractalNet": fractal.PRESETS,
    "Randomly wired network": random_wiring.PRESETS,
    "Transformer": transformers.PRESETS,
    "Stochastic depth and Swapout": stochastic.PRESETS,
    "Deep supervision": supervised.PRESETS,
}
PRESETS = {name: make for family in FAMILIES.values() for name, make in family.items()}


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

    >>> net = preset("densenet-40-12", n_classes=100)
    >>> [str(block.topology) for block in net.blocks], net.widths
    (['dense', 'dense', 'dense'], (12, 12, 12))
    """
    if name not in PRESETS:
        raise SpecError(f"unknown preset {name!r}. {did_you_mean(name, PRESETS)}")
    spec = PRESETS[name]().model_copy(update={"name": name})
    return spec if n_classes is None else spec.model_copy(update={"n_classes": n_classes})


def load_network(net: str, *, n_classes: int | None = None) -> NetworkSpec:
    """Return the network that a preset's name or the path of a NetworkSpec TOML file names.

    Raises:
        SpecError: if it is neither, or the file describes no network.
    """
    if net in PRESETS:
        return preset(net, n_classes=n_classes)
    if not (net.endswith(".toml") or "/" in net):
        raise SpecError(f"unknown preset {net!r}, and no .toml file. {did_you_mean(net, PRESETS)}")
    spec = NetworkSpec.from_toml(net)
    if n_classes is not None:
        spec = spec.model_copy(update={"n_classes": n_classes})
    try:
        resolve(spec)
    except SpecError as error:
        raise SpecError(str(error), place=net) from None
    return spec
