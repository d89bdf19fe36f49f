"""Max-min speeds: the algebra first, then the certificate on random instances."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.fluid import max_min


def test_equal_shares():
    assert max_min([[(0, 1.0)]] * 4, [1.0] * 4) == ([0.25] * 4, [0] * 4)


def test_full_speed_where_there_is_room():
    assert max_min([[(0, 0.5)], [(0, 0.5)]], [1.0, 1.0]) == ([1.0, 1.0], [-1, -1])


def test_weights_share_in_proportion():
    speeds, _ = max_min([[(0, 1.0)], [(0, 1.0)]], [3.0, 1.0])
    assert speeds == pytest.approx([0.75, 0.25])


def test_parking_lot():
    """A long flow over two links, one short flow on the first, two on the second (Bertsekas and Gallager, 6.5.2).

    The second link gives 1/3 each; the first link's short flow takes the 2/3 that the long one leaves.
    """
    speeds, binders = max_min([[(0, 1.0), (1, 1.0)], [(0, 1.0)], [(1, 1.0)], [(1, 1.0)]], [1.0] * 4)
    assert speeds == pytest.approx([1 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert binders == [1, 0, 1, 1]


def test_full_elsewhere_leaves_the_rest_to_the_others():
    """Three flows on link 0, the third also crosses link 1, which it shares with three more: it gets 1/4.

    The first two share the 3/4 that it leaves: 3/8 each, not 1/3.
    """
    rows = [[(0, 1.0)], [(0, 1.0)], [(0, 1.0), (1, 1.0)], [(1, 1.0)], [(1, 1.0)], [(1, 1.0)]]
    speeds, binders = max_min(rows, [1.0] * 6)
    assert speeds == pytest.approx([3 / 8, 3 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 4], rel=1e-12)
    assert binders == [0, 0, 1, 1, 1, 1]


def test_light_load_with_a_heavy_weight_keeps_full_speed():
    """Weight 8 and a tenth of the SMs: full at level 1/8, when the kernel has 1/8; the kernel goes on to 0.9."""
    speeds, binders = max_min([[(0, 1.0)], [(0, 0.1)]], [1.0, 8.0])
    assert speeds == pytest.approx([0.9, 1.0], rel=1e-12)
    assert binders == [0, -1]


def test_full_speed_is_exactly_one_whatever_the_weight():
    """49 x (1 / 49) is not 1 in floats; a speed below one without a binder would be a slowdown that nobody causes."""
    assert max_min([[(0, 0.1)], [(0, 0.1)]], [49.0, 3.0]) == ([1.0, 1.0], [-1, -1])


def test_resources_that_fill_together():
    """Both links fill at 1/3. The second then has nothing left but rounding, and must not stop its other flow there."""
    third = 1.0 / 3.0
    speeds, _ = max_min([[(0, 1.0), (1, 1.0)], [(0, 2.0)], [(1, 2.0)]], [1.0, 1.0, 1.0])
    assert speeds == pytest.approx([third] * 3, rel=1e-12)


def test_a_tiny_user_of_a_link_that_fills_with_another_is_not_stopped_at_nothing():
    """Both links fill at 1/2; freezing the two big flows leaves the second nothing at all, and its third flow 1/2.

    A speed of 0 would be an activity without an end.
    """
    speeds, _ = max_min([[(0, 1.0), (1, 1.0)], [(0, 1.0), (1, 1.0)], [(1, 1e-13)]], [1.0] * 3)
    assert speeds == pytest.approx([0.5] * 3, rel=1e-9)


def test_a_little_more_than_a_link_has_is_shared():
    """Loads of 0.5000001 twice: 1 / 1.0000002 each."""
    speeds, binders = max_min([[(0, 0.5000001)]] * 2, [1.0, 1.0])
    assert speeds == pytest.approx([1 / 1.0000002] * 2, rel=1e-12)
    assert binders == [0, 0]


def test_many_flows_of_unequal_weight_end():
    """Link 0 fills first and leaves rounding, here above 1e-12, in its sum of weights: it once filled again for ever.

    Link 1 has three equal flows of its own: a third each.
    """
    rows = [[(0, 16.0 * (0.1 + i / 7))] for i in range(60)] + [[(1, 1.0)]] * 3
    weights = [(1.0, 64.0)[i % 2] for i in range(60)] + [1.0] * 3
    speeds, _ = max_min(rows, weights)
    assert sum(s * row[0][1] for s, row in zip(speeds[:60], rows, strict=False)) == pytest.approx(1.0, rel=1e-9)
    assert speeds[60:] == pytest.approx([1 / 3] * 3, rel=1e-12)


rows_of_loads = st.dictionaries(
    st.integers(0, 4), st.floats(0.05, 1.0) | st.floats(0.01, 200.0), min_size=1, max_size=4
).map(lambda row: list(row.items()))
loads = st.lists(rows_of_loads, min_size=1, max_size=9)


@given(loads, st.data())
def test_certificate(rows, data):
    weights = [data.draw(st.sampled_from([1.0, 2.0, 8.0, 49.0, 1000.0])) for _ in rows]
    speeds, binders = max_min(rows, weights)
    used = {}
    for row, speed in zip(rows, speeds, strict=True):
        assert 0.0 < speed <= 1.0
        for r, load in row:
            used[r] = used.get(r, 0.0) + load * speed
    assert all(total <= 1.0 + 1e-9 for total in used.values()), "feasible"
    for i, (speed, binder) in enumerate(zip(speeds, binders, strict=True)):
        if speed < 1.0 - 1e-9:
            assert binder in dict(rows[i]), "slowed by a resource that it uses"
            assert used[binder] == pytest.approx(1.0, abs=1e-9), "which is full"
            level = speed / weights[i]
            others = [s / w for s, w, row in zip(speeds, weights, rows, strict=True) if binder in dict(row)]
            assert level >= max(others) * (1 - 1e-9), "and on which nobody has a larger share by weight"
