"""The command that says how well a trained network does, class by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connsearch.cli.application import Json, checked, read_network, wrote

if TYPE_CHECKING:
    from connsearch.train.learned import Images
    from connsearch.train.trained import Trained


def evaluate(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="Weights as safetensors, or a training's checkpoint.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME|FOLDER", help="Whose images [those of the training]."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which of them: train, val or test.")] = "test",
    net: Annotated[
        str | None,
        typer.Option("--net", metavar="NET", help="Whose weights they are, if the file does not say."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Which classes are taken for which: .svg, .png or .pdf."),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option("--examples", metavar="FILE", help="Of label maps: images, truth, prediction."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=20, help="Images in --examples, evenly over the split.")
    ] = 4,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a row for each class.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda [cuda if there is one].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how well a trained network does: of all images or pixels, of each class, against guessing."""
    from connsearch.plots.confusion import plot_confusion
    from connsearch.plots.style import save
    from connsearch.search.objective import enough_memory, training_device
    from connsearch.train.confusion import confusion
    from connsearch.train.trained import load_trained

    files = checked([plot, examples], csv)
    where = training_device(device)
    trained = load_trained(weights, None if net is None else read_network(net))
    images = _images(trained, dataset, split, examples is not None)
    with enough_memory(where):
        found = confusion(trained.network, images.dataset, split, device=where)
    name, data = trained.network.spec.name, images.dataset.name
    title = f"{name} on {data}, {split}"
    if plot is not None:
        save(plot_confusion(found.counts, found.class_names, title=title), plot)
    if examples is not None:
        _draw_examples(trained, images, count, where, title, examples)
    if csv is not None:
        found.to_csv(csv)
    record = {"network": name, "dataset": data, "split": split, "images": len(images.split)}
    about = f"{title}: {len(images.split)} images"
    typer.echo(json.dumps({**record, **found.to_dict()}) if as_json else f"{about}\n\n{found}")
    wrote(*files)


def _images(trained: Trained, dataset: str | None, split: str, maps: bool) -> Images:
    from connsearch.errors import DataError, SpecError
    from connsearch.train.learned import images_of

    images = images_of(trained, dataset, split)
    if images is None:
        raise SpecError("the weights do not say what they were trained on: name a data set (--dataset)")
    if maps and not images.dataset.dense:
        raise DataError(
            f"dataset {images.dataset.name!r} has a label for each image, there are no maps to draw: "
            "leave out --examples"
        )
    return images


def _draw_examples(trained: Trained, images: Images, count: int, device: str, title: str, path: Path) -> None:
    from connsearch.plots.segmentation import plot_segmentation
    from connsearch.plots.style import save
    from connsearch.train.examples import segmented

    found = segmented(trained.network, images.dataset, images.split, count, device=device)
    names, void = images.dataset.class_names, images.dataset.void
    figure = plot_segmentation(found.images, found.truth, found.predicted, names, void=void, title=title)
    save(figure, path)
