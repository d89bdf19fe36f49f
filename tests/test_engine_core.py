"""The engine against times worked out by hand. Every expectation is derived in its test."""

from dataclasses import replace

import pytest
from plans import PlanMaker, times

from sim.engine import sharing
from sim.engine.core import simulate
from sim.timeline.columns import CAUSE_DEPENDENCY, CAUSE_LAUNCH, CAUSE_NONE, CAUSE_STREAM

LINK = {"link": 1.0, "other": 1.0}


def test_one_op_lasts_latency_plus_duration():
    maker = PlanMaker(LINK)
    maker.op("a", 2.0, {"link": 1.0}, latency=0.5)
    timeline = simulate(maker.plan())
    assert times(timeline)["a"] == (0.0, 2.5)
    assert timeline.makespan == 2.5
    assert timeline.solves == 0


def test_two_equal_flows_get_half_each():
    maker = PlanMaker(LINK)
    maker.op("a", 1.0, {"link": 1.0})
    maker.op("b", 1.0, {"link": 1.0}, stream="comm")
    assert times(simulate(maker.plan())) == {"a": (0.0, 2.0), "b": (0.0, 2.0)}


def test_three_flows_one_limited_elsewhere_leaves_its_share():
    """Three more flows fill "other": c runs at 1/4, and a, b share the 3/4 that it leaves on "link"."""
    maker = PlanMaker(LINK, streams=("s0", "s1", "s2", "s3", "s4", "s5"))
    maker.op("a", 3.0, {"link": 1.0}, stream="s0")
    maker.op("b", 3.0, {"link": 1.0}, stream="s1")
    maker.op("c", 2.0, {"link": 1.0, "other": 1.0}, stream="s2")
    for i in range(3):
        maker.op(f"d{i}", 2.0, {"other": 1.0}, stream=f"s{3 + i}")
    done = times(simulate(maker.plan()))
    # until t=8: a, b at 3/8 and everything on "other" at 1/4, whose 2 s of demand end at 8; a and b end at 3/(3/8) = 8.
    assert all(end == pytest.approx(8.0, rel=1e-12) for _, end in done.values())


def test_late_and_early_piecewise():
    """a alone for 1 s, with b for 2 s (each does 1), then a alone again."""
    maker = PlanMaker(LINK)
    maker.op("a", 3.0, {"link": 1.0})
    maker.op("wait", 1.0, stream="comm")
    maker.op("b", 1.0, {"link": 1.0}, stream="comm")
    done = times(simulate(maker.plan()))
    assert done["b"] == (1.0, 3.0)
    assert done["a"] == (0.0, 4.0)


def test_heavy_weight_keeps_its_share_and_the_kernel_slows_by_it():
    """A collective with 0.1 of the SMs for 1 s; the kernel runs at 0.9 meanwhile, and needs 0.1 s more in the end."""
    maker = PlanMaker({"sm": 1.0})
    maker.op("kernel", 2.0, {"sm": 1.0})
    maker.op("collective", 1.0, {"sm": 0.1}, stream="comm", weight=8.0)
    done = times(simulate(maker.plan()))
    assert done["collective"] == (0.0, 1.0)
    assert done["kernel"][1] == pytest.approx(2.1, rel=1e-12)


def test_latency_holds_no_resource():
    maker = PlanMaker(LINK)
    maker.op("late", 1.0, {"link": 1.0}, latency=1.0)
    maker.op("first", 1.0, {"link": 1.0}, stream="comm")
    assert times(simulate(maker.plan())) == {"late": (0.0, 2.0), "first": (0.0, 1.0)}


def test_contended_seconds_name_the_resource():
    maker = PlanMaker(LINK)
    maker.op("a", 1.0, {"link": 1.0, "other": 0.1})
    maker.op("b", 1.0, {"link": 1.0}, stream="comm")
    timeline = simulate(maker.plan())
    assert sorted(timeline.contended) == [(0, 0, 2.0), (1, 0, 2.0)]


