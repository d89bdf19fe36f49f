"""Properties of whole simulations on random plans."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import PlanMaker

from sim.engine import core
from sim.engine.core import simulate

ROOT = Path(__file__).parent.parent
RESOURCES = ("r0", "r1", "r2", "r3")
STREAMS = ("compute", "comm", "copy")


@st.composite
def programs(draw):
    """Ops of one to three ranks; collectives are issued in the same order everywhere, so nothing can deadlock."""
    ranks = draw(st.integers(1, 3))
    ops = []
    for _ in range(draw(st.integers(1, 12))):
        share = draw(st.dictionaries(st.sampled_from(RESOURCES), st.floats(0.1, 1.0), max_size=3))
        op = {
            "duration": draw(st.floats(0.1, 5.0)), "loads": share, "latency": draw(st.sampled_from([0.0, 0.3])),
            "launch": draw(st.sampled_from([0.0, 0.2])), "weight": draw(st.sampled_from([1.0, 8.0])),
            "stream": draw(st.sampled_from(STREAMS)), "back": draw(st.integers(0, 3)), "sync": draw(st.booleans()),
            "together": draw(st.booleans()),
        }  # fmt: skip
        ops.append(op)
    return ranks, ops


def build(program, k=1.0, names=RESOURCES, order=None):
    ranks, ops = program
    together = ranks > 1 and [i for i, op in enumerate(ops) if op["together"]]
    maker = PlanMaker(dict.fromkeys(names, 1.0), ranks=ranks, streams=STREAMS, group_sizes=(ranks,) if together else ())
    for rank in order or range(ranks):
        for i, op in enumerate(ops):
            joint = bool(together) and i in together
            maker.op(
                f"{i}@{rank}", op["duration"] * k, op["loads"], rank=rank, stream="comm" if joint else op["stream"],
                latency=op["latency"] * k, launch=op["launch"] * k, weight=op["weight"], sync=op["sync"],
                deps=(i - op["back"],) if 0 < op["back"] <= i else (), group=0 if joint else -1,
            )  # fmt: skip
    return maker.plan(repeat=2)


def by_name(timeline):
    spans = timeline.spans
    return {
        (timeline.ops[o].name, int(mb)): (float(a), float(b))
        for o, mb, a, b in zip(spans.op, spans.microbatch, spans.start, spans.end, strict=True)
    }


@given(programs())
@settings(max_examples=60, deadline=None)
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
@settings(max_examples=60, deadline=None)
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
@settings(max_examples=40, deadline=None)
def test_scaling_all_times_scales_the_step(program, k):
    one, scaled = simulate(build(program)), simulate(build(program, k))
    assert scaled.makespan == pytest.approx(one.makespan * k, rel=1e-9)


@given(programs(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_numbering_changes_nothing(program, random):
    names = list(RESOURCES)
    random.shuffle(names)
    order = list(range(program[0]))
    random.shuffle(order)
    one, other = by_name(simulate(build(program))), by_name(simulate(build(program, names=tuple(names), order=order)))
    for key, (start, end) in one.items():
        assert other[key] == pytest.approx((start, end), rel=1e-9, abs=1e-9)


def test_same_bytes_under_another_hash_seed():
    """A contended, launched, joint plan in two processes with different hash seeds: identical columns."""
    code = (
        "import sys, hashlib; sys.path[:0] = ['.', 'tests']\n"
        "from plans import PlanMaker\nfrom sim.engine.core import simulate\n"
        "m = PlanMaker({'a': 1.0, 'b': 1.0}, ranks=2, group_sizes=(2,))\n"
        "for r in range(2):\n"
        "    for i in range(20):\n"
        "        m.op(f'k{i}', 1.0 + i / 7, {'a': 0.7, 'b': 0.4}, rank=r, launch=0.1)\n"
        "        m.op(f'c{i}', 0.9, {'b': 0.8}, rank=r, stream='comm', latency=0.01, group=0)\n"
        "s = simulate(m.plan(3)).spans\n"
        "print(hashlib.sha256(b''.join(getattr(s, n).tobytes() for n in s.__slots__)).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }  # fmt: skip
    assert len(said) == 1


@given(programs())
@settings(max_examples=40, deadline=None)
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
@settings(max_examples=40, deadline=None)
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
