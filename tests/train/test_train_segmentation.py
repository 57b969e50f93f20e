"""Networks that answer for each pixel are trained, evaluated, stopped and resumed as others are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from connsearch.cost import network_cost
from connsearch.data import Augment, Dataset, Split
from connsearch.errors import TrainError
from connsearch.nn import Network
from connsearch.spec import NetworkSpec
from connsearch.spec.ends import predicts_pixels
from connsearch.spec.presets import load_network
from connsearch.train import EpochRecord, TrainConfig, TrainResult, evaluate, train

ROOT = Path(__file__).parents[2]
VOID = 9
BASE = {"dataset": "digits", "epochs": 4, "batch_size": 8, "lr": 0.1}


def shapes(n: int, seed: int, *, void: bool = True) -> Split:
    """Return noisy images of a bright box (class 1) on a dark ground (0), its frame void."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(n, 8, 8, dtype=torch.uint8)
    for index, (top, left) in enumerate(torch.randint(1, 4, (n, 2), generator=generator).tolist()):
        if void:
            labels[index, top - 1 : top + 5, left - 1 : left + 5] = VOID
        labels[index, top : top + 4, left : left + 4] = 1
    images = (labels[:, None] == 1).float() + 0.5 * torch.randn(n, 1, 8, 8, generator=generator)
    return Split(images, labels)


@pytest.fixture(scope="module")
def boxes() -> Dataset:
    splits = [shapes(n, seed) for seed, n in enumerate((48, 16, 16))]
    return Dataset("boxes", ("ground", "box"), *splits, Augment(flip=True, shift=1), void=VOID)


def network(layout: str = "encoder_decoder") -> Network:
    """Return a small network: down, a middle, up again."""
    blocks = [{"topology": "dense", "aggregation": "concat", "unit": "conv", "n_layers": 2, "width": 4}] * 3
    table = {"input": {"channels": 1, "height": 8, "width": 8}, "n_classes": 2, "blocks": blocks}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(NetworkSpec.from_dict({**table, "layout": layout}))


def config(**more: object) -> TrainConfig:
    return TrainConfig.from_dict({**BASE, **more})


def test_a_network_learns_where_boxes_are(boxes: Dataset) -> None:
    net = network()
    result = train(net, boxes, config(), seed=0)
    first, last = result.curve[0], result.curve[-1]
    assert last.train_loss < 0.5 * first.train_loss
    assert last.val_error < 0.1
    assert last.val_mean_iou > 0.8
    assert result.val_iou_error == 1 - last.val_mean_iou
    assert evaluate(net, boxes.val, void=VOID) == pytest.approx((last.val_loss, last.val_error))


def test_curves_are_those_of_the_formula(boxes: Dataset) -> None:
    net = network()
    last = train(net, boxes, config(epochs=1, augment=False), seed=0).curve[-1]
    with torch.no_grad():
        predicted = net.eval()(boxes.val.images).argmax(1)
    truth = boxes.val.labels
    known = truth != VOID
    assert last.val_error == pytest.approx((predicted != truth)[known].double().mean().item())
    ious = [
        ((predicted == c) & (truth == c)).sum() / (((predicted == c) | (truth == c)) & known).sum()
        for c in (0, 1)
    ]
    assert last.val_mean_iou == pytest.approx(torch.stack(ious).mean().item())


def test_what_void_pixels_show_as_label_changes_nothing(boxes: Dataset) -> None:
    def renamed(split: Split) -> Split:
        return Split(split.images, torch.where(split.labels == VOID, 7, split.labels))

    other = replace(
        boxes, train=renamed(boxes.train), val=renamed(boxes.val), test=renamed(boxes.test), void=7
    )
    curves = [train(network(), data, config(epochs=2), seed=0).curve for data in (boxes, other)]
    assert [replace(e, seconds=0) for e in curves[0]] == [replace(e, seconds=0) for e in curves[1]]


def test_a_training_that_was_stopped_goes_on_bit_for_bit(boxes: Dataset, path: Path) -> None:
    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    whole = train(network(), boxes, config(class_weights="median_frequency"), seed=0)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(
            network(), boxes, config(class_weights="median_frequency"), seed=0, checkpoint=path, on_epoch=stop
        )
    resumed = train(network(), boxes, config(class_weights="median_frequency"), seed=0, checkpoint=path)
    assert [replace(e, seconds=0) for e in resumed.curve] == [replace(e, seconds=0) for e in whole.curve]
    assert all(record.val_mean_iou is not None for record in resumed.curve)


def test_a_rare_class_is_as_likely_as_others_where_classes_weigh_by_their_frequency() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(64, 8, 8, generator=generator) < 0.15).byte()
    grey = Split(torch.zeros(64, 1, 8, 8), labels)  # in which nothing can be seen
    data = Dataset("grey", ("common", "rare"), grey, grey, grey)
    shares = {}
    for weights in ("none", "median_frequency"):
        net = network()
        train(net, data, config(class_weights=weights), seed=0)
        with torch.no_grad():
            shares[weights] = net.eval()(grey.images[:1]).softmax(1)[0, 1].mean().item()
    assert 0.05 < shares["none"] < 0.25
    assert 0.4 < shares["median_frequency"] < 0.6


def test_bfloat16_learns_too(boxes: Dataset) -> None:
    result = train(network(), boxes, config(precision="bfloat16", layout="channels_last"), seed=0)
    assert result.curve[-1].val_mean_iou > 0.75


def test_a_network_for_images_is_refused_at_the_first_step(boxes: Dataset) -> None:
    with pytest.raises(
        TrainError, match=r"returns shape \(8, 2\) for 8 label maps of 8 x 8 pixels and 2 classes"
    ):
        train(network("encoder"), boxes, config(), seed=0)


def test_a_split_without_labels_cannot_be_evaluated(boxes: Dataset) -> None:
    nothing = Split(boxes.val.images, torch.full_like(boxes.val.labels, VOID))
    with pytest.raises(TrainError, match=r"every pixel is void \(9\): nothing can be evaluated"):
        evaluate(network(), nothing, void=VOID)


def test_large_maps_are_evaluated_a_few_at_a_time(boxes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().forward(images)

    net = Watched(1, 2, 1)
    whole = evaluate(net, boxes.val, void=VOID)
    monkeypatch.setattr("connsearch.train.evaluation.PIXELS_AT_ONCE", 5 * 64)
    assert evaluate(net, boxes.val, void=VOID) == pytest.approx(whole)
    assert seen == [16, 5, 5, 5, 1]


def test_records_say_what_there_is() -> None:
    record = EpochRecord(1, 0.1, 1.0, 0.5, 1.0, 0.5, 2.0)
    assert "val_mean_iou" not in record.to_dict()
    assert EpochRecord.from_dict(record.to_dict()) == record
    assert replace(record, val_mean_iou=0.4).to_dict()["val_mean_iou"] == 0.4
    with pytest.raises(TrainError, match="there is no mean IoU: the data set has labels for images"):
        TrainResult((record,), diverged=False, seconds=1.0).val_iou_error  # noqa: B018
    assert TrainResult((record,), diverged=True, seconds=1.0).val_iou_error == 1.0


def test_the_small_network_for_camvid_is_what_its_file_says() -> None:
    spec = load_network(str(ROOT / "studies" / "networks" / "fc-log-densenet-small.toml"))
    cost = network_cost(spec)
    assert (round(cost.macs / 1e6), round(cost.params / 1e3)) == (254, 86)
    assert predicts_pixels(spec.head)