def test_launch_bound_chain():
    """n ops shorter than their launch: the host issues one every 10 s, the last one still has to run."""
    maker = PlanMaker(LINK)
    for i in range(5):
        maker.op(f"k{i}", 1.0, launch=10.0)
    timeline = simulate(maker.plan())
    assert timeline.makespan == 5 * 10.0 + 1.0
    assert set(timeline.spans.cause.tolist()) == {CAUSE_LAUNCH}


def test_sync_op_holds_the_host():
    maker = PlanMaker(LINK)
    maker.op("read", 5.0, sync=True)
    maker.op("next", 1.0, stream="comm", launch=1.0)
    timeline = simulate(maker.plan())
    assert times(timeline)["next"] == (6.0, 7.0)
    assert timeline.spans.cause.tolist() == [CAUSE_NONE, CAUSE_LAUNCH]
    assert timeline.spans.cause_span.tolist() == [-1, 0]


def test_launch_queue_holds_the_host_back():
    """A queue of 4: op 4 can only be launched when ops have ended, and op 4 of another stream shows it."""
    maker = PlanMaker(LINK, launch_queue=4)
    for i in range(4):
        maker.op(f"k{i}", 1.0)
    maker.op("late", 1.0, stream="comm")
    timeline = simulate(maker.plan())
    assert times(timeline)["late"] == (1.0, 2.0)
    late = [timeline.ops[o].name for o in timeline.spans.op].index("late")
    assert (timeline.spans.cause[late], timeline.spans.cause_span[late]) == (CAUSE_LAUNCH, 0), "k0 made room for it"
    maker.launch_queue = 1024
    assert times(simulate(maker.plan()))["late"][0] == 0.0


def test_refilling_the_queue_in_batches_delays_nothing():
    small, large = (PlanMaker(LINK, launch_queue=n) for n in (64, 100_000))
    for maker in (small, large):
        for i in range(100):
            maker.op(f"k{i}", 1.0, {"link": 0.5}, launch=0.001)
    a, b = (simulate(maker.plan(repeat=5)).spans.start.tolist() for maker in (small, large))
    assert a == b


def test_a_full_queue_lets_an_op_in_as_soon_as_one_leaves():
    """1100 ops of 1 s in one stream: op 1100 is the first of another, and goes when 1100 - 1023 = 77 have ended."""
    maker = PlanMaker(LINK)
    for i in range(1100):
        maker.op(f"k{i}", 1.0)
    maker.op("late", 1.0, stream="comm")
    assert times(simulate(maker.plan()))["late"] == (77.0, 78.0)


def test_a_queue_full_behind_slow_launches_delays_nobody():
    """Room comes at 11 s, but the host is busy launching until 20 s: op 2 is launched at 30 s, and op 0 is no cause."""
    maker = PlanMaker(LINK, launch_queue=2)
    for i in range(3):
        maker.op(f"k{i}", 1.0, launch=10.0)
    timeline = simulate(maker.plan())
    assert timeline.spans.launched.tolist() == [10.0, 20.0, 30.0]
    assert timeline.spans.cause_span.tolist() == [-1, -1, -1]


def test_weights_share_a_link_in_proportion():
    """Weights 3 and 1: b gets a quarter until a has its 3 s at t = 4, by which b has 1 s, and then the whole link."""
    maker = PlanMaker(LINK)
    maker.op("a", 3.0, {"link": 1.0}, weight=3.0)
    maker.op("b", 3.0, {"link": 1.0}, stream="comm")
    assert times(simulate(maker.plan())) == {"a": (0.0, 4.0), "b": (0.0, 6.0)}


