"""Memory over time: effects added up by hand."""

from dataclasses import replace

import numpy as np
import pytest
from made import holds, made

from sim.analysis.memory import memory_use
from sim.engine.core import simulate
from sim.timeline.columns import MemoryRow


def test_memory_follows_its_effects():
    maker = made()
    maker.add("a", 1.0, memory=[MemoryRow(owner="x", size=10.0, at_end=False, where="gpu")])
    maker.add("b", 2.0, memory=[MemoryRow(owner="y", size=5.0, at_end=False, where="gpu")])
    maker.add("c", 1.0, memory=[MemoryRow(owner="x", size=-10.0, at_end=True, where="gpu")])
    (use,) = memory_use(simulate(maker.plan()), gpu_capacity=12.0, host_capacity=1.0)
    assert use.times.tolist() == [0.0, 1.0, 4.0]
    assert use.by_owner["x"].tolist() == [10.0, 10.0, 0.0]
    assert use.by_owner["y"].tolist() == [0.0, 5.0, 5.0]
    assert (use.peak, use.peak_time, use.at_peak, use.fits) == (15.0, 1.0, {"x": 10.0, "y": 5.0}, False)


def test_what_is_given_and_taken_at_one_instant_never_adds_up():
    """a holds 10 until 1 s, b takes 10 at 1 s: the peak is 10, not 20."""
    maker = made()
    maker.add("a", 1.0, memory=[holds("x", 10.0), holds("x", -10.0, at_end=True)])
    maker.add("b", 1.0, memory=[holds("y", 10.0), holds("y", -10.0, at_end=True)])
    (use,) = memory_use(simulate(maker.plan()), gpu_capacity=10.0, host_capacity=1.0)
    assert use.peak == 10.0
    assert use.fits
    assert use.times.tolist() == [0.0, 1.0, 2.0]
    assert use.by_owner["x"].tolist() == [10.0, 0.0, 0.0]


def test_residents_places_and_ranks_are_kept_apart():
    maker = made(ranks=2)
    maker.add("a", 1.0, rank=0, memory=[holds("x", 4.0), holds("h", 7.0, where="host")])
    maker.add("b", 3.0, rank=1, memory=[holds("x", 5.0, at_end=True)])
    plan = maker.plan()
    rows = tuple(replace(row, resident_gpu=(("w", 100.0), ("x", 1.0))) for row in plan.rank_classes)
    timeline = simulate(replace(plan, rank_classes=rows))
    uses = memory_use(timeline, gpu_capacity=105.0, host_capacity=6.0)
    found = {(u.rank_class, u.where): (u.peak, u.peak_time, u.at_peak, u.fits) for u in uses}
    assert found == {
        (0, "gpu"): (105.0, 0.0, {"w": 100.0, "x": 5.0}, True),
        (0, "host"): (7.0, 0.0, {"h": 7.0}, False),
        (1, "gpu"): (106.0, 3.0, {"w": 100.0, "x": 6.0}, False),
    }


def test_repeated_blocks_add_up_and_cancel():
    """Three microbatches of +8 at the start and -8 at the end of an op, and +1 that stays."""
    maker = made()
    maker.add("a", 1.0, memory=[holds("x", 8.0), holds("x", -8.0, at_end=True), holds("y", 1.0)])
    (use,) = memory_use(simulate(maker.plan(repeat=3)), gpu_capacity=1.0, host_capacity=1.0)
    assert use.by_owner["y"].tolist() == [1.0, 2.0, 3.0, 3.0]
    assert use.by_owner["x"].tolist() == [8.0, 8.0, 8.0, 0.0]
    assert (use.peak, use.peak_time) == (11.0, 2.0)


@pytest.mark.parametrize("seed", range(5))
def test_against_a_ledger(seed):
    """Random effects of random ops on three streams, added up one event after another."""
    draw = np.random.default_rng(seed)
    maker = made()
    for i in range(30):
        size = float(draw.integers(1, 50))
        memory = [holds(f"o{i % 3}", size), holds(f"o{i % 3}", -size, at_end=True)]
        maker.add(f"k{i}", float(draw.integers(1, 5)), memory=memory, stream=("compute", "comm", "copy")[i % 3])
    timeline = simulate(maker.plan())
    (use,) = memory_use(timeline, gpu_capacity=1.0, host_capacity=1.0)
    events = {}
    for o, start, end in zip(timeline.spans.op, timeline.spans.start, timeline.spans.end, strict=True):
        size = timeline.ops[o].memory[0].size
        events[float(start)] = events.get(float(start), 0.0) + size
        events[float(end)] = events.get(float(end), 0.0) - size
    held, best = 0.0, 0.0
    for when in sorted(events):
        held += events[when]
        best = max(best, held)
        total = sum(values[np.searchsorted(use.times, when)] for values in use.by_owner.values())
        assert total == pytest.approx(held)
    assert use.peak == pytest.approx(best)


def test_of_two_equal_peaks_the_first_counts_and_only_who_held_it_then():
    maker = made()
    for name, owner in (("a", "x"), ("b", "y")):
        maker.add(name, 1.0, memory=[holds(owner, 10.0), holds(owner, -10.0, at_end=True)])
    (use,) = memory_use(simulate(maker.plan()), gpu_capacity=10.0, host_capacity=1.0)
    assert (use.peak, use.peak_time, use.at_peak) == (10.0, 0.0, {"x": 10.0})
