"""Where the time went: hand-made gaps explained by copies, launches, tails and peers; parts that sum to the step."""

from dataclasses import replace

import pytest
from made import made
from msgspec.structs import replace as changed

from scenarios import V100, data_parallel, random_system
from sim.analysis.breakdown import CATEGORIES, breakdown
from sim.analysis.phases import phases
from sim.api import simulate as simulate_scenario
from sim.engine.core import simulate


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


def test_half_hidden_copy_is_half_exposed():
    """f 1 s | copy 4 s beside g 3 s | h: one second of the copy sticks out."""
    maker = made()
    first = maker.add("f", 1.0)
    copy = maker.add("copy", 4.0, "h2d", stream="copy", deps=(first,))
    maker.add("g", 3.0)
    maker.add("h", 2.0, deps=(copy,))
    assert breakdown(simulate(maker.plan())) == {"forward": 6.0, "h2d": 1.0}


def test_the_one_waited_for_counts_not_the_one_that_is_busy():
    """Two copies run in the gap; the next kernel waits for the second alone, which waited for nobody."""
    maker = made(streams=("compute", "comm", "copy"))
    maker.add("f", 1.0)
    maker.add("gather", 5.0, "param_gather", stream="comm")
    copy = maker.add("copy", 3.0, "h2d", stream="copy")
    maker.add("g", 4.0, deps=(copy,))
    assert breakdown(simulate(maker.plan())) == {"forward": 5.0, "h2d": 2.0}


def test_a_queue_of_copies_is_followed_through_its_stream():
    """The kernel needs the second copy, which stood behind the first in its stream: both are exposed."""
    maker = made()
    first = maker.add("f", 1.0)
    maker.add("one", 2.0, "d2h", stream="copy", deps=(first,))
    two = maker.add("two", 3.0, "h2d", stream="copy", deps=(first,))
    maker.add("g", 1.0, deps=(two,))
    assert breakdown(simulate(maker.plan())) == {"forward": 2.0, "d2h": 2.0, "h2d": 3.0}


def test_after_a_synchronising_copy_the_host_launches_late():
    """The host waits for the copy (2 s) and needs 0.5 s for the next launch: 2 s of copy, 0.5 s of host."""
    maker = made()
    first = maker.add("f", 1.0)
    maker.add("copy", 2.0, "d2h", stream="copy", deps=(first,), sync=True)
    maker.add("g", 1.0, launch=0.5)
    assert breakdown(simulate(maker.plan())) == {"forward": 2.0, "d2h": 2.0, "host_launch": 0.5}


def test_a_late_launch_of_a_copy_is_host_time_too():
    """f 1 s; a copy of 2 s is launched at 3 s; g waits for it: 2 s of host, 2 s of copy."""
    maker = made()
    maker.add("f", 1.0)
    copy = maker.add("copy", 2.0, "h2d", stream="copy", launch=3.0)
    maker.add("g", 1.0, deps=(copy,))
    assert breakdown(simulate(maker.plan())) == {"forward": 2.0, "host_launch": 2.0, "h2d": 2.0}


def test_a_tail_is_followed_back_too():
    """f 1 s | reduce 1 s | copy 2 s, and the step is over: each has its own line."""
    maker = made()
    first = maker.add("f", 1.0)
    reduce = maker.add("reduce", 1.0, "dp", stream="comm", deps=(first,))
    maker.add("copy", 2.0, "d2h", stream="copy", deps=(reduce,))
    assert breakdown(simulate(maker.plan())) == {"forward": 1.0, "dp": 1.0, "d2h": 2.0}


def test_a_contended_kernel_is_still_compute():
    """A rival takes half the SMs for a while: the kernel takes longer, and all of it is forward."""
    maker = made()
    maker.add("f", 2.0, loads={"sm": 1.0})
    maker.add("rival", 2.0, "dp", loads={"sm": 1.0}, stream="comm")
    assert breakdown(simulate(maker.plan())) == {"forward": 4.0}


def test_whoever_ends_early_waits():
    """Rank 0 works 1 s, rank 1 works 3 s, nothing joins them: a bubble of 2 s on one of two; phases count it too."""
    maker = made(ranks=2)
    maker.add("short", 1.0, rank=0)
    maker.add("long", 3.0, rank=1)
    timeline = simulate(maker.plan())
    assert breakdown(timeline) == {"forward": 2.0, "bubble": 1.0}
    assert phases(timeline) == {"forward": 3.0, "backward": 0.0, "optimizer": 0.0}