def test_three_flows_piecewise():
    """a from 0, b from 1, c from 2, one link, demands 4, 2, 1.

    [0,1] a alone: 3 left. [1,2] halves: a 2.5, b 1.5. From 2 thirds: c's 1 s ends it at 5, when a has 1.5 and b 0.5.
    Then halves: b ends at 6, a has 1 and ends at 7.
    """
    maker = PlanMaker(LINK, streams=("a", "b", "c"))
    maker.op("a", 4.0, {"link": 1.0}, stream="a")
    maker.op("wait b", 1.0, stream="b")
    maker.op("b", 2.0, {"link": 1.0}, stream="b")
    maker.op("wait c", 2.0, stream="c")
    maker.op("c", 1.0, {"link": 1.0}, stream="c")
    timeline = simulate(maker.plan())
    done = times(timeline)
    assert [done[n][1] for n in "abc"] == pytest.approx([7.0, 6.0, 5.0], rel=1e-12)
    slowed = {timeline.ops[timeline.spans.op[span]].name: seconds for span, _, seconds in timeline.contended}
    assert slowed == pytest.approx({"a": 5.0, "b": 5.0, "c": 3.0}, rel=1e-12)


def test_contended_seconds_follow_the_resource_though_the_speed_stays():
    """a runs at 1/2 for 4 s: 2 s by "link", which b shares, then 2 s by "other", which c takes up as b ends."""
    maker = PlanMaker(LINK, streams=("a", "b", "c"))
    maker.op("a", 4.0, {"link": 1.0, "other": 1.0}, stream="a")
    maker.op("b", 1.0, {"link": 1.0}, stream="b")
    maker.op("wait", 2.0, stream="c")
    maker.op("c", 1.0, {"other": 1.0}, stream="c")
    timeline = simulate(maker.plan())
    names = [timeline.ops[o].name for o in timeline.spans.op]
    assert times(timeline)["a"] == (0.0, 6.0)
    assert sorted((names[i], r, x) for i, r, x in timeline.contended) == [
        ("a", 0, 2.0), ("a", 1, 2.0), ("b", 0, 2.0), ("c", 1, 2.0),
    ]  # fmt: skip


def test_every_member_of_a_slowed_collective_says_so():
    """It is one activity that each member records; a path that runs through any of them needs its bottleneck."""
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2,))
    for rank in range(2):
        maker.op(f"meet{rank}", 1.0, {"link": 1.0}, rank=rank, stream="comm", group=0)
    maker.op("k", 1.0, {"link": 1.0})
    timeline = simulate(maker.plan())
    names = [timeline.ops[o].name for o in timeline.spans.op]
    assert sorted((names[i], r, x) for i, r, x in timeline.contended) == [
        ("k", 0, 2.0), ("meet0", 0, 2.0), ("meet1", 0, 2.0),
    ]  # fmt: skip


def test_ops_of_no_duration():
    """Barriers: they take no time, alone or on a full resource, but still keep order."""
    maker = PlanMaker(LINK)
    a = maker.op("a", 2.0, {"link": 1.0})
    maker.op("beside", 0.0, {"link": 1.0}, stream="comm")
    maker.op("after", 0.0, stream="copy", deps=(a,))
    maker.op("b", 1.0, stream="copy")
    assert times(simulate(maker.plan())) == {"a": (0, 2), "beside": (0, 0), "after": (2, 2), "b": (2, 3)}


def test_rendezvous_of_two_takes_no_resource_while_it_waits():
    """Rank 0 is there at 0, rank 1 at 3; until then a copy has the link to itself."""
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2,))
    maker.op("meet0", 1.0, {"link": 1.0}, stream="comm", group=0, latency=0.5)
    maker.op("copy", 3.0, {"link": 1.0}, stream="copy")
    first = maker.op("work", 3.0, rank=1)
    maker.op("meet1", 1.0, {"link": 1.0}, rank=1, stream="comm", deps=(first,), group=0, latency=0.5)
    done = times(simulate(maker.plan()))
    assert done["copy"] == (0.0, 3.0)
    assert done["meet0"] == done["meet1"] == (3.0, 4.5)


