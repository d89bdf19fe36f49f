"""The figure of ``validate``: what is handed to matplotlib, not pixels."""

import pytest

from sim.report.validation_plot import SUSPECTS, figure_of

POINTS = [
    {"file": "a.csv", "measured": 1.0, "simulated": 1.1, "hidden": 4096.0, "micro_batch": 1.0, "gpus": 8.0, "tp": 2.0},
    {"file": "b.csv", "measured": 2.0, "simulated": 1.0, "hidden": 8192.0, "micro_batch": 4.0, "gpus": 64.0, "pp": 4.0},
]


def test_a_scatter_and_a_panel_for_each_suspect():
    axes = figure_of(POINTS).axes
    assert [ax.get_xlabel() for ax in axes[1:]] == list(SUSPECTS.values())
    marked = {line.get_label(): line.get_xydata().tolist() for line in axes[0].get_lines()}
    assert marked["a.csv"] == [[1.0, 1.1]]
    assert marked["b.csv"] == [[2.0, 1.0]]
    hidden = [line.get_xydata().tolist() for line in axes[1].get_lines() if len(line.get_xydata()) == 1]
    assert hidden == [[[4096.0, pytest.approx(0.1)]], [[8192.0, pytest.approx(-0.5)]]]


def test_rows_that_do_not_say_a_suspect_are_not_in_its_panel():
    axes = dict(zip(SUSPECTS, figure_of(POINTS).axes[1:], strict=True))
    drawn = [line.get_xydata().tolist() for line in axes["tp"].get_lines() if len(line.get_xydata()) == 1]
    assert drawn == [[[2.0, pytest.approx(0.1)]]]


def test_nothing_to_draw_is_drawn():
    assert len(figure_of([]).axes) == 1 + len(SUSPECTS)
