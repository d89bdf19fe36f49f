"""The figure of ``validate``: what is handed to matplotlib, not pixels."""

import pytest

from sim.report.validation_plot import EDGE, FEWEST, SUSPECTS, figure_of

POINTS = [
    {"file": "a.csv", "measured": 1.0, "simulated": 1.1, "hidden": 4096.0, "micro_batch": 1.0, "gpus": 8.0, "tp": 2.0},
    {"file": "b.csv", "measured": 2.0, "simulated": 1.0, "hidden": 8192.0, "micro_batch": 4.0, "gpus": 64.0, "pp": 4.0},
]


def axes_of(points):
    """The panels: errors by table, the scatter, then the suspects by key."""
    tables, scatter, *rest = figure_of(points).axes
    return tables, scatter, dict(zip(SUSPECTS, rest, strict=True))


def dots(ax):
    """What is drawn as single points, not as lines of a box."""
    return [line.get_xydata().tolist() for line in ax.get_lines() if line.get_label().endswith(".csv")]


def test_a_scatter_and_a_panel_for_each_suspect():
    tables, scatter, panels = axes_of(POINTS)
    assert {key: ax.get_xlabel() for key, ax in panels.items()} == SUSPECTS
    assert dots(scatter) == [[[1.0, 1.1]], [[2.0, 1.0]]]
    assert dots(panels["hidden"]) == [[[4096.0, pytest.approx(0.1)]], [[8192.0, pytest.approx(-0.5)]]]
    assert dots(tables) == [[[pytest.approx(0.1), 0.0]], [[pytest.approx(-0.5), 1.0]]]
    assert [label.get_text() for label in tables.get_yticklabels()] == ["a", "b"]


def test_rows_that_do_not_say_a_suspect_are_not_in_its_panel():
    assert dots(axes_of(POINTS)[2]["tp"]) == [[[2.0, pytest.approx(0.1)]]]


def test_what_is_far_off_is_drawn_at_the_edge():
    far = [{**POINTS[0], "simulated": 9.0}, {**POINTS[0], "simulated": 0.1}]
    tables, scatter, panels = axes_of(far)
    assert [point[0][1] for point in dots(panels["gpus"])] == [EDGE, -EDGE]
    assert [point[0][0] for point in dots(tables)] == [EDGE, -EDGE]
    assert [line.get_marker() for line in panels["gpus"].get_lines() if line.get_label() == "a.csv"] == ["^", "v"]
    assert dots(scatter) == [[[1.0, 9.0], [1.0, 0.1]]]  # as it is


def test_many_points_at_one_value_are_spread_and_boxed():
    many = [{**POINTS[0], "simulated": 1 + i / 100} for i in range(FEWEST)]
    panel = axes_of(many)[2]["tp"]
    (drawn,) = dots(panel)
    assert len({x for x, _ in drawn}) == FEWEST
    assert all(2 / 1.2 < x < 2 * 1.2 for x, _ in drawn)
    assert [y for _, y in drawn] == pytest.approx([i / 100 for i in range(FEWEST)])
    assert len(panel.get_lines()) > len(axes_of(many[1:])[2]["tp"].get_lines())


def test_nothing_to_draw_is_drawn():
    assert len(figure_of([]).axes) == 2 + len(SUSPECTS)