def test_rendezvous_waits_for_the_last():
    maker = PlanMaker(LINK, ranks=3, group_sizes=(3,))
    for rank, work in enumerate((1.0, 4.0, 2.0)):
        first = maker.op(f"work{rank}", work, rank=rank)
        maker.op(f"meet{rank}", 1.0, {"link": 1.0}, rank=rank, stream="comm", deps=(first,), group=0)
    timeline = simulate(maker.plan())
    done = times(timeline)
    assert [done[f"meet{r}"] for r in range(3)] == [(4.0, 5.0)] * 3
    spans = timeline.spans
    names = [timeline.ops[o].name for o in spans.op]
    last = names.index("meet1")
    assert spans.peer[last] == -1
    for name, ready in (("meet0", 1.0), ("meet2", 2.0)):
        i = names.index(name)
        assert (spans.ready[i], spans.cause[i], spans.peer[i]) == (ready, CAUSE_DEPENDENCY, last)


def test_tokens_take_the_most_recent_signal():
    maker = PlanMaker(LINK)
    maker.op("old", 1.0, signals=("x",))
    maker.op("new", 5.0, stream="comm", signals=("x",))
    maker.op("waits", 1.0, stream="copy", waits=("x",))
    assert times(simulate(maker.plan()))["waits"] == (5.0, 6.0)


def test_causes_of_stream_and_dependency():
    maker = PlanMaker(LINK)
    a = maker.op("a", 1.0)
    maker.op("b", 1.0)
    maker.op("c", 1.0, stream="comm", deps=(a,))
    spans = simulate(maker.plan()).spans
    cause = {int(o): (int(c), int(s)) for o, c, s in zip(spans.op, spans.cause, spans.cause_span, strict=True)}
    assert cause == {0: (CAUSE_NONE, -1), 1: (CAUSE_STREAM, 0), 2: (CAUSE_DEPENDENCY, 0)}


def test_microbatches_repeat_the_block_in_order():
    maker = PlanMaker(LINK)
    maker.op("a", 1.0)
    spans = simulate(maker.plan(repeat=3)).spans
    assert spans.microbatch.tolist() == [0, 1, 2]
    assert spans.start.tolist() == [0.0, 1.0, 2.0]


def test_nothing_to_do():
    timeline = simulate(PlanMaker(LINK).plan())
    assert (timeline.makespan, len(timeline.spans.op)) == (0.0, 0)


def test_makespan_is_the_last_end_though_stale_timers_run_on():
    """b slows a down; when b ends early a speeds up, and the timer for its slow end fires for nothing."""
    maker = PlanMaker(LINK)
    maker.op("a", 1.0, {"link": 1.0})
    maker.op("b", 0.1, {"link": 1.0}, stream="comm")
    timeline = simulate(maker.plan())
    assert timeline.makespan == pytest.approx(1.1, rel=1e-12)
    assert timeline.makespan == timeline.spans.end.max()


def test_progress_is_told_from_the_start_and_never_falls():
    maker = PlanMaker(LINK)
    for i in range(100):
        maker.op(f"k{i}", 1.0, sync=True)
    told = []
    simulate(maker.plan(repeat=50), told.append)
    assert told == [0, 1000, 2000, 3000, 4000, 5000], "every thousand spans"


def test_who_asks_for_nothing_is_not_slowed():
    """a and b share the link; z lists it with a load of nothing, so it is as fast as ever."""
    maker = PlanMaker(LINK)
    maker.op("a", 2.0, {"link": 1.0})
    maker.op("b", 2.0, {"link": 1.0}, stream="copy")
    maker.op("z", 2.0, {"link": 0.0}, stream="comm")
    assert times(simulate(maker.plan())) == {"a": (0.0, 4.0), "b": (0.0, 4.0), "z": (0.0, 2.0)}


def test_a_little_too_much_is_too_much():
    """Two loads of 0.5005 ask for 1.001 of the link: 1.001 times as long."""
    maker = PlanMaker(LINK)
    maker.op("a", 1.0, {"link": 0.5005})
    maker.op("b", 1.0, {"link": 0.5005}, stream="comm")
    assert simulate(maker.plan()).makespan == pytest.approx(1.001, rel=1e-12)


