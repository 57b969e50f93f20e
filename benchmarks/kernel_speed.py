"""How fast are the compiled kernels of the CPU? Against PyTorch, forward and backward, interleaved.

    python benchmarks/kernel_speed.py            # prints a table, appends a line for each case to results
    python benchmarks/kernel_speed.py --quick    # a few repeats of smaller maps, nothing written
    python benchmarks/kernel_speed.py --only block --threads 1 --repeats 5
    python benchmarks/kernel_speed.py --only "block (64,128,16,16) fp32 NCHW" --threads 1 --compile

Layer j of a block reads the sources 0..j. What is timed is the aggregations alone: all layers' sums, then
from their gradients those of all sources and parameters. Nothing is timed whose outcome is not right.
`--compile` times blocks in a third way, a loop over the sources under `torch.compile`, which takes minutes.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from record import append, machine
from torch import Tensor, nn
from torch.nn import functional

from connsearch import kernels
from connsearch.kernels.build import why_not

EPS = 1e-5

Step = Callable[[], Sequence[Tensor]]  # returns what both contenders must agree on


@dataclass(frozen=True)
class Case:
    """Two ways to the same tensors.

    Attributes:
        name: Of what is computed.
        theirs: What PyTorch does.
        ours: What the kernels do.
        target: How many times faster ours must be; None: no promise.
        compiled: The same as a loop over the sources under `torch.compile`.
    """

    name: str
    theirs: Step
    ours: Step
    target: float | None
    compiled: Step | None = None

    def ways(self, *, compiled: bool) -> dict[str, Step]:
        """Return what is timed, by name."""
        found = {"torch": self.theirs, "ours": self.ours}
        return found | ({"compiled": self.compiled} if compiled and self.compiled is not None else {})


def maps(n: int, shape: Sequence[int], dtype: torch.dtype, last: bool) -> list[Tensor]:
    """Return n random maps."""
    form = torch.channels_last if last else torch.contiguous_format
    return [torch.randn(*shape).to(dtype, memory_format=form) for _ in range(n)]


def paper_block(shape: Sequence[int], n: int, dtype: torch.dtype, last: bool) -> Case:
    """All depthwise aggregations of a block of n layers: interleaved channels and a grouped convolution."""
    B, C, H, W = shape
    sources, grads = maps(n, shape, dtype, last), maps(n, shape, dtype, last)
    weights = [torch.randn(j + 1, 1, C) / (j + 1) ** 0.5 for j in range(n)]
    leaves = [h.detach().requires_grad_() for h in sources]
    params = [w[:, 0].t().reshape(C, -1, 1, 1).to(dtype).contiguous().requires_grad_() for w in weights]

    def theirs() -> list[Tensor]:
        sums = []
        for j in range(n):
            stacked = torch.stack(leaves[: j + 1], dim=2).reshape(B, -1, H, W)
            sums.append(functional.conv2d(stacked, params[j], groups=C))
        found = torch.autograd.grad(sums, [*leaves, *params], grads)
        by_layer = [g.reshape(C, -1).t().float() for g in found[n:]]
        return [sums[-1].detach(), *found[:n], torch.cat(by_layer)]

    def ours() -> list[Tensor]:
        sums = [kernels.weighted_sum(sources[: j + 1], weights[j]) for j in range(n)]
        pulled, dots = [], []
        for i in reversed(range(n)):
            weight = torch.stack([weights[j][i] for j in range(i, n)])
            grad, dot = kernels.pull(grads[i:], weight, sources[i])
            pulled.append(grad)
            dots.append(dot[:, 0])
        dots.reverse()
        by_layer = [dots[i][j - i] for j in range(n) for i in range(j + 1)]
        return [sums[-1], *reversed(pulled), torch.stack(by_layer)]

    @torch.compile
    def loop(*tensors: Tensor) -> list[Tensor]:
        h, w = tensors[:n], tensors[n:]
        sums = []
        for j in range(n):
            total = w[j][0] * h[0]
            for i in range(1, j + 1):
                total = total + w[j][i] * h[i]
            sums.append(total)
        return sums

    factors = [w[:, 0, :, None, None].to(dtype).contiguous().requires_grad_() for w in weights]

    def compiled() -> list[Tensor]:
        sums = loop(*leaves, *factors)
        found = torch.autograd.grad(sums, [*leaves, *factors], grads)
        by_layer = [g[:, :, 0, 0].float() for g in found[n:]]
        return [sums[-1].detach(), *found[:n], torch.cat(by_layer)]

    target = {(128, 16): 6.0, (256, 8): 7.0}.get((C, H)) if dtype == torch.float32 and not last else None
    return Case(f"block {label(shape, dtype, last)} x {n}", theirs, ours, target, compiled)


def normalized_block(shape: Sequence[int], n: int, dtype: torch.dtype, last: bool) -> Case:
    """All aggregations of a block whose sources are normalised for each reader: a norm for each pair."""
    C = shape[1]
    sources, grads = maps(n, shape, dtype, last), maps(n, shape, dtype, last)
    gammas = [torch.randn(j + 1, C) / (j + 1) ** 0.5 for j in range(n)]
    betas = [torch.randn(j + 1, C) for j in range(n)]
    leaves = [h.detach().requires_grad_() for h in sources]
    norms = [[nn.BatchNorm2d(C) for _ in range(j + 1)] for j in range(n)]
    for j, layer in enumerate(norms):
        for i, norm in enumerate(layer):
            norm.weight.data, norm.bias.data = gammas[j][i].clone(), betas[j][i].clone()
    params = [norm.weight for layer in norms for norm in layer] + [
        norm.bias for layer in norms for norm in layer
    ]

    def loop(*h: Tensor) -> list[Tensor]:
        sums = []
        for j in range(n):
            total = norms[j][0](h[0])
            for i in range(1, j + 1):
                total = total + norms[j][i](h[i])
            sums.append(total)
        return sums

    def step(sums: Sequence[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(sums, [*leaves, *params], grads)
        pairs = len(params) // 2
        return [
            sums[-1].detach(),
            *found[:n],
            torch.stack(found[n : n + pairs]),
            torch.stack(found[n + pairs :]),
        ]

    quick_loop = torch.compile(loop)

    def ours() -> list[Tensor]:
        stats = [kernels.batch_stats(h) for h in sources]
        mean = torch.stack([m for m, _ in stats])
        rstd = (torch.stack([v for _, v in stats]) + EPS).rsqrt()
        sums = []
        for j in range(n):
            weight = gammas[j] * rstd[: j + 1]
            bias = (betas[j] - weight * mean[: j + 1]).sum(0)
            sums.append(kernels.weighted_sum(sources[: j + 1], weight[:, None], bias))
        pulled, dots, ones = [], [], []
        for i in reversed(range(n)):
            weight = torch.stack([gammas[j][i] for j in range(i, n)])
            grad, dot, one = kernels.pull_normalized(grads[i:], weight, sources[i], mean[i], rstd[i])
            pulled.append(grad)
            dots.append(dot)
            ones.append(one)
        dots.reverse()
        ones.reverse()
        pairs = [(i, j - i) for j in range(n) for i in range(j + 1)]
        by_layer = [torch.stack([x[i][k] for i, k in pairs]) for x in (dots, ones)]
        return [sums[-1], *reversed(pulled), *by_layer]

    target = 4.0 if dtype == torch.float32 and not last else None
    return Case(
        f"normalized block {label(shape, dtype, last)} x {n}",
        lambda: step(loop(*leaves)),
        ours,
        target,
        lambda: step(quick_loop(*leaves)),
    )


def norm_act(shape: Sequence[int], dtype: torch.dtype, last: bool) -> Case:
    """Batch normalisation and ReLU."""
    C = shape[1]
    (x, grad), norm = maps(2, shape, dtype, last), nn.BatchNorm2d(C)
    norm.weight.data, norm.bias.data = torch.randn(C), torch.randn(C)
    weight, bias = norm.weight.detach(), norm.bias.detach()
    leaf = x.detach().requires_grad_()

    def theirs() -> list[Tensor]:
        y = functional.relu(norm(leaf))
        return [y.detach(), *torch.autograd.grad(y, [leaf, norm.weight, norm.bias], grad)]

    def ours() -> list[Tensor]:
        y, mean, var = kernels.norm_act_train(x, weight, bias, EPS, "relu")
        rstd = (var + EPS).rsqrt()
        return [y, *kernels.norm_act_backward(grad, x, mean, rstd, weight, bias, "relu")]

    return Case(f"norm and ReLU {label(shape, dtype, last)}", theirs, ours, 2.0 if not last else None)


def concat_norm_act(shape: Sequence[int], widths: Sequence[int], dtype: torch.dtype, last: bool) -> Case:
    """Norm and ReLU of a concatenation; ours has the statistics of all sources but the newest already."""
    B, _, H, W = shape
    K = sum(widths)
    sources = [maps(1, (B, width, H, W), dtype, last)[0] for width in widths]
    (grad,), norm = maps(1, (B, K, H, W), dtype, last), nn.BatchNorm2d(K)
    norm.weight.data, norm.bias.data = torch.randn(K), torch.randn(K)
    weight, bias = norm.weight.detach(), norm.bias.detach()
    leaves = [h.detach().requires_grad_() for h in sources]
    old = [kernels.batch_stats(h) for h in sources[:-1]]
    count = B * H * W

    def theirs() -> list[Tensor]:
        y = functional.relu(norm(torch.cat(leaves, dim=1)))
        found = torch.autograd.grad(y, [*leaves, norm.weight, norm.bias], grad)
        return [y.detach(), found[len(widths) - 1], *found[len(widths) :]]

    sinks = [torch.zeros_like(h) for h in sources]

    def ours() -> list[Tensor]:
        stats = [*old, kernels.batch_stats(sources[-1])]
        mean = torch.cat([m for m, _ in stats])
        rstd = (torch.cat([v for _, v in stats]) + EPS).rsqrt()
        scale = weight * rstd
        y = kernels.concat_norm_act(sources, scale, bias - mean * scale, "relu")
        sinks[-1].zero_()
        dots, ones = kernels.concat_norm_act_backward(grad, sources, mean, rstd, weight, bias, "relu", sinks)
        slope = -scale * rstd * dots / count
        shift = -scale * ones / count - slope * mean
        k = K - widths[-1]
        kernels.add_affine(sinks[-1], sources[-1], slope[k:], shift[k:])
        return [y, sinks[-1], dots, ones]

    return Case(
        f"concat, norm and ReLU {label((B, K, H, W), dtype, last)} of {len(widths)}", theirs, ours, None
    )


def label(shape: Sequence[int], dtype: torch.dtype, last: bool) -> str:
    """Return what maps look like, for people."""
    name = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    return f"({','.join(map(str, shape))}) {name} {'channels_last' if last else 'NCHW'}"


def disagree(case: Case, ways: dict[str, Step]) -> str:
    """Return where a way and torch's differ; one value in 100,000 may: ReLU's of what is nearly 0."""
    exact = case.theirs()
    for way, step in ways.items():
        for i, (a, b) in enumerate(zip(exact, step(), strict=True)):
            loose = 0.06 if torch.bfloat16 in (a.dtype, b.dtype) else 1e-3
            differs = (a.double() - b.double()).abs() > loose * max(1.0, float(a.double().abs().max()))
            if differs.double().mean() > 1e-5 or torch.isnan(b).any():
                return f"{case.name}, {way}: outcome {i} differs in {int(differs.sum())} of {differs.numel()}"
    return ""


def seconds(step: Step) -> float:
    """Return the time of one step, without the collector of garbage."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(case: Case, ways: dict[str, Step], threads: int, repeats: int) -> dict[str, Any]:
    """Return median milliseconds of all ways, one after the other in turn, and ratios to ours."""
    torch.set_num_threads(threads)
    gc.collect()
    gc.disable()
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, step in ways.items():
            times[way].append(1000 * seconds(step))
    gc.enable()
    median = {way: statistics.median(found) for way, found in times.items()}
    of_compiler = (
        {"ratio_to_compiled": round(median["compiled"] / median["ours"], 2)} if "compiled" in ways else {}
    )
    return {
        "case": case.name,
        "threads": threads,
        **{f"{way}_ms": round(time, 3) for way, time in median.items()},
        "ours_ms_spread": [round(min(times["ours"]), 3), round(max(times["ours"]), 3)],
        "ratio": round(median["torch"] / median["ours"], 2),
        **of_compiler,
        "target": case.target,
    }


