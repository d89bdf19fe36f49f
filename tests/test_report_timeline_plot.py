"""Bars handed to matplotlib: where the spans are, in proportion, never on top of each other."""

from itertools import pairwise
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sim.report import timeline_plot
from sim.report.theme import CATEGORIES, colour
from tests import report_fixture as made

WHOLE = (0.0, made.STEP)


def _ax():
    return Figure(figsize=(12, 6), dpi=150).subplots()


def _boxes(ax):
    """Category colour -> (left, right, bottom) of every rectangle that matplotlib was given."""
    found = {}
    for bars in ax.collections:
        corners = [path.vertices for path in bars.get_paths()]
        found[bars.get_label()] = [(c[:, 0].min(), c[:, 0].max(), c[:, 1].min()) for c in corners]
    return found


def test_the_fixture_has_what_it_promises():
    timeline = made.timeline()
    assert len(timeline.spans.op) == 3000
    assert len({timeline.ops[o].stream for o in timeline.spans.op}) == 5


def test_solid_work_is_one_rectangle_and_separate_copies_stay_separate():
    boxes = _boxes(timeline_plot.draw(_ax(), made.timeline()))
    assert boxes["forward"] == [pytest.approx((0.0, 3.0, 4 - 0.38))]
    assert boxes["CPU optimizer"] == [pytest.approx((9.0, 11.0, -0.38))]
    assert len(boxes["GPU to host"]) == 98
    assert sum(right - left for left, right, _ in boxes["GPU to host"]) == pytest.approx(5.9 * 0.25)


def test_one_collection_for_each_category_that_occurs_in_its_colour():
    ax = timeline_plot.draw(_ax(), made.timeline())
    drawn = {bars.get_label(): tuple(bars.get_facecolor()[0]) for bars in ax.collections}
    present = {row.category for row in made.OPS}
    assert set(drawn) == {CATEGORIES[c][1] for c in present}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        label for category, (_, label) in CATEGORIES.items() if category in present
    ]
    blue = tuple(int(colour("forward")[i : i + 2], 16) / 255 for i in (1, 3, 5))
    assert drawn["forward"][:3] == pytest.approx(blue)


def test_lanes_are_streams_in_their_order_with_the_first_on_top():
    ax = timeline_plot.draw(_ax(), made.timeline())
    labels = {tick.get_text(): at for tick, at in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)}
    order = ["GPU compute", "gradient collectives", "host to GPU", "GPU to host", "CPU"]
    assert sorted(labels, key=lambda name: -labels[name]) == order


def test_categories_that_take_turns_within_a_pixel_share_the_lane():
    """1,400 turns of 4.3 ms on a step of 12 s: under half a cell each. Both have 3 s, and neither hides the other."""
    bars = timeline_plot.lane_bars(made.timeline(), 0, WHOLE)
    cell = made.STEP / timeline_plot.MOST_BARS
    for category in ("recompute", "backward"):
        start, end = bars[("compute", category)]
        assert (end - start).sum() == pytest.approx(3.0, abs=3 * cell)
    lane = sorted(
        zip(*map(np.concatenate, zip(*(bars[k] for k in bars if k[0] == "compute"), strict=True)), strict=True)
    )
    assert all(after[0] >= before[1] - 1e-9 for before, after in pairwise(lane))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(1e-4, 1.0), st.floats(0.0, 0.5)), min_size=1, max_size=80),
    st.integers(1, 60),
)
def test_whatever_the_spans_bars_do_not_overlap_and_areas_are_right(shape, times):
    """For ``times`` repeats of any pattern of (category, length, gap)."""
    rows, clock = [], 0.0
    for category, length, gap in shape * times:
        rows.append((category, 0, clock, clock + length))
        clock += length + gap
    timeline = made.timeline(rows, makespan=clock)
    bars = timeline_plot.lane_bars(timeline, 0, (0.0, clock))
    lane = sorted(zip(*map(np.concatenate, zip(*bars.values(), strict=True)), strict=True))
    assert all(after[0] >= before[1] - 1e-9 * clock for before, after in pairwise(lane))
    assert len(lane) <= timeline_plot.MOST_BARS
    for category in sorted({row[0] for row in rows}):
        spent = sum(end - start for kind, _, start, end in rows if kind == category)
        start, end = bars.get(("compute", made.OPS[category].category), (np.zeros(0), np.zeros(0)))
        closed = sum(row[0] == category for row in rows) * clock / timeline_plot.PIXELS
        assert (end - start).sum() <= spent + closed + 3 * clock / timeline_plot.MOST_BARS
        assert (end - start).sum() >= spent - 3 * clock / timeline_plot.MOST_BARS


