"""How fast is a compiled network? Against other ways to run it, in training and evaluation, interleaved.

    python benchmarks/compiled_speed.py                 # prints tables, appends lines to the results
    python benchmarks/compiled_speed.py delugenet-146 --repeats 3 --threads 1
    python benchmarks/compiled_speed.py --ways stacked definition torch.compile fused
    python benchmarks/compiled_speed.py --device cuda --dtype bfloat16 --channels-last --batch 256 \\
        --ways definition stacked torch.compile "torch.compile max-autotune" fused "cuda graph"

What this package compiles is verified first, in the dtype and memory format that is timed. `torch.compile`
takes minutes for each network and mode: it is run where it is asked for.
"""

from __future__ import annotations

import argparse

import torch
from record import append, machine

from connsearch.nn.bench import MODES, bench_network, bench_table
from connsearch.spec.presets import preset

NETWORKS = ("delugenet-146", "densenet-bc-100-12", "log-densenet-v1-12-24", "sparsenet-40-24")


def main() -> None:
    """Measure, print, and append a line for each network, way and mode."""
    parser = argparse.ArgumentParser(description="Time steps of compiled networks.")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--ways", nargs="+", default=["definition", "default", "fused"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["train"])
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
    fixed = {"torch": torch.__version__, "threads": asked.threads}
    if asked.device.startswith("cuda"):
        fixed["gpu"] = torch.cuda.get_device_name(asked.device)
    for name in asked.networks:
        found = bench_network(preset(name), asked.ways, modes=asked.modes, **settings)
        print(f"{name}, {asked.threads} threads, {settings}\n{bench_table(found)}\n", flush=True)
        where = {**machine(), **fixed}
        for measured in found:
            append("compiled_speed", {**where, "network": name, **settings, **measured._asdict()})


if __name__ == "__main__":
    main()
