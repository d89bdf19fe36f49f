"""Properties of whole simulations on random plans."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import PlanMaker
from reference_engine import Reference

from sim.engine import core
from sim.engine.core import simulate
from sim.timeline.columns import CAUSE_LAUNCH, CAUSE_NONE, CAUSE_STREAM

RESOURCES = ("r0", "r1", "r2", "r3")
STREAMS = ("compute", "comm", "copy")


@st.composite
def programs(draw):
    """Ops of one to three ranks; collectives are issued in the same order everywhere, so nothing can deadlock."""
    ranks = draw(st.integers(1, 3))
    ops = []
    for _ in range(draw(st.integers(1, 12))):
        load = st.floats(0.1, 1.0) | st.floats(1.0, 4.0)
        share = draw(st.dictionaries(st.sampled_from(RESOURCES), load, max_size=3))
        op = {
            "duration": draw(st.floats(0.1, 5.0) | st.just(0.0)), "loads": share,
            "latency": draw(st.sampled_from([0.0, 0.3])), "launch": draw(st.sampled_from([0.0, 0.2])),
            "token": draw(st.sampled_from(["", "", "gives", "takes"])), "weight": draw(st.sampled_from([1.0, 8.0])),
            "stream": draw(st.sampled_from(STREAMS)), "back": draw(st.integers(0, 3)), "sync": draw(st.booleans()),
            "together": draw(st.booleans()),
        }  # fmt: skip
        ops.append(op)
    return ranks, ops


def build(program, k=1.0, names=RESOURCES, order=None, launch_queue=1024):
    ranks, ops = program
    together = ranks > 1 and [i for i, op in enumerate(ops) if op["together"]]
    maker = PlanMaker(dict.fromkeys(names, 1.0), ranks=ranks, streams=STREAMS, group_sizes=(ranks,) if together else ())
    maker.launch_queue = launch_queue
    for rank in order or range(ranks):
        for i, op in enumerate(ops):
            joint = bool(together) and i in together
            maker.op(
                f"{i}@{rank}", op["duration"] * k, op["loads"], rank=rank, stream="comm" if joint else op["stream"],
                latency=op["latency"] * k, launch=op["launch"] * k, weight=op["weight"], sync=op["sync"],
                deps=(i - op["back"],) if 0 < op["back"] <= i else (), group=0 if joint else -1,
                signals=("x",) if op["token"] == "gives" else (),
                waits=("x",) if op["token"] == "takes" and any(o["token"] == "gives" for o in ops[:i]) else (),
            )  # fmt: skip
    return maker.plan(repeat=2)


def by_name(timeline):
    spans = timeline.spans
    return {
        (timeline.ops[o].name, int(mb)): (float(a), float(b))
        for o, mb, a, b in zip(spans.op, spans.microbatch, spans.start, spans.end, strict=True)
    }


@given(programs())
@settings(max_examples=30, deadline=None)
def test_order_and_conservation(program):
    plan = build(program)
    timeline = simulate(plan)
    spans = timeline.spans
    assert len(spans.op) == sum(len(r.blocks[b]) for r in plan.ranks for b, _ in r.actions), "every op ran once"
    assert (spans.ready <= spans.start).all()
    lanes = defaultdict(list)
    for i, o in enumerate(spans.op.tolist()):
        op = timeline.ops[o]
        assert spans.end[i] - spans.start[i] >= op.latency + op.duration - 1e-9, "nothing beats full speed"
        assert spans.ready[i] >= spans.launched[i] - 1e-12
        lanes[op.rank_class, op.stream].append(i)
        if spans.cause_span[i] >= 0:
            assert spans.end[spans.cause_span[i]] <= spans.ready[i] + 1e-12
    for lane in lanes.values():
        begin, end = spans.start[lane], spans.end[lane]
        order = np.argsort(begin, kind="stable")
        assert (begin[order][1:] >= end[order][:-1] - 1e-12).all(), "a stream never does two things at once"
        busy = (end - begin).sum()
        idle = (begin[order] - np.concatenate([[0.0], end[order][:-1]])).sum() + timeline.makespan - end.max()
        assert busy + idle == pytest.approx(timeline.makespan, rel=1e-9)
    assert timeline.makespan == spans.end.max()


@given(programs())
@settings(max_examples=30, deadline=None)
def test_makespan_is_at_least_the_busiest_resource(program):
    """What all activities ask of a resource in all cannot be delivered in less time than it takes at full capacity."""
    plan = build(program)
    timeline = simulate(plan)
    use = defaultdict(float)
    for o in timeline.spans.op.tolist():
        for r, amount in timeline.ops[o].demands:
            use[r] += amount
    # a collective is one activity that every rank records: count it once
    ranks = len(plan.ranks)
    if plan.group_sizes:
        joint = [p for b in plan.ranks[0].blocks for p in b if p.group >= 0]
        for p in joint:
            for r, amount in timeline.ops[p.row].demands:
                use[r] -= amount * (ranks - 1) * 2
    assert all(total <= timeline.makespan * (1 + 1e-9) for total in use.values()), "makespan >= the busiest resource"


@given(programs(), st.sampled_from([0.01, 3.0, 1000.0]))
@settings(max_examples=30, deadline=None)
def test_scaling_all_times_scales_the_step(program, k):
    one, scaled = simulate(build(program)), simulate(build(program, k))
    assert scaled.makespan == pytest.approx(one.makespan * k, rel=1e-9)


@given(programs(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_numbering_changes_nothing(program, random):
    names = list(RESOURCES)
    random.shuffle(names)
    order = list(range(program[0]))
    random.shuffle(order)
    one, other = by_name(simulate(build(program))), by_name(simulate(build(program, names=tuple(names), order=order)))
    for key, (start, end) in one.items():
        assert other[key] == pytest.approx((start, end), rel=1e-9, abs=1e-9)


@given(programs())
@settings(max_examples=30, deadline=None)
def test_no_resource_above_capacity_at_any_instant(program):
    """Speeds are constant between instants: after every change, no resource gives more than it has."""
    seen = []

    class Watched(core._Engine):
        def _finish(self, run):
            super()._finish(run)
            self._look()

        def _solve(self, timer):
            super()._solve(timer)
            self._look()

        def _look(self):
            if self.dirty:  # the instant is not over: its solve is still to come
                return
            seen.extend(sum(share * run.speed for run, share in users.items()) for users in self.users)

    Watched(build(program), None).run()
    assert max(seen, default=0.0) <= 1.0 + 1e-9


@given(programs())
@settings(max_examples=30, deadline=None)
def test_every_op_gets_exactly_what_it_asked_for(program):
    """The integral of an op's speed over its life is its demand, however often it was slowed."""
    left = []

    class Watched(core._Engine):
        def _finish(self, run):
            elapsed = self.env.now - run.last
            left.append(abs(run.left - elapsed * run.speed) / max(run.op.duration, 1e-9))
            super()._finish(run)

    Watched(build(program), None).run()
    assert max(left) <= 1e-9


