"""Why: path, exposure, waits, utilisation, balance, peaks, against steps worked out by hand and each other."""

from dataclasses import replace

import numpy as np
import pytest
from made import holds, made
from msgspec.structs import replace as changed

from scenarios import A100, V100, data_parallel, on, random_system
from sim.analysis.balance import balance
from sim.analysis.breakdown import breakdown, breakdowns
from sim.analysis.explain import explain
from sim.analysis.exposure import exposure
from sim.analysis.links import SLICES, links
from sim.analysis.memory import memory_use
from sim.analysis.path import critical_path
from sim.analysis.path_shares import path_shares
from sim.analysis.peaks import peaks
from sim.analysis.waits import HOST, PEERS, waits
from sim.api import simulate as simulate_scenario
from sim.engine.core import simulate
from sim.spec.types import VariationSpec


def rows_of(timeline):
    return {(w.category, w.on, w.whom, w.computing): (w.seconds, w.count) for w in waits(timeline)}


@pytest.fixture(scope="module")
def copied():
    """f 1 s | copy 2 s, of which a kernel hides 0.5 s | g, launched 0.25 s late, 1 s."""
    maker = made()
    first = maker.add("f", 1.0, loads={"sm": 1.0})
    maker.add("beside", 0.5, "backward", loads={"sm": 0.5})
    maker.add("copy", 2.0, "h2d", kind="h2d", loads={"link": 1.0}, stream="copy", deps=(first,), sync=True)
    maker.add("g", 1.0, "optimizer", loads={"sm": 1.0}, launch=0.25)
    return simulate(maker.plan())


def test_path_adds_up_five_ways(copied):
    shares = path_shares(copied, critical_path(copied))
    assert shares.length == copied.makespan == 4.25
    assert shares.by_category == {"h2d": 2.0, "forward": 1.0, "optimizer": 1.0, "host launch": 0.25}
    assert shares.by_op == {"copy": 2.0, "f": 1.0, "g": 1.0, "host launch": 0.25}
    assert shares.by_stream == {"compute": 2.0, "copy": 2.0, "host launch": 0.25}
    assert shares.by_stage == {"0": 4.0, "host launch": 0.25}
    assert (shares.pieces, shares.moves) == (4, 0)


def test_hidden_and_exposed_parts_of_a_copy(copied):
    (row,) = exposure(copied, breakdown(copied))
    assert (row.category, row.busy, row.overlapped, row.exposed, row.costs) == ("h2d", 2.0, 0.5, 1.5, 1.5)


def test_what_the_spans_waited_on(copied):
    assert rows_of(copied) == {
        ("h2d", "dependency", "forward", False): (1.0, 1.0),
        ("optimizer", "launch", HOST, True): (1.75, 1.0),
    }


def test_utilisation_over_time_is_what_was_asked_of_each_slice(copied):
    rows = {row.name: row for row in links(copied, {"x": 0.5})}
    assert rows["link"].mean == pytest.approx(2.0 / 4.25)
    assert rows["sm"].mean == pytest.approx(2.25 / 4.25)
    middle = (np.arange(SLICES) + 0.5) * 4.25 / SLICES
    busy = np.where(middle < 1, 1.0, np.where(middle < 1.5, 0.5, np.where(middle > 3.25, 1.0, 0.0)))
    edges = np.abs(middle[:, None] - np.array([1.0, 1.5, 3.25])).min(axis=1) < 4.25 / SLICES
    assert rows["sm"].over_time[~edges] == pytest.approx(busy[~edges])
    assert rows["sm"].peak == pytest.approx(1.0)
    assert rows["sm"].path == 0.5


def test_something_asked_in_no_time_at_all_is_counted_in_its_slice():
    maker = made()
    maker.add("long", 1.0, loads={"sm": 1.0})
    timeline = simulate(maker.plan())
    sudden = changed(timeline.ops[0], demands=((0, 0.001),))
    spans = replace(timeline.spans, start=timeline.spans.end)
    (row,) = links(replace(timeline, ops=(sudden,), spans=spans), {})
    assert row.mean == pytest.approx(0.001)
    assert row.over_time[-1] == pytest.approx(0.001 * SLICES)


@pytest.fixture(scope="module")
def uneven():
    """Two ranks meet after 1 s and 5 s of work; then 1 s together, then 2 s and 1 s of their own."""
    maker = made(ranks=2, group_sizes=(2,))
    maker.add("short", 1.0, rank=0)
    maker.add("long", 5.0, rank=1)
    for rank in range(2):
        meet = maker.add("meet", 1.0, "dp", kind="all_reduce", rank=rank, stream="comm", deps=(0,), group=0)
        maker.add(f"after{rank}", 2.0 - rank, "optimizer", rank=rank, deps=(meet,))
    return simulate(maker.plan())


