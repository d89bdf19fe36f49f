"""Spans by label: the same as sorting stably, for few labels and for many."""

import numpy as np
import pytest

from sim.analysis.split import batches, grouped


@pytest.mark.parametrize("count", [1, 7, 2**15 - 1, 2**15, 3 * 2**15])
def test_places_by_label_are_in_their_order(count):
    labels = np.random.default_rng(count).integers(0, count, 4000).astype(np.int32)
    order, begins = grouped(labels, count)
    assert (order == np.argsort(labels, kind="stable")).all()
    assert all((labels[order[begins[k] : begins[k + 1]]] == k).all() for k in range(0, count, 1 + count // 50))
    assert (begins[0], begins[-1]) == (0, 4000)


@pytest.mark.parametrize("most", [1, 5, 100])
def test_batches_hold_every_class_once_in_order(most):
    classes = [np.arange(length) for length in (0, 3, 4, 0, 0, 9, 1)]
    found = list(batches(classes, most))
    assert [id(one) for batch in found for one in batch] == [id(one) for one in classes]
    assert all(sum(map(len, batch[:-1])) < most for batch in found)
