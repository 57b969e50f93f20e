"""Which learning rate a step uses."""

from __future__ import annotations

import math

from connsearch.train.config import TrainConfig

EXACT = 1e-6
"""Part of a step that rounding may take: 0.55 * 100 is above 55, yet the milestone is step 55."""


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole training.

    With w warm-up steps of n in all, the rate rises linearly to `lr` at step w - 1. From step w on

    - constant: lr;
    - step: lr * gamma ** (milestones m with step >= m * n), warm-up included in n;
    - cosine: lr * (1 + cos(pi * (step - w) / (n - w))) / 2, `lr` at step w and nearly 0 at n - 1
      (I. Loshchilov and F. Hutter, "SGDR", ICLR 2017, equation 5, one period);
    - one_cycle: lr * (step + 1) / p up to step p - 1, where it is `lr`, p = `peak` * n in whole steps; from
      there on lr * (n - step) / (n - p + 1), nearly 0 at n - 1 (L. Smith and N. Topin, "Super-convergence",
      arXiv 1708.07120, section 3, in the two straight lines of D. Page, "How to train your ResNet", 2018).
      Momentum stays.

    >>> config = TrainConfig.from_dict({"dataset": "digits", "epochs": 4, "lr": 1.0, "warmup_epochs": 1})
    >>> [round(learning_rate(config, step, 2), 3) for step in range(8)]
    [0.5, 1.0, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
    """
    n_steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * _factor(config, step, warmup, n_steps)


def _factor(config: TrainConfig, step: int, warmup: int, n_steps: int) -> float:
    if config.schedule == "step":
        reached = sum(step + EXACT >= m * n_steps for m in config.milestones)
        return config.gamma**reached
    if config.schedule == "one_cycle":
        rise = max(1, round(config.peak * n_steps))
        return (step + 1) / rise if step < rise else (n_steps - step) / (n_steps - rise + 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) / 2
    return 1.0