def cases(quick: bool) -> list[Callable[[], Case]]:
    """Return makers of all cases; a case is made when its turn comes, as it may need a gigabyte."""
    n, m = (6, 8) if quick else (16, 24)
    B = 16 if quick else 64
    fp32, bf16 = torch.float32, torch.bfloat16
    growing = [24, *[12] * 15]
    found: list[Callable[[], Case]] = []
    for dtype, last in [(fp32, False), (fp32, True), (bf16, True)]:
        looks = {"dtype": dtype, "last": last}
        found += [
            lambda k=looks: paper_block((B, 128, 16, 16), n, **k),
            lambda k=looks: paper_block((B, 256, 8, 8), m, **k),
            lambda k=looks: normalized_block((B, 128, 16, 16), n, **k),
            lambda k=looks: normalized_block((B, 256, 8, 8), m, **k),
            lambda k=looks: norm_act((B, 128, 16, 16), **k),
            lambda k=looks: norm_act((B, 64, 32, 32), **k),
            lambda k=looks: concat_norm_act((B, 0, 32, 32), growing, **k),
        ]
    return found


def main() -> None:
    """Measure, print, and append a line for each case to the results."""
    parser = argparse.ArgumentParser(description="Time the compiled kernels of the CPU against PyTorch.")
    parser.add_argument("--quick", action="store_true", help="smaller maps, few repeats; writes nothing")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="blocks under torch.compile as well")
    asked = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    torch.manual_seed(0)
    repeats = asked.repeats or (3 if asked.quick else 9)
    for make in cases(asked.quick):
        case = make()
        if asked.only not in case.name:
            continue
        ways = case.ways(compiled=asked.compile)
        torch.set_num_threads(asked.threads[0])
        start = time.perf_counter()
        if wrong := disagree(case, ways):
            print(f"{wrong}: not timed", flush=True)
            continue
        if "compiled" in ways:
            print(f"first steps of all ways: {time.perf_counter() - start:.0f} s", flush=True)
        for threads in asked.threads:
            found = measure(case, ways, threads, repeats)
            target = f"(target {found['target']:g})" if found["target"] else ""
            print(
                f"{found['case']:<58} {threads} threads  {found['torch_ms']:>9.1f} ms -> "
                f"{found['ours_ms']:>8.1f} ms  {found['ratio']:>5.2f} x {target}"
                + (f"; {found['ratio_to_compiled']:.2f} x torch.compile" if "compiled" in ways else ""),
                flush=True,
            )
            if not asked.quick:
                append("kernel_speed", {**machine(), "torch": torch.__version__, **found})


if __name__ == "__main__":
    main()
