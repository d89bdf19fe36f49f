"""The critical path: pieces that tile the step, and what each was bound by."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from made import made

from scenarios import V100, data_parallel, random_system
from sim.analysis.breakdown import breakdown
from sim.analysis.path import bound_by, bound_seconds, critical_path
from sim.analysis.phases import phases
from sim.api import scenario_of
from sim.api import simulate as simulate_scenario
from sim.cluster.build import build as build_cluster
from sim.cost.lower import lower
from sim.engine.core import simulate
from sim.workload.build import build as build_workload

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


@pytest.mark.parametrize("seed", range(1, 60, 3))
def test_paths_of_random_systems_tile_the_step(seed):
    for fold in (True, False):
        timeline = simulate_scenario(random_system(seed), fold=fold).timeline
        pieces = critical_path(timeline)
        assert pieces[0].start == 0.0
        assert pieces[-1].end == timeline.makespan
        assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
        assert all(piece.end >= piece.start for piece in pieces)
        for piece in pieces:
            if piece.span >= 0:
                assert timeline.spans.start[piece.span] <= piece.start
                assert piece.end <= timeline.spans.end[piece.span]
        shares = bound_by(timeline, pieces)
        assert sum(shares.values()) == pytest.approx(1.0, rel=1e-9)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)


def named(timeline, pieces):
    return [timeline.ops[timeline.spans.op[p.span]].name if p.span >= 0 else p.reason for p in pieces]


def test_path_by_hand():
    """f 1 s | copy 2 s (with 0.5 s of latency) beside a kernel of 1 s | g launched 0.25 s late."""
    maker = made()
    first = maker.add("f", 1.0)
    maker.add("beside", 1.0)
    maker.add("copy", 1.5, loads={"link": 1.0}, latency=0.5, stream="copy", deps=(first,), sync=True)
    maker.add("g", 1.0, loads={"sm": 1.0}, launch=0.25)
    timeline = simulate(maker.plan())
    pieces = critical_path(timeline)
    assert named(timeline, pieces) == ["f", "copy", "host launch", "g"]
    assert [p.end for p in pieces] == [1.0, 3.0, 3.25, 4.25]


def test_the_last_to_come_decides_when_a_collective_begins():
    """Rank 0 is there after 1 s, rank 1 after 5 s: the path of the collective goes through rank 1's kernel."""
    maker = made(ranks=2, group_sizes=(2,))
    maker.add("short", 1.0, rank=0)
    maker.add("long", 5.0, rank=1)
    for rank in range(2):
        meet = maker.add("meet", 1.0, rank=rank, stream="comm", deps=(0,), group=0)
        maker.add(f"after{rank}", 2.0 - rank, rank=rank, deps=(meet,))
    timeline = simulate(maker.plan())
    pieces = critical_path(timeline)
    assert named(timeline, pieces) == ["long", "meet", "after0"]
    assert [p.end for p in pieces] == [5.0, 6.0, 8.0]


@pytest.mark.parametrize("late", [0, 1])
def test_contention_of_a_collective_is_seen_from_every_member(late):
    """Speed 2/3 for 1.5 s (half the SMs and a rival that wants all), then full speed for the last of its two seconds.

    2 s before it, 9 s after it on rank 0: of 13.5 s the SMs have 1.5 and the link 1, whoever came last.
    """
    maker = made(ranks=2, group_sizes=(2,))
    share = {"link": 1.0, "sm": 0.5}
    for rank in range(2):
        maker.add("before", 1.0 + (rank == late), rank=rank)
        meet = maker.add("meet", 2.0, "dp", rank=rank, stream="comm", deps=(0,), group=0, loads=share)
        if rank == late:
            maker.add("rival", 1.0, loads={"sm": 1.0}, rank=rank, stream="copy", deps=(0,))
        if rank == 0:
            maker.add("after", 9.0, rank=rank, deps=(meet,))
    plan = maker.plan()
    kinds = tuple(replace(r, kind=r.name) for r in plan.resources)
    timeline = simulate(replace(plan, resources=kinds))
    shares = bound_by(timeline, critical_path(timeline))
    assert timeline.makespan == pytest.approx(13.5)
    assert shares == pytest.approx({"latency": 11 / 13.5, "sm": 1.5 / 13.5, "link": 1 / 13.5})


def test_a_run_of_kernels_is_bound_by_what_binds_its_kernels():
    """Merged or not, the critical path has the same seconds of arithmetic and of memory."""
    scenario = scenario_of("lecture-64-dp", ["batch.size=null", "batch.accumulation=1", "model.layers=4"])
    workload, cluster = build_workload(scenario), build_cluster(scenario.cluster)
    found = []
    for merged in (False, True):
        timeline = simulate(lower(workload, cluster, scenario, merged=merged))
        found.append(bound_seconds(timeline, critical_path(timeline)))
    alone, together = found
    assert 0.1 < alone["hbm"] / alone["sm"] < 2.0, "both matter"
    for kind in ("sm", "hbm"):
        assert together[kind] == pytest.approx(alone[kind], rel=0.02)
