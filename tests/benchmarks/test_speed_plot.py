"""The picture of speed: what hangs down, what was promised, what everything is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import plot
import pytest
from made_up_speed import kernel_lines, network_lines
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plot import LOOKS, draw_speed
from speed_records import latest

from connsearch.errors import SpecError

KERNELS = [*kernel_lines(), *kernel_lines("weighted sums, normalized", run="b")]
HALF = network_lines(dtype="bfloat16", channels_last=True, run="b", first_s=9.0)
EVALUATED = [
    line
    for batch in (1, 32)
    for threads in (1, 2)
    for line in network_lines("densenet-121", mode="inference", batch=batch, threads=threads, run="c")
]
NETWORKS = [*network_lines(), *HALF, *network_lines("densenet-bc-100-12"), *EVALUATED]


def drawn(kernels: list[dict[str, Any]], networks: list[dict[str, Any]]) -> Figure:
    figure = draw_speed(latest("kernel_speed", kernels), latest("compiled_speed", networks))
    figure.canvas.draw()
    return figure


def ends(axes: Axes, way: str) -> list[float]:
    """Return where the bars of a way end, from left to right."""
    bars = [bar for bar in axes.patches if bar.get_facecolor() == color(way) and bar.get_width() < 0.5]
    return [bar.get_y() + bar.get_height() for bar in sorted(bars, key=lambda bar: bar.get_x())]


def color(way: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgba

    return to_rgba(LOOKS[way].color)


def lines(axes: Axes, *, whiskers: bool) -> list[list[tuple[float, float]]]:
    """Return whiskers, or the ticks of what was promised, from left to right."""
    found = [path.vertices for one in axes.collections for path in one.get_paths() if len(path.vertices) == 2]
    kind = [ends for ends in found if (ends[0][0] == ends[1][0]) == whiskers]
    return sorted([tuple(map(float, end)) for end in ends] for ends in kind)


def test_training_is_drawn_by_way_network_and_format() -> None:
    figure = drawn([], NETWORKS)
    steps, others, memory, _, first, _ = figure.axes[:6]
    assert ends(steps, "stacked") == pytest.approx([8 / 24] * 2)
    assert ends(steps, "fused") == pytest.approx([4.0, 4.0])
    assert ends(steps, "torch.compile") == pytest.approx([2.0, 2.0])
    assert ends(steps, "definition") == []
    assert ends(memory, "fused") == pytest.approx([1.0, 1.0])
    assert ends(first, "definition") == ends(first, "fused") == pytest.approx([3.0, 9.0])
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["float32\nNCHW", "bfloat16\nch. last"]
    assert [one.get_title() for one in (steps, others)] == ["DelugeNet-146", "DenseNet-BC-100-12"]
    assert [one.get_ylabel() for one in (steps, memory, first)] == [
        "times faster than\nthe definition",
        "times less memory\nthan the definition",
        "first step, seconds\n(less is better)",
    ]


def test_what_is_slower_hangs_down_and_says_so() -> None:
    steps = drawn([], NETWORKS).axes[0]
    (first, *_) = [bar for bar in steps.patches if bar.get_facecolor() == color("stacked")]
    assert first.get_y() == 1.0
    assert first.get_height() == pytest.approx(8 / 24 - 1)
    assert {"slower", "0.33", "4.0"} <= {text.get_text() for text in steps.texts}
    assert steps.get_ylim()[0] < 7.2 / 26.4


def test_whiskers_are_as_long_as_quartiles_of_both_ways_say() -> None:
    steps = drawn([], network_lines()).axes[0]
    (low, high) = lines(steps, whiskers=True)[-1]
    assert (low[1], high[1]) == pytest.approx((7.2 / 2.2, 8.8 / 1.8))


def test_ticks_are_where_what_was_promised_begins() -> None:
    steps, dense, _, memory, first, _ = drawn([], NETWORKS).axes[:6]
    assert [tick[0][1] for tick in lines(steps, whiskers=False)] == pytest.approx([2.0, 2.0])
    assert [tick[0][1] for tick in lines(dense, whiskers=False)] == pytest.approx([1.0])
    assert [tick[0][1] for tick in lines(memory, whiskers=False)] == pytest.approx([2.0])
    assert [tick[0][1] for tick in lines(first, whiskers=False)] == pytest.approx([12.0, 12.0])


def test_the_machine_threads_and_batch_are_said() -> None:
    figure = drawn(KERNELS, NETWORKS)
    headings = [part.get_suptitle() for part in figure.subfigs]
    assert headings[1:] == [
        "a   Weighted sums of a block, forward and backward: batch 64, 2 x Made Up, 1 thread",
        "b   Training, forward and backward: batch 64, 2 x Made Up, 1 thread",
        "c   Evaluation without gradients: float32, NCHW, 2 x Made Up",
    ]
    (legend,) = figure.subfigs[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "stacked, the paper's way", "eager PyTorch, the definition", "torch.compile", "ours, default",
        "ours, fused", "quartiles", "promised",
    ]  # fmt: skip


def test_kernels_beside_the_papers_way_and_batch_norms_one_by_one() -> None:
    paper, normalized = drawn(KERNELS, []).axes
    assert ends(paper, "eager") == pytest.approx([3.5])
    assert ends(paper, "ours") == pytest.approx([7.0])
    assert ends(normalized, "ours") == pytest.approx([2.0])
    assert ends(normalized, "eager") == []
    ticks = [lines(one, whiskers=False)[0][0][1] for one in (paper, normalized)]
    assert ticks == pytest.approx([6.0, 4.0])
    assert (
        paper.get_title()
        == "paper's form, 16 layers,\n128 \N{MULTIPLICATION SIGN} 16 \N{MULTIPLICATION SIGN} 16"
    )


def test_layers_that_follow_each_other_are_a_picture_of_their_own() -> None:
    figure = drawn([*KERNELS, *kernel_lines("weighted sums, chained", run="c")], [])
    *_, chained = figure.axes
    assert figure.subfigs[2].get_suptitle().startswith("b   Weighted sums of layers that follow each other, ")
    assert figure.subfigs[2].axes == [chained]
    assert (ends(chained, "ours"), lines(chained, whiskers=False)) == (pytest.approx([7.0]), [])


def test_kernels_that_are_no_sums_are_not_drawn() -> None:
    figure = drawn([*KERNELS, *kernel_lines("norm and ReLU", time="2026-11-23T00:00:00", run="z")], [])
    assert len(figure.axes) == 2
    no_paper = [line for line in KERNELS if line["way"] != "stacked"]
    assert len(drawn(no_paper, []).axes) == 1


def test_evaluation_by_batch_and_threads() -> None:
    (evaluated,) = drawn([], EVALUATED).axes
    assert ends(evaluated, "fused") == pytest.approx([4.0] * 4)
    assert [tick.get_text() for tick in evaluated.get_xticklabels()] == [
        "batch 1\n1 thread", "batch 1\n2 threads", "batch 32\n1 thread", "batch 32\n2 threads",
    ]  # fmt: skip
    assert [tick[0][1] for tick in lines(evaluated, whiskers=False)] == pytest.approx([2.0] * 4)


def test_what_ran_with_freed_memory_kept_is_not_drawn() -> None:
    kept = {"malloc": "keeps", "time": "2026-11-23T00:00:00", "run": "k"}
    figure = drawn([*KERNELS, *kernel_lines(**kept)], [*NETWORKS, *network_lines(**kept)])
    assert figure.subfigs[1].get_suptitle().endswith("2 x Made Up, 1 thread")
    assert figure.axes[0].get_title().startswith("paper's form, 16 layers,")
    with pytest.raises(SpecError, match="nothing to draw"):
        drawn(kernel_lines(**kept), network_lines(**kept))


def test_one_setting_is_drawn_that_of_the_latest_run() -> None:
    later = network_lines(threads=2, time="2026-11-23T00:00:00", run="z")
    figure = drawn([], [*later, *NETWORKS[:10]])
    assert figure.subfigs[1].get_suptitle().endswith("2 x Made Up, 2 threads")
    assert len(ends(figure.axes[0], "fused")) == 1


def test_numbers_do_not_hide_ticks() -> None:
    missed = network_lines(mode="inference")
    missed[-1] |= {"step_s": 4.5, "low_s": 4.4, "high_s": 4.6}
    (number,) = drawn([], missed).axes[0].texts
    assert (number.get_text(), number.get_color(), number.get_va()) == ("1.8", "white", "top")
    missed[-1] |= {"step_s": 7.0, "low_s": 6.9, "high_s": 7.1}
    (number,) = drawn([], missed).axes[0].texts
    assert (number.get_text(), number.get_va(), number.xy[1]) == ("1.1", "bottom", 2.0)


def test_numbers_stay_in_their_panels() -> None:
    for axes in drawn(KERNELS, NETWORKS).axes:
        panel = axes.get_window_extent()
        for number in axes.texts:
            found = number.get_window_extent()
            assert panel.y0 <= found.y0 < found.y1 <= panel.y1, number.get_text()


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(SpecError, match="nothing to draw: no run of five repeats or more on a CPU"):
        draw_speed([], latest("compiled_speed", network_lines(gpu="A GPU", device="cuda")))


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = latest("kernel_speed", KERNELS), latest("compiled_speed", NETWORKS)
    monkeypatch.setattr(plot, "latest_runs", lambda: found)
    files = [tmp_path / f"speed.{suffix}" for suffix in ("png", "svg", "pdf")]
    monkeypatch.setattr(sys, "argv", ["plot.py", *map(str, files)])
    plot.main()
    assert capsys.readouterr().out == "".join(f"wrote {file}\n" for file in files)
    assert all(file.stat().st_size > 10_000 for file in files)
    monkeypatch.setattr(sys, "argv", ["plot.py"])
    with pytest.raises(SystemExit, match="2"):
        plot.main()
    assert "the following arguments are required: FILE" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["plot.py", "speed.txt"])
    with pytest.raises(SystemExit, match=r"^Error: speed.txt: cannot draw to a file ending in '.txt'"):
        plot.main()
