"""Transfers and resources: bytes, rates, exposure, utilisation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import made
from msgspec.structs import replace as changed

from scenarios import V100, data_parallel, on, random_system
from sim.analysis.breakdown import breakdown
from sim.analysis.transfers import sent_bytes, transfers, union, utilisation
from sim.api import simulate as simulate_scenario
from sim.engine.core import simulate
from sim.workload.model import params


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
    op = changed(maker.rows[0], group_size=4)
    assert sent_bytes(op) == 2 * 80 * 3 / 4
    assert sent_bytes(changed(op, kind="all_gather")) == 80 * 3 / 4
    assert sent_bytes(changed(op, kind="gemm")) == 0.0


def test_union():
    assert union(np.array([0.0, 1.0, 5.0]), np.array([2.0, 1.5, 6.0])) == 3.0
    assert union(np.zeros(0), np.zeros(0)) == 0.0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=12))
def test_union_counts_every_second_once(rows):
    """Against counting whole seconds."""
    start = np.array([float(a) for a, _ in rows])
    end = np.array([float(a + length) for a, length in rows])
    assert union(start, end) == len({second for a, length in rows for second in range(a, a + length)})


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_reduce"])
@pytest.mark.parametrize("n", [1, 2, 8])
def test_bytes_of_collectives(kind, n):
    """S (n-1)/n of the whole buffer, twice for an all-reduce; alone in its group nobody sends."""
    maker = made()
    maker.add("c", 1.0, kind=kind, size=64.0)
    expected = (2 if kind == "all_reduce" else 1) * 64 * (n - 1) / n
    assert sent_bytes(changed(maker.rows[0], group_size=n)) == expected


def test_two_copies_at_once_are_busy_once():
    maker = made()
    for stream in ("comm", "copy"):
        maker.add(stream, 2.0, "h2d", kind="h2d", size=10.0, stream=stream)
    timeline = simulate(maker.plan())
    (use,) = transfers(timeline, breakdown(timeline))
    assert (use.bytes, use.busy, use.achieved, use.alone) == (20.0, 2.0, 10.0, 5.0)
    assert use.bound_by == "latency"


def test_utilisation_of_a_class_is_the_mean_of_its_members():
    """Two ranks of a class ask 3 of a class of four resources of capacity 2, in a step of 1 s: 6 / 8."""
    maker = made()
    maker.add("a", 1.0, loads={"sm": 1.0})
    plan = maker.plan()
    ops = (changed(plan.ops[0], demands=((1, 3.0),)),)
    rows = (replace(plan.rank_classes[0], members=2),)
    resources = (plan.resources[0], replace(plan.resources[1], capacity=2.0, members=4))
    assert utilisation(simulate(replace(plan, ops=ops, rank_classes=rows, resources=resources))) == {"sm": 0.75}


@pytest.mark.parametrize("seed", range(2, 60, 5))
def test_utilisation_of_random_systems(seed):
    """Never above 1, and equal whether ranks are folded or not, resource kind by resource kind."""
    found = []
    for fold in (True, False):
        step = simulate_scenario(random_system(seed), fold=fold)
        timeline, total = step.timeline, {}
        for row in timeline.resources:
            share = step.result.utilisation.get(row.name, 0.0)
            assert 0.0 <= share <= 1 + 1e-9
            total[row.kind] = total.get(row.kind, 0.0) + share * row.members
        found.append(total)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize("seed", range(3, 60, 5))
def test_transfers_of_random_systems(seed):
    """Achieved at most what it would be alone on each stream; never busier than the step; exposed at most the busy."""
    result = simulate_scenario(random_system(seed)).result
    for use in result.transfers:
        assert use.busy <= result.step_time * (1 + 1e-9)
        assert use.achieved * use.busy == pytest.approx(use.bytes, rel=1e-9)
        if result.rank_classes == 1:
            assert use.exposed <= use.busy * (1 + 1e-9)
            assert use.achieved <= use.alone * (1 + 1e-9), "one stream a category"


@pytest.mark.parametrize(("uplink", "name"), [(60e9, "gpu0.pcie.d2h"), (5e9, "switch0.uplink.out")])
def test_a_transfer_names_the_slowest_link_of_its_route(uplink, name):
    link = replace(V100.cluster.host_link, d2h=12.8e9, uplink=uplink)
    result = simulate_scenario(on(data_parallel(1, 2, base=V100, offload=True), host_link=link)).result
    found = {use.category: use for use in result.transfers}
    assert set(found) == {"d2h", "h2d"}
    assert found["d2h"].bound_by == f"n0.{name}"
    total = params(V100.model)
    assert found["d2h"].bytes == pytest.approx(2 * total)
    assert found["d2h"].alone < min(uplink, 12.8e9), "latency included"


def test_a_message_is_sent_once():
    """Its receiver waits for it and sends nothing; in a ring step every rank sends its part."""
    maker = made()
    maker.add("send 0>1", 1.0, kind="send_recv", size=64.0)
    op = changed(maker.rows[0], group_size=2)
    assert sent_bytes(op) == 64.0
    assert sent_bytes(changed(op, name="receive 0>1")) == 0.0
    assert sent_bytes(changed(op, kind="ring_step", name="ring-step cp")) == 64.0