def test_the_last_to_come_is_who_the_others_waited_for(uneven):
    found = balance(uneven, breakdowns(uneven), critical_path(uneven))
    assert found.waiting == pytest.approx(4.0 / 2)
    assert found.late == ((1, 2.0),)
    assert found.imbalance == pytest.approx(6.0 / 4.5 - 1)
    assert sum(rank.on_path for rank in found.ranks) == uneven.makespan == 8.0
    assert found.ranks[1].on_path >= 5.0
    assert rows_of(uneven)["dp", "peers", PEERS, False] == (2.0, 0.5)


def test_a_slower_rank_that_computes_meanwhile_is_not_waited_for():
    """Rank 0 has 4 s of other work while rank 1 is late: nothing is lost."""
    maker = made(ranks=2, group_sizes=(2,))
    maker.add("short", 1.0, rank=0)
    maker.add("long", 5.0, rank=1)
    for rank in range(2):
        meet = maker.add("meet", 1.0, "dp", kind="all_reduce", rank=rank, stream="comm", deps=(0,), group=0)
        maker.add("other", 4.0 * (rank == 0) + 1e-9, rank=rank)
        maker.add("after", 1.0, rank=rank, deps=(meet,))
    timeline = simulate(maker.plan())
    found = balance(timeline, breakdowns(timeline), critical_path(timeline))
    assert found.waiting == pytest.approx(0.0, abs=1e-8)


def test_contention_is_a_wait_on_a_resource():
    maker = made()
    maker.add("slowed", 1.0, "h2d", kind="h2d", loads={"link": 1.0}, stream="copy")
    maker.add("other", 3.0, "d2h", kind="d2h", loads={"link": 1.0}, stream="comm")
    found = rows_of(simulate(maker.plan()))
    assert found["h2d", "contention", "x", False] == (pytest.approx(2.0), 1.0), "half speed for two seconds"


def test_the_peak_names_who_took_the_last_of_it():
    maker = made()
    maker.add("first", 1.0, memory=(holds("activations", 10.0),))
    maker.add("second", 1.0, memory=(holds("activations", 5.0), holds("workspace", 3.0)))
    maker.add("third", 1.0, memory=(holds("activations", -15.0), holds("workspace", -3.0)))
    timeline = simulate(maker.plan())
    (peak,) = peaks(timeline, memory_use(timeline, gpu_capacity=100.0, host_capacity=1.0))
    assert (peak.during, peak.time, peak.peak, peak.microbatch) == ("second", 1.0, 18.0, 0)
    assert peak.owners == {"activations": 15.0, "workspace": 3.0}


SCENARIOS = [
    data_parallel(8, 0),
    data_parallel(16, 1, nodes=2, accumulation=2),
    data_parallel(8, 3),
    data_parallel(4, 2, base=V100, offload=True),
    replace(A100, layout=replace(A100.layout, pp=2, tp=2, dp=2), batch=replace(A100.batch, size=16, micro=2)),
    on(data_parallel(8, 1), variations=(VariationSpec(node=0, part="gpu", index=3, speed=0.02),)),
    *(random_system(seed) for seed in range(2, 30, 9)),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_everything_adds_up(scenario):
    step = simulate_scenario(scenario)
    found, timeline = explain(step.timeline, step.result), step.timeline
    assert found.path.length == pytest.approx(timeline.makespan, rel=1e-12)
    for by in ("resource", "category", "op", "stream", "stage"):
        assert sum(getattr(found.path, f"by_{by}").values()) == pytest.approx(timeline.makespan, rel=1e-9)
    for load in found.balance.ranks:
        total = load.computing + load.exposed + load.launching + load.idle
        assert total == pytest.approx(timeline.makespan, rel=1e-9)
    assert {row.name: row.mean for row in found.links} == pytest.approx(step.result.utilisation, rel=1e-6)
    for row in found.links:
        assert row.over_time.min() >= -1e-9
        assert row.peak <= 1.0 + 1e-9
    for row in found.exposure:
        assert row.busy == pytest.approx(row.overlapped + row.exposed, rel=1e-9)
        assert row.busy <= timeline.makespan * (1 + 1e-9)
    for peak in found.peaks:
        assert peak.peak / peak.capacity == max(
            use.peak / use.capacity for use in step.result.memory if use.where == peak.where
        )
        assert sum(peak.owners.values()) == pytest.approx(peak.peak, rel=1e-6)


def test_a_straggler_is_named():
    step = simulate_scenario(SCENARIOS[5])
    found = explain(step.timeline, step.result).balance
    slow = found.late[0][0]
    assert step.timeline.rank_classes[slow].device == "n0.gpu3"
    assert found.ranks[slow].on_path > 0.5 * step.result.step_time
    assert found.imbalance > 0.5