def test_members_weigh_their_class():
    """A class of three ranks and one of one: the mean is over ranks, not classes."""
    maker = made(ranks=2)
    maker.add("short", 1.0, rank=0)
    maker.add("long", 5.0, "backward", rank=1)
    plan = maker.plan()
    rows = (replace(plan.rank_classes[0], members=3), plan.rank_classes[1])
    parts = breakdown(simulate(replace(plan, rank_classes=rows)))
    assert parts == pytest.approx({"forward": 3 / 4, "backward": 5 / 4, "bubble": 3 * 4 / 4})


def whole(seed):
    scenario = random_system(seed)
    return simulate_scenario(scenario), scenario


@pytest.mark.parametrize("seed", range(0, 100, 7))
def test_compute_lines_are_the_busy_time_of_the_compute_stream(seed):
    """Forward, backward, recompute, optimizer: exactly the seconds in which the compute stream has a span."""
    step, _ = whole(seed)
    timeline, spans = step.timeline, step.timeline.spans
    busy = {}
    for i, o in enumerate(spans.op.tolist()):
        op = timeline.ops[o]
        if op.stream == 0:
            weight = timeline.rank_classes[op.rank_class].members / step.result.ranks
            busy[op.category] = busy.get(op.category, 0.0) + float(spans.end[i] - spans.start[i]) * weight
    for category, seconds in busy.items():
        assert step.result.breakdown.get(category, 0.0) == pytest.approx(seconds, rel=1e-9)
    assert set(step.result.breakdown) <= set(CATEGORIES)


@pytest.mark.parametrize("copy_back", ["after", "tiled"])
def test_zero_offload_shows_its_chain(copy_back):
    """CPU work is exposed in full, whatever the GPU does: it waits for the norm, and nothing runs beside it."""
    base = replace(V100, stack=replace(V100.stack, copy_back=copy_back))
    step = simulate_scenario(data_parallel(1, 2, base=base, offload=True))
    ops, spans = step.timeline.ops, step.timeline.spans
    cpu = sum(
        float(spans.end[i] - spans.start[i])
        for i, o in enumerate(spans.op.tolist())
        if step.timeline.stream_names[ops[o].stream] == "cpu"
    )
    assert step.result.breakdown["cpu_adam"] == pytest.approx(cpu, rel=1e-9)
    assert "recompute" in step.result.breakdown
    assert step.result.phases["optimizer"] >= cpu


@pytest.mark.parametrize(("rival", "lost"), [(False, 0.0), (True, 0.25)])
def test_launches_inside_a_run_of_kernels_are_host_time_even_beside_a_rival(rival, lost):
    """Two kernels of 1 s as one op, launched at 3 s and 6 s: they end at 7 s, having waited 2 s for the second launch.

    A rival that wants all SMs from 3 s on for half a second meets their average load, half of the SMs: a quarter more.
    """
    maker = made()
    maker.add("two", 2.0, launch=3.0, launch_rest=3.0, reach=4.0, kernels=2, loads={"sm": 1.0})
    maker.rows[-1] = changed(maker.rows[-1], kernels=2, reach=4.0)
    if rival:
        maker.add("rival", 0.5, "dp", loads={"sm": 1.0}, stream="comm", latency=3.0)
        maker.blocks[0].reverse()  # launched at once
    timeline = simulate(maker.plan())
    assert timeline.makespan == pytest.approx(7.0 + lost)
    assert breakdown(timeline) == pytest.approx({"forward": 2.0 + lost, "host_launch": 3.0 + 2.0})


def test_phases_never_run_backwards():
    """Forward's copy outlives backward and the optimizer: all 5 s are forward's, and none of the others is negative."""
    maker, blocks = made(), []
    for name, phase in (("f", "F"), ("b", "B"), ("o", "O")):
        maker.blocks.clear()
        maker.add(name, 1.0, phase=phase)
        if phase == "F":
            maker.add("copy", 5.0, "d2h", stream="copy", phase=phase)
        blocks.append(tuple(maker.blocks[0]))
    plan = maker.plan()
    rank = replace(plan.ranks[0], blocks=tuple(blocks), actions=((0, 0), (1, 0), (2, 0)))
    assert phases(simulate(replace(plan, ranks=(rank,)))) == {"forward": 5.0, "backward": 0.0, "optimizer": 0.0}