@given(programs(), st.sampled_from([1, 2, 3, 8, 1024]))
@settings(max_examples=30, deadline=None)
def test_same_times_as_the_reference(program, launch_queue):
    """Launched, ready, start and end of every op, as a plain simulator that shares no code says."""
    plan = build(program, launch_queue=launch_queue)
    spans = simulate(plan).spans
    keys = zip(spans.op.tolist(), spans.action.tolist(), strict=True)
    columns = zip(spans.launched, spans.ready, spans.start, spans.end, strict=True)
    said = {key: tuple(map(float, row)) for key, row in zip(keys, columns, strict=True)}
    expected = Reference(plan).run()
    assert said.keys() == expected.keys()
    for key, row in expected.items():
        assert said[key] == pytest.approx(row, rel=1e-9, abs=1e-9), key


@given(programs())
@settings(max_examples=30, deadline=None)
def test_makespan_is_at_least_the_longest_path(program):
    """Orders are fixed, so slower ops only ever push later ones back: full speed for all is a lower bound."""
    plan = build(program)
    longest = max(end for *_, end in Reference(plan, contended=False).run().values())
    assert simulate(plan).makespan >= longest * (1 - 1e-9)


@given(programs(), st.sampled_from([1, 3, 1024]))
@settings(max_examples=30, deadline=None)
def test_causes_leave_no_gap(program, launch_queue):
    """What made a span ready ended, or launched it, at that very time; and contended seconds fit into the span."""
    plan = build(program, launch_queue=launch_queue)
    timeline = simulate(plan)
    spans = timeline.spans
    rank = np.array([timeline.ops[o].rank_class for o in spans.op])
    for i, (cause, by, peer) in enumerate(zip(spans.cause, spans.cause_span, spans.peer, strict=True)):
        assert by < 0 or (by < i and rank[by] == rank[i]), "causes come before, on the same rank"
        if cause == CAUSE_NONE:
            assert (spans.ready[i], by) == (0.0, -1)
        elif cause == CAUSE_LAUNCH:
            assert spans.ready[i] == spans.launched[i]
            assert by < 0 or spans.end[by] <= spans.launched[i]
        else:
            assert spans.ready[i] == spans.end[by]
            assert cause != CAUSE_STREAM or timeline.ops[spans.op[by]].stream == timeline.ops[spans.op[i]].stream
        assert spans.start[i] == (spans.ready[peer] if peer >= 0 else spans.ready[i]), "it began when the last came"
    slowed = defaultdict(float)
    for span, _, seconds in timeline.contended:
        slowed[span] += seconds
    for span, seconds in slowed.items():
        op = timeline.ops[spans.op[span]]
        length = spans.end[span] - spans.start[span] - op.latency
        assert 0.0 < seconds <= length + 1e-9
        assert length >= op.duration - 1e-9
    for span, (begin, end) in enumerate(zip(spans.start, spans.end, strict=True)):
        op = timeline.ops[spans.op[span]]
        if end - begin > (op.latency + op.duration) * (1 + 1e-9) + 1e-9:
            assert slowed[span] > 0.0, "nothing is slow without a reason"
