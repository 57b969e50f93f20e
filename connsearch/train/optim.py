"""The optimizer of a configuration, in the fastest form that PyTorch has for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from connsearch.errors import TrainError
from connsearch.train.config import TrainConfig

FUSED_ON = {"cpu", "cuda"}
"""Devices on which one fused kernel updates all parameters."""

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Modules whose weights decay always."""


def make_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> Optimizer:
    """Return the optimizer over a model's trainable parameters.

    Raises:
        TrainError: if the model has none.
    """
    groups = parameter_groups(model, config)
    if not groups:
        raise TrainError(f"{type(model).__name__} has no trainable parameters: there is nothing to train")
    fused = device.type in FUSED_ON
    if config.optimizer == "sgd":
        return SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=fused)
    kind = Adam if config.optimizer == "adam" else AdamW
    return kind(groups, config.lr, betas=(config.momentum, 0.999), fused=fused)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the trainable parameters by weight decay; with `decay_norms` all in one group.

    Without it, only the weights of convolutions and linear layers decay, not their biases, and no scale
    or shift of a norm or of an aggregation:
    T. He et al., "Bag of Tricks for Image Classification", CVPR 2019, section 3.1.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    weights = {id(module.weight) for module in model.modules() if isinstance(module, WEIGHTED)}
    decays = [config.decay_norms or id(p) in weights for p in trainable]
    groups = [
        {"params": [p for p, d in zip(trainable, decays, strict=True) if d is decay], "weight_decay": rate}
        for decay, rate in ((True, config.weight_decay), (False, 0.0))
    ]
    return [group for group in groups if group["params"]]
