"""The page: panels on one axis of time, the result's own figures, and matplotlib left as it was found."""

import subprocess
import sys
from itertools import pairwise

import pytest

from sim.report import figure
from sim.report.files import write_all
from tests import report_fixture as made


def test_panels_share_the_axis_of_time_and_name_their_units():
    drawn = figure.step_figure(made.timeline(), made.result())
    lanes, gpu, host, breakdown = drawn.axes
    assert all(ax.get_xlim() == (0.0, made.STEP) for ax in drawn.axes)
    assert lanes.get_shared_x_axes().joined(lanes, gpu)
    assert lanes.get_shared_x_axes().joined(lanes, host)
    assert lanes.get_xlabel() == ""
    assert host.get_xlabel() == "time in the step (s), rank 0"
    assert breakdown.get_xlabel().endswith("(s)")
    assert "(GB)" in gpu.get_ylabel()
    assert "host" in host.get_ylabel()


def test_the_layout_is_done_once_and_rounded():
    """The solver's last digits differ from run to run, and an SVG hashes them: see ``_freeze``."""
    drawn = figure.step_figure(made.timeline(), made.result())
    edges = [edge for ax in drawn.axes for edge in ax.get_position(original=True).bounds]
    assert edges == pytest.approx([round(edge, figure.PLACES) for edge in edges], abs=1e-12)
    drawn.draw_without_rendering()
    assert edges == [edge for ax in drawn.axes for edge in ax.get_position(original=True).bounds]


def test_panels_do_not_touch_each_other():
    drawn = figure.step_figure(made.timeline(), made.result())
    boxes = [ax.get_position() for ax in drawn.axes]
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))


def test_without_host_memory_there_is_no_panel_for_it():
    drawn = figure.step_figure(made.timeline(), made.result(made.memory()))
    assert len(drawn.axes) == 3
    assert drawn.axes[1].get_xlabel() == "time in the step (s), rank 0"


def test_the_breakdown_bar_is_the_breakdown():
    bar = figure.step_figure(made.timeline(), made.result()).axes[-1]
    widths = {part.get_label(): part.patches[0].get_width() for part in bar.containers}
    assert widths == {
        "forward": 3.0, "recompute": 3.0, "backward": 3.0, "host to GPU": 1.0, "CPU optimizer": 2.0,
    }  # fmt: skip
    assert [text.get_text() for text in bar.texts] == ["25%", "25%", "25%", "8%", "17%"]


def test_the_title_is_the_scenario_its_figures_and_what_binds():
    title = figure.step_figure(made.timeline(), made.result()).get_suptitle().splitlines()
    assert title[0] == "made-up"
    for part in ("12.0 s", "1,234.5 tokens/s", "MFU 25.0%", "29.1 GB of 32.0 GB"):
        assert part in title[1]
    assert title[2].startswith("bound by GPU arithmetic")


def test_the_png_is_large_enough_to_read(tmp_path):
    write_all(tmp_path, made.timeline(), made.result())
    header = (tmp_path / "timeline.png").read_bytes()[16:24]
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
    assert width >= 1800
    assert height >= 900


@pytest.mark.parametrize("backend", ["svg", "pdf"])
def test_matplotlib_is_left_as_it_was(backend, tmp_path):
    """In a process of its own, with settings of the user's: after drawing they are the same, pyplot never came."""
    code = f"""
import sys, matplotlib
from pathlib import Path
matplotlib.use({backend!r}); matplotlib.rcParams["font.size"] = 11; matplotlib.rcParams["svg.hashsalt"] = "mine"
before = dict(matplotlib.rcParams)
from tests import report_fixture as made
from sim.report.files import write_all
write_all(Path({str(tmp_path)!r}), made.timeline(), made.result())
print(dict(matplotlib.rcParams) == before, "matplotlib.pyplot" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr
