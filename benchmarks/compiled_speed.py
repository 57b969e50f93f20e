"""How fast is a training step of a compiled network? Against other ways to run it, interleaved.

    python benchmarks/compiled_speed.py                 # prints tables, appends lines to the results
    python benchmarks/compiled_speed.py delugenet-146 --repeats 3 --threads 1
    python benchmarks/compiled_speed.py --ways stacked definition torch.compile fused

Pipelines are verified first. `torch.compile` takes minutes for each network: it is run where it is asked for.
"""

from __future__ import annotations

import argparse

import torch
from record import append, machine

from connsearch.ir import bytes_moved, least_saved, lower, optimize, saved_elements
from connsearch.ir.pipelines import PIPELINES
from connsearch.nn.bench import bench_network, bench_table
from connsearch.spec.presets import preset

NETWORKS = ("delugenet-146", "densenet-bc-100-12", "log-densenet-v1-12-24", "sparsenet-40-24")


def modelled(name: str, way: str, batch: int) -> dict[str, int]:
    """Return the bytes that a pipeline's program moves and keeps, and the least to keep, in float32."""
    if way not in PIPELINES:
        return {}
    program = optimize(lower(preset(name)), way)
    return {
        "bytes_moved": bytes_moved(program, batch=batch),
        "saved_bytes": 4 * batch * saved_elements(program),
        "least_saved_bytes": 4 * batch * least_saved(program),
    }


def main() -> None:
    """Measure, print, and append a line for each network and way."""
    parser = argparse.ArgumentParser(description="Time training steps of compiled networks.")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--ways", nargs="+", default=["definition", "default", "fused"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--channels-last", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    settings = {
        "batch": asked.batch, "device": asked.device, "dtype": asked.dtype,
        "channels_last": asked.channels_last, "repeats": asked.repeats,
    }  # fmt: skip
    for name in asked.networks:
        found = bench_network(preset(name), asked.ways, **settings)
        print(f"{name}, {asked.threads} threads, {settings}\n{bench_table(found)}\n", flush=True)
        for measured in found:
            figures = {**measured._asdict(), **modelled(name, measured.way, asked.batch)}
            where = {**machine(), "torch": torch.__version__, "threads": asked.threads}
            append("compiled_speed", {**where, "network": name, **settings, **figures})


if __name__ == "__main__":
    main()
