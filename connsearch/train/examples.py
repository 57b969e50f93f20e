"""What a network sees in a few images of label maps, ready to be drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from connsearch.data.dataset import Dataset, Split
from connsearch.train.evaluation import restored_modes


class Segmented(NamedTuple):
    """Images, truth and predictions.

    Attributes:
        images: N H W C, uint8, as they were before normalisation.
        truth: N H W, labels.
        predicted: N H W, classes.
    """

    images: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]


def segmented(
    model: nn.Module, dataset: Dataset, split: Split, count: int, *, device: str | torch.device = "cpu"
) -> Segmented:
    """Return what a model makes of `count` images, or of all if there are fewer, evenly over a split.

    In evaluation mode and float32; the model gets its modes back.

    Args:
        model: Takes B C H W, returns B K H W.
        dataset: The data set, of label maps.
        split: One of its splits.
        count: How many images, at least 1.
        device: Where; the model is moved to it.
    """
    rows = torch.linspace(0, len(split) - 1, min(count, len(split))).round().long()
    images_NCHW, predicted = split.images[rows], []
    model.to(device)
    with restored_modes(model), torch.inference_mode():
        model.eval()
        for image_1CHW in torch.split(images_NCHW, 1):
            logits_1KHW = model(split.inputs(image_1CHW.to(device)))
            predicted.append(logits_1KHW[:, : dataset.n_classes].argmax(1).cpu())
    return Segmented(
        _pixels(images_NCHW, dataset),
        split.labels[rows].long().numpy(),
        torch.cat(predicted).numpy(),
    )


def _pixels(images_NCHW: Tensor, dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Return images as pixels of 8 bits, N H W C; of normalised ones the darkest is black."""
    pixels_NCHW = images_NCHW
    if pixels_NCHW.dtype != torch.uint8:
        low, high = pixels_NCHW.amin(), pixels_NCHW.amax()
        pixels_NCHW = ((pixels_NCHW - low) / (high - low).clamp(min=1e-6) * 255).round().byte()
    found: npt.NDArray[np.uint8] = pixels_NCHW.cpu().permute(0, 2, 3, 1).numpy()
    return found[..., :3] if dataset.channels >= 3 else found[..., :1]
