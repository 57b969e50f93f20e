"""Handwritten digits: small enough that a search runs on a laptop, and there without a download.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998; its test part, as embedded in scikit-learn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from connsearch.data.dataset import Augment, Dataset

SPLIT_SEED = 0
"""Fixed, so that every study, whatever its seed, is selected and tested on the same images."""


def load_digits() -> Dataset:
    """Return 1,797 images of 1 x 8 x 8 in 10 classes: 1,077 train, 360 val, 360 test.

    The split is stratified and always the same. An image may move by one pixel; a mirrored digit is
    no digit.
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    raw = datasets.load_digits()
    images, labels = raw.images[:, None], raw.target
    index = np.arange(len(labels))
    rest, test = train_test_split(index, test_size=360, stratify=labels, random_state=SPLIT_SEED)
    train, val = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=SPLIT_SEED)

    def part(chosen: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])

    return Dataset.normalised(
        "digits",
        [str(digit) for digit in range(10)],
        train=part(train),
        val=part(val),
        test=part(test),
        augment=Augment(flip=False, shift=1),
    )
