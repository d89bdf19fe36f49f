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


loads = st.lists(
    st.dictionaries(st.integers(0, 4), st.floats(0.05, 1.0), min_size=1, max_size=4).map(lambda d: list(d.items())),
    min_size=1, max_size=9,
)  # fmt: skip


@given(loads, st.data())
def test_certificate(rows, data):
    weights = [data.draw(st.sampled_from([1.0, 2.0, 8.0])) for _ in rows]
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
