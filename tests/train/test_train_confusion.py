"""Confusions against figures worked out by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from connsearch.data import Dataset, Split
from connsearch.errors import DataError, SpecError
from connsearch.train.confusion import Confusion, confusion

NAN = float("nan")
COUNTS = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [4, 0, 1, 3]])
NAMES = ("sky", "road", "tree", "car")


class Lookup(nn.Module):
    """Answers the class that the first channel names; for images by their first pixel."""

    def __init__(self, n_classes: int, dense: bool) -> None:
        super().__init__()
        self.n_classes, self.dense = n_classes, dense

    def forward(self, images: Tensor) -> Tensor:
        hot = nn.functional.one_hot(images[:, 0].long(), self.n_classes).permute(0, 3, 1, 2).float()
        return hot if self.dense else hot[:, :, 0, 0]


def test_shares_are_those_worked_out_by_hand() -> None:
    found = Confusion(COUNTS, NAMES, dense=True)
    assert found.support.tolist() == [8, 4, 0, 8]
    assert (found.accuracy, found.error) == (12 / 20, 8 / 20)
    np.testing.assert_allclose(found.class_accuracy, [6 / 8, 3 / 4, NAN, 3 / 8])
    np.testing.assert_allclose(found.precision, [6 / 11, 3 / 5, 0, 1])
    np.testing.assert_allclose(found.iou, [6 / 13, 3 / 6, 0, 3 / 8])
    assert found.mean_iou == pytest.approx((6 / 13 + 3 / 6 + 0 + 3 / 8) / 4)
    assert found.mean_class_accuracy == pytest.approx((6 / 8 + 3 / 4 + 3 / 8) / 3)


def test_a_class_that_occurs_nowhere_is_left_out_of_the_mean() -> None:
    counts = COUNTS.copy()
    counts[3, 2] = 0
    found = Confusion(counts, NAMES, dense=True)
    assert np.isnan(found.iou[2])
    assert found.mean_iou == pytest.approx((6 / 13 + 3 / 6 + 3 / 7) / 3)


def test_the_baseline_is_what_the_most_frequent_class_alone_reaches() -> None:
    found = Confusion(np.array([[1, 1, 0], [5, 0, 0], [0, 2, 1]]), ("a", "b", "c"), dense=True)
    assert found.majority == ("b", 5 / 10, pytest.approx((5 / 10) / 3))
    alone = Confusion(np.array([[0, 2, 0], [0, 5, 0], [0, 3, 0]]), ("a", "b", "c"), dense=True)
    assert (alone.error, alone.mean_iou) == (found.majority.error, pytest.approx(found.majority.mean_iou))


def test_it_prints_as_a_table() -> None:
    assert str(Confusion(COUNTS, NAMES, dense=True)) == "\n".join(
        [
            "class  pixels  accuracy %  precision %  iou %  most often taken for",
            "sky         8        75.0         54.5   46.2  road (25.0 %)",
            "road        4        75.0         60.0   50.0  sky (25.0 %)",
            "tree        0           -          0.0    0.0",
            "car         8        37.5        100.0   37.5  sky (50.0 %)",
            "",
            "mean IoU        33.4 %, baseline 13.3 %",
            "accuracy        60.0 %, baseline 40.0 %",
            "class accuracy  62.5 % on average",
            "The baseline answers 'sky', the most frequent class, everywhere.",
        ]
    )
    text = str(Confusion(COUNTS, NAMES))
    assert "class  images  accuracy %  precision %  most often taken for\n" in text
    assert "error           40.0 %, baseline 60.0 %\n" in text
    assert "IoU" not in text


@pytest.mark.parametrize("dense", [True, False])
def test_plain_data_and_back(dense: bool, tmp_path: Path) -> None:
    found = Confusion(COUNTS, NAMES, dense)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["counted"] == ("pixels" if dense else "images")
    assert record["classes"][2]["accuracy"] is None
    assert ("mean_iou" in record) == dense
    back = Confusion.from_dict(record)
    np.testing.assert_array_equal(back.counts, COUNTS)
    assert (back.class_names, back.dense) == (NAMES, dense)
    with pytest.raises(DataError, match="no confusion: KeyError"):
        Confusion.from_dict({"counts": [[1]]})

    with found.to_csv(tmp_path / "x.csv").open() as file:
        header, *rows = csv.reader(file)
    shares = ["accuracy", "precision", "iou"] if dense else ["accuracy", "precision"]
    assert header == ["name", "support", *shares, *(f"taken for {name}" for name in NAMES)]
    assert rows[3][:3] == ["car", "8", "0.375"]
    assert rows[2][2] == ""
    assert [[int(x) for x in row[-4:]] for row in rows] == COUNTS.tolist()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (COUNTS[:3], "a confusion of 4 classes needs 4 x 4 int64 counts, got int64 of shape"),
        (COUNTS * 1.0, "got float64 of shape"),
        (COUNTS * 0, "a confusion counts at least one image or pixel"),
        (COUNTS - 1, "none is negative"),
    ],
)
def test_what_is_no_confusion_is_refused(counts: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Confusion(counts, NAMES)


@pytest.mark.parametrize("dense", [True, False])
def test_counts_are_those_of_the_split_that_is_asked_for(dense: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        labels = torch.randint(3, (n, 4, 5), generator=generator, dtype=torch.uint8)
        answers = torch.randint(3, (n, 1, 4, 5), generator=generator).float()
        labels[0, :2] = 200 if dense else 0
        return Split(answers, labels if dense else labels[:, 1, 1].long())

    splits = {name: split(n) for name, n in (("train", 9), ("val", 7), ("test", 5))}
    data = Dataset("x", ("a", "b", "c"), **splits, void=200 if dense else -1)
    net = Lookup(5, dense)  # which knows more classes than there are
    for name, of in splits.items():
        expected = np.zeros((3, 3), int)
        answers = of.images[:, 0] if dense else of.images[:, 0, 0, 0]
        for true, answer in zip(of.labels.flatten().tolist(), answers.flatten().tolist(), strict=True):
            if true != 200:
                expected[true, int(answer)] += 1
        for batch_size in (512, 2):
            found = confusion(net, data, name, batch_size=batch_size)
            np.testing.assert_array_equal(found.counts, expected)
        assert (found.class_names, found.dense) == (("a", "b", "c"), dense)
    with pytest.raises(SpecError, match=r"unknown split 'tests'\. Did you mean 'test'\?"):
        confusion(net, data, "tests")
