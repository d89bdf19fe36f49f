"""Why: breakdown, phases, critical path, memory and transfers, on timelines made by hand and on whole scenarios."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from plans import PlanMaker

from scenarios import V100, data_parallel
from sim.analysis.breakdown import breakdown, phases
from sim.analysis.memory import memory_use
from sim.analysis.path import bound_by, critical_path
from sim.analysis.transfers import sent_bytes, transfers, union, utilisation
from sim.api import simulate as simulate_scenario
from sim.engine.core import simulate
from sim.mesh import place, ranks_per_socket
from sim.timeline.columns import MemoryRow


class Made(PlanMaker):
    """A plan whose ops have a category, a kind and memory effects."""

    def add(self, name, duration, category="forward", *, kind="none", size=0.0, memory=(), phase="F", **more):
        index = self.op(name, duration, **more)
        row = replace(self.rows[-1], category=category, kind=kind, size=size, memory=tuple(memory), phase=phase)
        self.rows[-1] = row
        return index


def made(**more):
    return Made({"link": 1.0, "sm": 1.0}, **more)


def test_gap_is_followed_back_through_a_chain_of_copies():
    """forward 1 s | d2h 2 s, then cpu 3 s, then h2d 1 s | forward 1 s: the six seconds of gap belong to the chain."""
    maker = made()
    first = maker.add("f", 1.0)
    down = maker.add("down", 2.0, "d2h", stream="copy", deps=(first,))
    adam = maker.add("adam", 3.0, "cpu_adam", stream="comm", deps=(down,))
    back = maker.add("back", 1.0, "h2d", stream="copy", deps=(adam,))
    maker.add("g", 1.0, deps=(back,))
    timeline = simulate(maker.plan())
    assert breakdown(timeline) == {"forward": 2.0, "h2d": 1.0, "d2h": 2.0, "cpu_adam": 3.0}


def test_what_runs_under_compute_is_not_exposed():
    maker = made()
    first = maker.add("f", 1.0)
    maker.add("reduce", 3.0, "dp", stream="comm", deps=(first,))
    maker.add("g", 5.0)
    assert breakdown(simulate(maker.plan())) == {"forward": 6.0}


def test_tail_belongs_to_what_still_runs():
    maker = made()
    first = maker.add("f", 1.0)
    maker.add("gather", 2.5, "param_gather", stream="comm", deps=(first,))
    assert breakdown(simulate(maker.plan())) == {"forward": 1.0, "param_gather": 2.5}


def test_late_launches_are_host_time():
    maker = made()
    for i in range(3):
        maker.add(f"k{i}", 1.0, launch=4.0)
    assert breakdown(simulate(maker.plan())) == {"forward": 3.0, "host_launch": 3 * 4.0 + 1.0 - 3.0}


def test_waiting_for_a_peer_is_a_bubble():
    maker = made(ranks=2, group_sizes=(2,))
    maker.add("short", 1.0, rank=0)
    maker.add("long", 5.0, rank=1)
    for rank in range(2):
        meet = maker.add("meet", 1.0, "tp", rank=rank, stream="comm", deps=(0,), group=0)
        maker.add("after", 1.0, rank=rank, deps=(meet,))
    parts = breakdown(simulate(maker.plan()))
    assert parts == pytest.approx({"forward": (2 + 6) / 2, "tp": 1.0, "bubble": 4 / 2})


def test_phases_are_what_a_synchronising_log_shows():
    """Forward 2 s, backward 3 s with a copy that outlives it by 1 s, optimizer 1 s."""
    maker = made()
    maker.add("f", 2.0)
    forward = maker.plan().ranks[0].blocks[0]
    other = made()
    other.rows = maker.rows
    b = other.add("b", 3.0, "backward", phase="B")
    other.add("copy", 4.0, "d2h", phase="B", stream="copy", signals=("x",))
    assert b == 0
    backward = tuple(other.blocks[0])
    last = made()
    last.rows, last.tokens = other.rows, other.tokens
    last.add("o", 1.0, "optimizer", phase="O", waits=("x",))
    plan = last.plan()
    rank = replace(plan.ranks[0], blocks=(forward, backward, plan.ranks[0].blocks[0]), actions=((0, 0), (1, 0), (2, 0)))
    found = phases(simulate(replace(plan, ranks=(rank,))))
    assert found == {"forward": 2.0, "backward": 3.0, "optimizer": 1.0}


SCENARIOS = [
    data_parallel(8, 0),
    data_parallel(16, 1, nodes=2, accumulation=2),
    data_parallel(8, 3),
    data_parallel(4, 2, base=V100, offload=True),
    replace(data_parallel(1, 0), recompute="full"),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_parts_sum_and_path_tiles_the_step(scenario):
    step = simulate_scenario(scenario)
    timeline = step.timeline
    assert sum(breakdown(timeline).values()) == pytest.approx(timeline.makespan, rel=1e-9)
    assert sum(phases(timeline).values()) == pytest.approx(timeline.makespan, rel=1e-9)
    pieces = critical_path(timeline)
    assert pieces[0].start == 0.0
    assert pieces[-1].end == timeline.makespan
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
    assert sum(bound_by(timeline, pieces).values()) == pytest.approx(1.0, rel=1e-9)
    assert timeline.makespan >= max(
        sum(op.duration for i in np.flatnonzero(timeline.spans.op == o) for op in [timeline.ops[o]])
        for o in set(timeline.spans.op.tolist())
    )


def test_path_names_contention_latency_and_the_resource():
    maker = made()
    first = maker.add("slowed", 1.0, loads={"link": 1.0}, latency=0.5)
    maker.add("other", 5.0, loads={"link": 1.0}, stream="comm")
    maker.add("end", 20.0, loads={"sm": 1.0}, deps=(first,))
    timeline = simulate(maker.plan())
    # latency 0.5, then half speed for 2 s, then 20 s on the SMs
    shares = bound_by(timeline, critical_path(timeline))
    assert shares == pytest.approx({"x": 22.0 / 22.5, "latency": 0.5 / 22.5})


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


def test_transfers_bytes_rates_and_exposure():
    maker = made()
    first = maker.add("f", 1.0)
    copy = maker.add("copy", 2.0, "h2d", kind="h2d", size=100.0, loads={"link": 1.0}, stream="copy", deps=(first,))
    maker.add("rival", 1.0, "x", loads={"link": 1.0}, stream="comm", deps=(first,))
    maker.add("g", 1.0, deps=(copy,))
    timeline = simulate(maker.plan())
    (use,) = transfers(timeline, breakdown(timeline))
    assert (use.category, use.bytes, use.alone) == ("h2d", 100.0, 50.0)
    assert use.busy == pytest.approx(3.0)
    assert use.achieved == pytest.approx(100.0 / 3.0)
    assert use.exposed == pytest.approx(3.0)
    assert use.bound_by == "link"
    assert utilisation(timeline)["link"] == pytest.approx(3.0 / 5.0)


def test_sent_bytes_of_collectives():
    maker = made()
    maker.add("c", 1.0, kind="all_reduce", size=80.0)
    op = replace(maker.rows[0], group_size=4)
    assert sent_bytes(op) == 2 * 80 * 3 / 4
    assert sent_bytes(replace(op, kind="all_gather")) == 80 * 3 / 4
    assert sent_bytes(replace(op, kind="gemm")) == 0.0


def test_union():
    assert union(np.array([0.0, 1.0, 5.0]), np.array([2.0, 1.5, 6.0])) == 3.0
    assert union(np.zeros(0), np.zeros(0)) == 0.0


def test_places():
    assert [place(r, 8) for r in (0, 7, 8, 17)] == [(0, 0), (0, 7), (1, 0), (2, 1)]
    assert [ranks_per_socket(w, 16, 2) for w in (1, 8, 16, 64)] == [1, 8, 8, 8]
    assert ranks_per_socket(3, 4, 1) == 3