def test_a_window_shows_only_what_is_in_it():
    ax = timeline_plot.draw(_ax(), made.timeline(), window=(9.5, 12.0))
    assert set(_boxes(ax)) == {"CPU optimizer", "host to GPU"}
    assert ax.get_xlim() == (9.5, 12.0)


def test_a_lane_too_dense_for_its_window_is_shared_within_the_window():
    """From 6 to 9 s, in turns of a fortieth of a cell, everything backward until 7.5 s and recompute from there."""
    turns = np.linspace(0.0, 9.0, 120_001)
    kinds = np.where(turns[:-1] < 7.5, 2, 1)
    kinds[::2] = 0  # forward has every other turn
    rows = list(zip(kinds.tolist(), [0] * 120_000, turns[:-1].tolist(), turns[1:].tolist(), strict=True))
    bars = timeline_plot.lane_bars(made.timeline(rows), 0, (6.0, 9.0))
    cell = 3.0 / timeline_plot.MOST_BARS
    length = {category: (end - start).sum() for (_, category), (start, end) in bars.items()}
    assert length == pytest.approx({"forward": 1.5, "backward": 0.75, "recompute": 0.75}, abs=3 * cell)
    assert sum(len(start) for start, _ in bars.values()) > timeline_plot.MOST_BARS / 2, "cells are of the window's size"
    assert bars[("compute", "recompute")][0].min() == pytest.approx(7.5, abs=2 * cell)


def _marks(ax):
    """Brackets as (left, right) and their words."""
    return [(line.get_xdata()[0], line.get_xdata()[-1]) for line in ax.lines], [text.get_text() for text in ax.texts]


def test_phases_are_bracketed_where_their_actions_are():
    lines, words = _marks(timeline_plot.draw(_ax(), made.timeline()))
    assert sorted(lines) == [pytest.approx(pair, abs=0.02) for pair in [(0.0, 3.0), (3.0, 9.0), (9.0, 12.0)]]
    assert set(words) == {"forward", "backward", "optimizer"}


def test_many_microbatches_get_one_bracket_and_the_optimizer_its_own():
    rows = [(made.NUMBER["mlp.up" if i % 2 == 0 else "mlp.up.grad"], i, float(i), i + 1.0) for i in range(40)]
    rows.append((made.NUMBER["adam"], 40, 40.0, 50.0))
    lines, words = _marks(timeline_plot.draw(_ax(), made.timeline(rows, makespan=50.0)))
    assert sorted(lines) == [pytest.approx((0.0, 40.0), abs=0.1), pytest.approx((40.0, 50.0), abs=0.1)]
    assert words == ["forward and backward, in turn", "optimizer"]


@pytest.mark.parametrize(("end", "unit", "tick"), [(12.0, "s", "2"), (0.3, "ms", "200"), (3e-4, "µs", "200")])
def test_the_unit_of_time_suits_the_step(end, unit, tick):
    ax = _ax()
    ax.set_xlim(0, end)
    assert timeline_plot.label_time(ax, (0.0, end)) == unit
    at = float(tick) * {"s": 1.0, "ms": 1e-3, "µs": 1e-6}[unit]
    assert ax.xaxis.get_major_formatter()(at, 0) == tick
    assert ax.get_xlabel() == f"time in the step ({unit})"


def test_ten_thousand_spans_are_few_artists_and_quick():
    """Half a second is asked; it takes about a tenth."""
    turns = np.linspace(0.0, 12.0, 10_001)
    timeline = made.timeline([(1 + i % 2, 0, turns[i], turns[i + 1]) for i in range(10_000)])
    ax = _ax()
    began = process_time()
    timeline_plot.draw(ax, timeline)
    FigureCanvasAgg(ax.figure).draw()
    assert process_time() - began < 2.0
    assert len(ax.collections) == 2
    assert sum(len(bars.get_paths()) for bars in ax.collections) <= timeline_plot.MOST_BARS


def test_a_rank_class_without_spans_is_an_empty_picture():
    ax = timeline_plot.draw(_ax(), made.timeline(), rank_class=1)
    assert not ax.collections
    assert not ax.get_yticklabels()
