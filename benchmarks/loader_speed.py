"""How many images per second reach a training step? From the cache, changed at random, normalised.

    python benchmarks/loader_speed.py              # prints a table, adds a line to results/loader_speed.jsonl
    python benchmarks/loader_speed.py --quick      # an epoch less of each, nothing written
    python benchmarks/loader_speed.py --device cuda

50,000 made-up images of 3 x 32 x 32 are written in the binary format of CIFAR-10, decoded into a cache in a
temporary folder (`decode_s`) and opened again (`open_s`, and what a new process takes with its imports,
`process_s`). What is timed then is a whole epoch of `connsearch.train.batches.Batches`: random order, float32
batches on the device; nothing is computed with them. Before that, batches are compared with numpy. On a
machine with other work, `images_per_cpu_s` (by the time that processors worked) tells more than the clock.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import append, machine

from connsearch.data import Augment, Dataset, load_dataset, registry
from connsearch.train.batches import Batches

TARGET = 20_000
"""Images per second on two cores."""
FILES, PER_FILE = 5, 10_000
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"augment": False},
    "crop + flip": {"augment": True},
    "crop + flip + cutout": {"augment": True, "cutout": 8},
    "crop + flip + mixup": {"augment": True, "mixup": 0.2},
}


def write(folder: Path) -> None:
    """Write CIFAR-10's files with random images."""
    generator = np.random.default_rng(0)
    for name in [*(f"data_batch_{k}.bin" for k in range(1, FILES + 1)), "test_batch.bin"]:
        records = generator.integers(0, 256, (PER_FILE, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(PER_FILE) % 10
        (folder / name).write_bytes(records.tobytes())


def timed(load: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = load()
    return result, time.perf_counter() - start


def batches(data: Dataset, recipe: dict[str, Any], batch_size: int, device: torch.device) -> Batches:
    return Batches(data, batch_size=batch_size, device=device, seeds=(0, 1), **recipe)


def check(data: Dataset) -> None:
    """Stop if batches are not what numpy makes of the same random numbers."""
    source = batches(data, RECIPES["crop + flip"], 64, torch.device("cpu"))
    again = batches(data, RECIPES["crop + flip"], 64, torch.device("cpu"))
    order = torch.randperm(len(data.train), generator=again.order)
    drawn, shift = again._draw(len(data.train)), data.augment.shift
    images, _ = next(source.epoch())
    for index, image in enumerate(images):
        raw = data.train.images[order[index]].numpy()
        framed = np.pad(raw, ((0, 0), (shift, shift), (shift, shift)))
        down, right = drawn.place[index].tolist()
        window = framed[:, down : down + 32, right : right + 32].astype(np.float64)
        window = window[:, :, ::-1] if drawn.flip[index] else window
        expected = (window - np.array(data.mean)[:, None, None]) / np.array(data.std)[:, None, None]
        if not np.allclose(image, expected, atol=1e-5):
            sys.exit(f"image {index} of the first batch is not what it should be")


def epoch_s(source: Batches) -> tuple[float, float]:
    """Return the seconds that an epoch takes, on the clock and of processors; every batch is waited for."""
    start, worked = time.perf_counter(), time.process_time()
    for images, _ in source.epoch():
        assert images.dtype == torch.float32
    if source.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - worked


def measure(data: Dataset, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Return the figures of each recipe, number of threads and size of batch; epochs in turns."""
    cases = []
    for threads, batch_size in itertools.product((1, 2), (64, 512)):
        torch.set_num_threads(threads)
        sources = {name: batches(data, recipe, batch_size, device) for name, recipe in RECIPES.items()}
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        for _ in range(repeats + 1):  # the first one warms up
            for name, source in sources.items():
                seconds[name].append(epoch_s(source))
        for name, found in seconds.items():
            clock, worked = (statistics.median(column) for column in zip(*found[1:], strict=True))
            case = {"recipe": name, "threads": threads, "batch": batch_size, "device": str(device)}
            case["images_per_s"] = round(len(data.train) / clock)
            case["images_per_cpu_s"] = round(len(data.train) / worked)
            cases.append(case)
            print(
                f"{name:22s} {threads} threads, batch {batch_size:3d}: {case['images_per_s']:7,d} images/s "
                f"(target {TARGET:,d}), {case['images_per_cpu_s']:7,d} per second of processors",
                flush=True,
            )
    return cases


def process_s(path: Path) -> float:
    """Return what a new process takes from its start to an open data set."""
    code = f"from connsearch.data import load_dataset; load_dataset({str(path)!r})"
    return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))[1]


def main() -> None:
    """Measure, print, and append one line to the results."""
    parser = argparse.ArgumentParser(description="Time the way from the cache to the training step.")
    parser.add_argument("--quick", action="store_true", help="one epoch of each; writes nothing")
    parser.add_argument("--device", default="cpu", help="where batches are wanted")
    options = parser.parse_args()
    result = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cifar"
        folder.mkdir()
        os.environ["CONNSEARCH_CACHE"] = str(Path(name) / "cache")
        write(folder)
        _, decode_s = timed(lambda: load_dataset(str(folder)))
        registry._load.cache_clear()
        data, open_s = timed(lambda: load_dataset(str(folder)))
        assert data.augment == Augment(flip=True, shift=4)
        check(data)
        seconds = {"decode_s": round(decode_s, 2), "open_s": round(open_s, 2)}
        seconds["process_s"] = round(process_s(folder), 2)
        print(f"{result['cpu']}, load {result['load']}; {data}; {seconds}", flush=True)
        cases = measure(data, torch.device(options.device), repeats=1 if options.quick else 3)
    if not options.quick:
        append("loader_speed", {**result, "torch": torch.__version__, **seconds, "cases": cases})


if __name__ == "__main__":
    main()
