"""What figures hand to matplotlib is what was put in; each takes an ax and returns it, each names its units."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from sim.analysis.result import TransferUse
from sim.analysis.roofline import KernelPoint, Roofline
from sim.cli.figures import Kind
from sim.report import breakdown_plot, grid_plot, peak_plot, roofline_plot, scaling_plot, volume_plot
from sim.report.plots import PLOTS
from sim.report.theme import CATEGORIES
from sim.study.knobs import read
from sim.study.several import several
from tests import report_fixture as made


def _ax():
    return Figure(layout="constrained").subplots()


def _point(name, **more):
    fields = {
        "kind": "gemm", "category": "forward", "flops": 1e12, "size": 1e9, "seconds": 0.01, "runs": 2, "kernels": 1,
        "share": 0.5, **more,
    }  # fmt: skip
    return KernelPoint(name=name, **fields)


def _transfer(category, size, count=1.0):
    return TransferUse(
        category=category, bytes=size, most=size, count=count, busy=1.0, exposed=0.0, alone=1e9, achieved=1e9,
        bound_by="link",
    )  # fmt: skip


def test_the_command_offers_the_table():
    assert [kind.value for kind in Kind] == list(PLOTS)


def test_breakdown_bars_are_the_seconds_of_each_step():
    first, second = made.result(), replace(made.result(), breakdown={"dp": 2.0, "forward": 4.0}, step_time=6.0)
    ax = _ax()
    assert breakdown_plot.draw(ax, [("a", first), ("b", second)]) is ax
    drawn = {(bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width()) for bar in ax.patches}
    assert {(1.0, 0.0, 4.0), (1.0, 4.0, 2.0)} <= drawn
    assert sum(width for row, _, width in drawn if row == 0.0) == pytest.approx(12.0)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    order = [words_ for _, words_ in CATEGORIES.values()]
    assert words == sorted(words, key=order.index)
    assert ax.get_xlabel().endswith("(s)")


def test_shares_of_breakdowns_all_end_at_one():
    ax = breakdown_plot.draw(_ax(), [("a", made.result())], shares=True)
    assert max(bar.get_x() + bar.get_width() for bar in ax.patches) == pytest.approx(1.0)


def test_peaks_are_bars_of_owners_with_what_there_is():
    full = made.memory(capacity=24e9)
    ax = _ax()
    assert peak_plot.draw(ax, [("a", made.memory()), ("b", full)]) is ax
    bars = {part.get_label(): [bar.get_width() for bar in part] for part in ax.containers}
    assert bars["parameters"] == [20.0, 20.0]
    assert sum(widths[0] for widths in bars.values()) == pytest.approx(29.1)
    assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata())] == [32.0, 24.0]
    assert [text.get_text() for text in ax.texts] == ["29.1 GB", "29.1 GB: more than 24.0 GB"]
    assert ax.get_xlabel().endswith("(GB)")


def test_the_roofline_has_every_kernel_where_it_belongs():
    busy = _point("mlp.up")
    norm = _point("norm", kind="elementwise", flops=0.0, category="backward")
    run = _point("several", kernels=9)
    roofline = Roofline(
        scenario="s", rank="rank 0", device="d", bandwidth=2e12, peaks={"bf16": 3e14, "fp8": 6e14},
        kernels=(busy, norm, run),
    )  # fmt: skip
    ax = _ax()
    assert roofline_plot.draw(ax, roofline) is ax
    points = np.concatenate([one.get_offsets() for one in ax.collections if len(one.get_offsets())])
    assert len(points) == 3
    assert [1e3, 1e14] in points.tolist()
    (strip,) = [point for point in points.tolist() if point[1] != 1e14]
    assert strip[1] / (strip[0] * 2e12) == pytest.approx(norm.bytes_per_s / 2e12)
    low, high = ax.get_xlim()
    assert low < strip[0] < 1e3 < high
    words = [text.get_text() for text in ax.texts]
    assert any("fp8: 600 TFLOP/s" in one for one in words)
    assert any("mlp.up, 50%" in one for one in words)


def test_volume_has_a_dot_for_each_kind_of_transfer():
    one = made.result(transfers=(_transfer("dp", 6e9, 49.0), _transfer("tp", 7e10)), scenario="one")
    two = made.result(transfers=(_transfer("h2d", 3e6), _transfer("pp", 0.0)), scenario="two")
    ax = _ax()
    assert volume_plot.draw(ax, [("one", one), ("two", two)]) is ax
    dots = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert dots == [7e10, 6e9, 3e6]
    words = [text.get_text() for text in ax.texts]
    assert "6.00 GB, 49 x" in words
    assert "70.0 GB, once" in words


def test_a_step_that_sends_nothing_says_so():
    ax = volume_plot.draw(_ax(), [("alone", made.result(transfers=()))])
    assert [text.get_text() for text in ax.texts] == ["nothing is sent"]


def test_scaling_curves_are_rates_for_each_gpu():
    rates = {4: 90.0, 1: 100.0}
    results = [replace(made.result(), ranks=n, tokens_per_s_per_gpu=rate, fits=n > 1) for n, rate in rates.items()]
    ax = _ax()
    assert scaling_plot.draw(ax, {"weak": results}) is ax
    curve = ax.lines[0]
    assert list(curve.get_xdata()) == [1, 4]
    assert list(curve.get_ydata()) == [100.0, 90.0]
    assert [text.get_text() for text in ax.texts] == ["90%"]
    hollow = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "o" and line.get_mfc() == "white"]
    assert hollow == [[1], []], "the point that does not fit, and the legend's"


def test_the_grid_has_a_box_for_each_action():
    """Forward, backward with recompute, and no box for an optimizer that is on the CPU."""
    boxes = grid_plot.boxes(made.timeline(), 0)
    assert boxes.kind == ("F", "B")
    assert list(boxes.start) == pytest.approx([0.0, 3.0])
    assert list(boxes.end) == pytest.approx([3.0, 9.0])


@pytest.fixture(scope="module")
def deep():
    """64 stages, a layer each, four microbatches."""
    sets = ["layout={pp: 64, dp: 1}", "model.layers=64", "batch.size=null", "batch.accumulation=4"]
    return several(["lecture-64-pp"], sets)


def test_a_grid_of_64_stages_is_legible(deep):
    figure = PLOTS["pipeline"].make(deep)
    ax = figure.axes[0]
    figure.draw_without_rendering()
    assert len(ax.get_yticklabels()) == grid_plot.MOST_NAMES
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    boxes.sort(key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes)), "names do not overlap"
    row = abs(ax.transData.transform((0, 1))[1] - ax.transData.transform((0, 0))[1]) * 150 / figure.dpi
    assert row >= 6, "a row is some pixels high"
    forward = [grid_plot.boxes(deep[0].step.timeline, row).start[0] for row in range(64)]
    assert forward == sorted(forward), "each stage begins after the one before it"


@pytest.mark.parametrize("kind", list(PLOTS))
def test_every_figure_has_units_and_the_same_bytes_again(kind, deep, tmp_path):
    from sim.report.figure import save

    sets, knobs = ["layout.dp=8"], read(["batch.micro=1,2"]) if PLOTS[kind].several else []
    steps = deep if kind == "pipeline" else several(["lecture-64-dp"], [*sets, "batch.size=16"], knobs)
    made_ = [PLOTS[kind].make(steps) for _ in range(2)]
    ax = made_[0].axes[0]
    assert ax.get_ylabel() or len(ax.get_yticklabels()) > 0
    assert made_[0].axes[-1].get_xlabel().endswith((")", "GPUs", "exchanges"))
    for number, figure in enumerate(made_):
        save(figure, tmp_path / f"{number}.svg", "svg")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()


def test_a_figure_of_one_step_refuses_several():
    from typer.testing import CliRunner

    from sim.cli import app

    said = CliRunner().invoke(app, ["plot", "memory", "quickstart", "lecture-64-dp"]).exception
    assert "shows one step" in str(said)
    assert "breakdown, peak, volume, scaling" in str(said)