def test_room_does_not_leak_however_many_come_and_go():
    """One op of load 0.5 all along, 500 more of 0.5 in turn beside it: the link is never asked for more than it has."""
    maker = PlanMaker(LINK)
    maker.op("long", 500.0, {"link": 0.5})
    for i in range(500):
        maker.op(f"k{i}", 1.0, {"link": 0.5}, stream="comm")
    timeline = simulate(maker.plan())
    assert (timeline.solves, timeline.makespan) == (0, 500.0)


def test_one_solve_an_instant():
    """Four equal flows come at the same instant by events of their own, and go together: one solve, at a quarter."""
    streams = ("a", "b", "c", "d")
    maker = PlanMaker(LINK, streams=streams)
    for name in streams:
        maker.op(f"wait {name}", 1.0, stream=name)
        maker.op(name, 1.0, {"link": 1.0}, stream=name)
    timeline = simulate(maker.plan())
    assert (timeline.solves, timeline.makespan) == (1, 5.0)


def test_only_the_touched_component_is_solved(monkeypatch):
    """Two full links that share no activity: a change on one never brings the other's two flows into a solve."""
    sizes = []
    solve = sharing.max_min

    def counted(loads, weights):
        sizes.append(len(loads))
        return solve(loads, weights)

    monkeypatch.setattr(sharing, "max_min", counted)
    maker = PlanMaker(LINK, streams=("a", "b", "c", "d"))
    for i in range(10):
        maker.op(f"a{i}", 1.0 + i / 7, {"link": 1.0}, stream="a")
        maker.op(f"b{i}", 1.0 + i / 11, {"link": 1.0}, stream="b")
    maker.op("wait", 0.123, stream="c")
    for i in range(10):
        maker.op(f"c{i}", 1.0 + i / 13, {"other": 1.0}, stream="c")
        maker.op(f"d{i}", 1.0 + i / 17, {"other": 1.0}, stream="d")
    simulate(maker.plan())
    assert len(sizes) > 20
    assert max(sizes) == 2


def test_microbatches_are_the_plan_s_not_a_count_of_actions():
    maker = PlanMaker(LINK)
    maker.op("a", 1.0)
    plan = maker.plan()
    plan = replace(plan, ranks=(replace(plan.ranks[0], actions=((0, 7), (0, 3))),))
    spans = simulate(plan).spans
    assert (spans.microbatch.tolist(), spans.action.tolist()) == ([7, 3], [0, 1])


def test_room_booked_through_a_latency_is_given_to_who_comes_first():
    """late waits 2 s of latency; now takes the link from 1 to 3. From 2 both have half: now has 1 s left, ends at 4.

    By then late has had 1 s of its 3, and the link to itself for the other 2: it ends at 6. Slowed: 2 s each.
    """
    maker = PlanMaker(LINK)
    maker.op("late", 3.0, {"link": 1.0}, latency=2.0)
    maker.op("wait", 1.0, stream="comm")
    maker.op("now", 2.0, {"link": 1.0}, stream="comm")
    timeline = simulate(maker.plan())
    done = times(timeline)
    assert (done["late"], done["now"]) == ((0.0, 6.0), (1.0, 4.0))
    assert sorted((timeline.ops[timeline.spans.op[i]].name, r, x) for i, r, x in timeline.contended) == [
        ("late", 0, 2.0), ("now", 0, 2.0),
    ]  # fmt: skip


