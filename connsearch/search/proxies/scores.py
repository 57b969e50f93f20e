"""Zero-cost proxies: what does a network that was never trained say about how well it will do?

Every proxy is a number of a freshly initialised network and one batch of training images; more is meant to be
better. None is known to be better than counting multiply-accumulates in general, so compare them on
a study of one's own (`connsearch.search.proxies.correlation`) before one is trusted.

Shapes: B images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from connsearch.errors import SpecError, did_you_mean
from connsearch.search.seeds import stream_seed

if TYPE_CHECKING:
    from connsearch.spec.network import NetworkSpec
    from connsearch.train.config import TrainConfig

Proxy = Callable[[nn.Module, Tensor, Tensor], float]
_ACTIVATIONS = (nn.ReLU, nn.ELU, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.Mish)
_IGNORED = -100  # by cross entropies of torch
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def naswot(network: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Return log |det K|, K[i, j] the number of activations that are on or off alike for images i and j.

    J. Mellor, J. Turner, A. Storkey and E. J. Crowley, *Neural Architecture Search without Training*,
    ICML 2021 (arXiv 2006.04647), equation 2; batch norms see the batch, as in the authors' code. An
    activation is on where its input is above 0. Labels are not looked at. -inf if two images switch
    everything alike.

    Raises:
        SpecError: if the network has no activation.
    """
    count = len(images_BCHW)
    alike_BB = torch.zeros(count, count, dtype=torch.float64, device=images_BCHW.device)

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Zeros and ones multiply exactly in float32 up to 2**24 of them, a layer of 16 million activations.
        on_BN = (inputs[0].detach().reshape(count, -1) > 0).float()
        off_BN = 1 - on_BN
        alike_BB.add_((on_BN @ on_BN.T + off_BN @ off_BN.T).double())

    found = [module for module in network.modules() if isinstance(module, _ACTIVATIONS)]
    if not found:
        raise SpecError("naswot counts activations, and the network has none: take another proxy")
    handles = [module.register_forward_pre_hook(add) for module in found]
    try:
        with torch.no_grad():
            network.train()(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return float(torch.linalg.slogdet(alike_BB.cpu()).logabsdet)


def synflow(network: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Return log sum |w dR/dw|, R the sum of outputs for an image of ones with all parameters |w|.

    H. Tanaka, D. Kunin, D. L. K. Yamins and S. Ganguli, *Pruning neural networks without any data by
    iteratively conserving synaptic flow*, NeurIPS 2020 (arXiv 2006.05467), summed over the weights of
    convolutions and linear layers as in M. S. Abdelfattah et al., *Zero-Cost Proxies for Lightweight NAS*,
    ICLR 2021 (arXiv 2101.08134), whose code passes over batch norms, as here. R is a product over layers: it
    is computed in double precision, and its logarithm orders networks alike. Of images the shape alone is
    looked at, of labels nothing. inf where even double precision does not suffice, hundreds of layers deep.
    """
    linear = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.abs_()
    for module in linear.modules():
        if isinstance(module, _BATCH_NORMS):
            module.register_forward_hook(_passed)
    weights = _weights(linear)
    ones = torch.ones(1, *images_BCHW.shape[1:], dtype=torch.float64, device=images_BCHW.device)
    with torch.enable_grad():
        gradients = torch.autograd.grad(linear(ones).sum(), weights, allow_unused=True)
    pairs = zip(weights, gradients, strict=True)
    total = sum(float((w.detach() * g).abs().sum()) for w, g in pairs if g is not None)
    if math.isnan(total):  # of inf - inf, inf * 0
        return math.inf
    return math.log(total) if total > 0 else -math.inf


def _passed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return inputs[0]


def grad_norm(network: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Return the sum over weights of convolutions and linear layers of the norm of the loss's gradient.

    Abdelfattah et al., *Zero-Cost Proxies for Lightweight NAS*, ICLR 2021 (arXiv 2101.08134), section 3.1:
    the Euclidean norm of each tensor's gradient after one batch, summed; the loss is the mean cross entropy.
    """
    gradients = _gradients(network, images_BCHW, labels_B)
    return float(sum(float(g.norm()) for _, g in gradients))


def snip(network: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> float:
    """Return sum |w dL/dw| over weights of convolutions and linear layers, L the loss of one batch.

    N. Lee, T. Ajanthan and P. H. S. Torr, *SNIP: Single-shot network pruning based on connection
    sensitivity*, ICLR 2019 (arXiv 1810.02340), summed over the network as in arXiv 2101.08134.
    """
    gradients = _gradients(network, images_BCHW, labels_B)
    return float(sum(float((w * g).abs().sum()) for w, g in gradients))


PROXIES: dict[str, Proxy] = {"naswot": naswot, "synflow": synflow, "grad_norm": grad_norm, "snip": snip}


def _gradients(network: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return each weight that the loss of a batch depends on, detached, with its gradient."""
    weights = _weights(network)
    with torch.enable_grad():
        loss = F.cross_entropy(network.train()(images_BCHW), labels_B)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(weights, found, strict=True) if g is not None]


def _weights(network: nn.Module) -> list[Tensor]:
    return [module.weight for module in network.modules() if isinstance(module, _WEIGHTED)]


def measure_proxies(
    spec: NetworkSpec,
    train_config: TrainConfig,
    names: Sequence[str],
    *,
    study_seed: int,
    trial: int,
    device: str = "cpu",
) -> dict[str, float | None]:
    """Return proxies of a network with a trial's own initial weights, on one batch of training images.

    A function of its arguments alone, on one machine. The batch has the size of what training takes
    at once, or less where the split is smaller, and is drawn by the trial's seed, without random changes.

    Args:
        spec: The network.
        train_config: Names the data set and the size of a batch.
        names: Keys of `PROXIES`.
        study_seed: Together with the trial's number it gives the seeds of weights and images.
        trial: The number of the trial whose seeds are taken.
        device: Where to compute.

    Returns:
        For each name its value; None where it is not finite or the network has nothing to measure.

    Raises:
        SpecError: if a name is unknown.
        OutOfMemoryError: if memory does not suffice.
        DataError: if the data set is missing.
    """
    for name in names:
        if name not in PROXIES:
            raise SpecError(f"unknown proxy {name!r}. {did_you_mean(name, PROXIES)}")
    from connsearch.data import load_dataset
    from connsearch.nn.network import Network
    from connsearch.search.objective import enough_memory
    from connsearch.train.surroundings import limited_threads

    dataset = load_dataset(train_config.dataset)
    split = dataset.train
    order = torch.Generator().manual_seed(stream_seed(study_seed, trial, "train"))
    chosen = torch.randperm(len(split), generator=order)[: train_config.micro_batch_size]
    images, labels = split.inputs(split.images[chosen].to(device)), split.labels[chosen].to(device)
    if split.dense:
        labels = torch.where(labels == dataset.void, _IGNORED, labels.long())
    weights = stream_seed(study_seed, trial, "init")
    with enough_memory(device), limited_threads(train_config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights)
        network = Network(spec).to(device)
        return {name: _value(PROXIES[name], network, images, labels, weights) for name in names}


def _value(
    proxy: Proxy, network: nn.Module, images_BCHW: Tensor, labels_B: Tensor, seed: int
) -> float | None:
    """Return a proxy of a copy of a network, so that none sees what another did to it."""
    torch.manual_seed(seed)
    try:
        value = proxy(copy.deepcopy(network), images_BCHW, labels_B)
    except SpecError:  # nothing in the network that it measures
        return None
    return value if math.isfinite(value) else None
