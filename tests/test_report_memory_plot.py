"""Areas handed to matplotlib are the owners' bytes over time; peak and capacity are where they are said to be."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from sim.report import memory_plot
from sim.report.theme import OWNERS, owner_colours
from tests import report_fixture as made


def _draw(use, end=made.STEP):
    return memory_plot.draw(Figure().subplots(), use, end)


def _words(ax):
    return [text.get_text().strip() for text in ax.texts]


def test_each_area_is_its_owner_on_top_of_those_below():
    ax = _draw(made.memory())
    drawn = [area.get_label() for area in ax.collections]
    assert drawn == ["parameters", "activations.checkpoints", "gradients", "other"]
    tops = [max(c[1] for path in area.get_paths() for c in path.vertices) for area in ax.collections]
    assert tops == pytest.approx([20.0, 28.0, 29.0, 29.1])


def test_areas_are_steps_not_ramps():
    """Checkpoints hold 8 GB from 3 s to 9 s: just before 9 s the area is still 28 GB high."""
    (path,) = _draw(made.memory()).collections[1].get_paths()
    at_nine = [y for x, y in path.vertices if x == 9.0]
    assert max(at_nine) == pytest.approx(28.0)
    assert path.vertices[:, 0].max() == made.STEP


def test_what_stays_is_below_what_moves_each_by_size_at_the_peak():
    use = made.memory(activations__mlp=[0, 30, 0, 0], framework=[2, 2, 2, 2])
    names = [owner for owner, _ in memory_plot.stack(use)]
    assert names == ["parameters", "framework", "activations.mlp", "activations.checkpoints", "gradients", "other"]


def test_the_order_is_that_at_the_peak_not_of_each_owners_own_largest():
    """At 3 s checkpoints have 8 GB; workspace had 9 GB once, when all together had less."""
    use = made.memory(activations__workspace=[0, 3, 0, 9])
    assert use.peak_time == 3.0
    names = [owner for owner, _ in memory_plot.stack(use)]
    assert names[:3] == ["parameters", "activations.checkpoints", "activations.workspace"]


def test_the_small_ones_are_other_and_nothing_is_lost():
    use = made.memory(**{f"owner{i}": [0, 2, i, 0] for i in range(12)})
    rows = memory_plot.stack(use)
    assert len(rows) == memory_plot.MOST_OWNERS
    assert rows[-1][0] == "other"
    np.testing.assert_allclose(sum(v for _, v in rows), np.sum(list(use.by_owner.values()), axis=0))


def test_peak_and_capacity_are_drawn_and_named():
    ax = _draw(made.memory())
    capacity, peak = ax.lines
    assert list(capacity.get_ydata()) == [32.0, 32.0]
    assert (peak.get_xdata()[0], peak.get_ydata()[0]) == (3.0, pytest.approx(29.1))
    assert _words(ax) == ["capacity 32.0 GB", "peak 29.1 GB"]
    assert ax.get_ylabel() == "GPU memory (GB)"
    assert ax.get_ylim()[1] > 32.0


def test_too_much_memory_is_drawn_above_the_capacity():
    ax = _draw(made.memory(capacity=24e9))
    assert ax.lines[0].get_ydata()[0] == 24.0
    assert ax.get_ylim()[1] > 29.1


def test_a_far_capacity_is_said_and_not_drawn():
    ax = _draw(made.host())
    assert len(ax.lines) == 1, "the peak alone"
    assert _words(ax) == ["capacity 1,500.0 GB", "peak 120.0 GB"]
    assert ax.get_ylim()[1] < 200


def test_owners_keep_their_colour_whatever_their_place():
    first, second = owner_colours(["gradients", "parameters"]), owner_colours(["parameters", "new", "gradients"])
    assert first["gradients"] == second["gradients"] == OWNERS["gradients"]
    assert len(set(second.values())) == 3
    assert len(set(OWNERS.values())) == len(OWNERS)