def test_all_that_was_booked_on_a_link_waits_its_own_latency():
    """Half the link is booked from 3 and half from 2 when now, at 1, takes all of it for 4 s.

    [2,3] now and second at 2/3: 7/3 and 1/3 s left. [3,11/3] all at 1/2: second ends, now has 2, first 8/3. Then 2/3:
    now ends at 11/3 + 3, when first has 2/3 left, alone.
    """
    maker = PlanMaker(LINK, streams=("a", "b", "c"))
    maker.op("first", 3.0, {"link": 0.5}, stream="a", latency=3.0)
    maker.op("second", 1.0, {"link": 0.5}, stream="b", latency=2.0)
    maker.op("wait", 1.0, stream="c")
    maker.op("now", 4.0, {"link": 1.0}, stream="c")
    done = times(simulate(maker.plan()))
    assert [done[n][1] for n in ("second", "now", "first")] == pytest.approx([11 / 3, 20 / 3, 22 / 3], rel=1e-12)


def test_what_was_booked_and_undone_is_room_again():
    """now undoes the booking of late at 0.5 (one solve) and has gone when late comes, who then has all the room."""
    maker = PlanMaker(LINK, streams=("a", "b", "c"))
    maker.op("all along", 9.0, {"link": 0.1}, stream="a")
    maker.op("late", 1.0, {"link": 0.6}, stream="b", latency=2.0)
    maker.op("wait", 0.5, stream="c")
    maker.op("now", 1.0, {"link": 0.6}, stream="c")
    timeline = simulate(maker.plan())
    assert (times(timeline)["late"], timeline.solves, len(timeline.contended)) == ((0.0, 3.0), 1, 0)


@pytest.mark.parametrize("latency", [0.0, 1.0])
@pytest.mark.parametrize("beside", [0.0, 1.0])
def test_several_kernels_end_no_earlier_than_their_launches(latency, beside):
    """Four kernels of 0.1 s, one launched every 2 s: the first at 2, the last at 8, its end 6.1 s after the first.

    A latency before it changes nothing of that, nor does another op that the link has room for.
    """
    maker = PlanMaker(LINK)
    maker.op("run", 0.4, {"link": 0.5}, latency=latency, launch=2.0, launch_rest=6.0, reach=6.1, kernels=4)
    maker.op("next", 1.0, launch=2.0)
    maker.op("other", 100.0, {"link": 0.5 * beside}, stream="comm")
    done = times(simulate(maker.plan()))
    assert done["run"] == (2.0, pytest.approx(8.1, rel=1e-12))
    assert done["next"] == (10.0, 11.0), "its launch follows the four"


def test_kernels_that_wait_for_launches_take_less_of_what_they_share():
    """Four kernels of 0.1 s launched every 2 s beside one of 6 s: one by one they end at 8.1 and 6.3 s.

    As one op they have their average load, 0.4 s in 6.1 s: both a little slower at once, not each at half speed.
    """
    maker = PlanMaker(LINK)
    maker.op("other", 6.0, {"link": 1.0}, stream="comm")
    maker.op("run", 0.4, {"link": 1.0}, launch=2.0, launch_rest=6.0, reach=6.1, kernels=4)
    done = times(simulate(maker.plan()))
    assert done["run"][1] == pytest.approx(8.1, rel=0.05)
    assert done["other"][1] == pytest.approx(6.3, rel=0.05)


def test_kernels_that_are_not_held_up_take_their_own_time():
    """Launched at 2, behind an op that ends at 50: every launch is over, and the run takes its 0.4 s."""
    maker = PlanMaker(LINK)
    maker.op("before", 50.0)
    maker.op("run", 0.4, launch=2.0, launch_rest=6.0, reach=6.1, kernels=4)
    assert times(simulate(maker.plan()))["run"] == (50.0, 50.4)


def test_each_kernel_takes_a_place_in_the_launch_queue():
    """A queue of 4 holds one run of 4: the op after it is launched as the run ends, at 5, beside nothing else."""
    maker = PlanMaker(LINK, launch_queue=4)
    maker.op("run", 5.0, kernels=4)
    maker.op("late", 1.0, stream="comm")
    assert times(simulate(maker.plan()))["late"] == (5.0, 6.0)
    maker.launch_queue = 5
    assert times(simulate(maker.plan()))["late"] == (0.0, 1.0)
