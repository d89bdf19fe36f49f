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

SHARED, OWN, RANKS = ("r0", "r1", "r2"), "own", 3
RESOURCES = (*SHARED, *(f"{OWN}{rank}" for rank in range(RANKS)))
MORE = (*RESOURCES, f"{OWN}{RANKS}")
STREAMS = ("compute", "comm", "copy")
PACES = (1.0, 0.7, 1.9, 1.2)  # no two ranks are equally fast, so that some always wait at a rendezvous


@st.composite
def programs(draw):
    """Ops of one to three unlike ranks, some of them together; the order is one everywhere: nothing can deadlock."""
    ranks = draw(st.integers(1, RANKS))
    ops = []
    for _ in range(draw(st.integers(1, 12))):
        load = st.floats(0.1, 1.0) | st.floats(1.0, 4.0)
        members = draw(st.sets(st.integers(0, ranks - 1), min_size=1)) | {0}
        op = {
            "duration": draw(st.floats(0.1, 5.0) | st.just(0.0)), "members": sorted(members),
            "loads": draw(st.dictionaries(st.sampled_from((*SHARED, OWN)), load, max_size=3)),
            "latency": draw(st.sampled_from([0.0, 0.3, 2.0])), "launch": draw(st.sampled_from([0.0, 0.2])),
            "token": draw(st.sampled_from(["", "", "gives", "takes"])), "weight": draw(st.sampled_from([1.0, 8.0])),
            "stream": draw(st.sampled_from(STREAMS)), "back": draw(st.integers(0, 3)), "sync": draw(st.booleans()),
            "together": draw(st.booleans()) and len(members) > 1, "kernels": draw(st.sampled_from([1, 1, 1, 3])),
        }  # fmt: skip
        ops.append(op)
    return ranks, ops


@st.composite
def chained_programs(draw):
    """Long runs of ops that follow each other, as a layer's do, with here and there something that breaks in."""
    ranks, ops = draw(st.integers(1, 2)), []
    chained = draw(st.sampled_from([(OWN,), ("r0", OWN), ("r0", "r1", OWN)]))
    launches = draw(st.sampled_from([[0.0], [0.0, 0.2, 0.9]]))  # a host far ahead, or one that is waited for
    for _ in range(draw(st.integers(5, 30))):
        odd = draw(st.integers(0, 5)) == 0
        shares = [0.1, 0.4] if odd else [0.4, 1.0]
        members = sorted(draw(st.sets(st.integers(0, ranks - 1), min_size=1)))
        op = {
            "duration": draw(st.sampled_from([0.0, 0.2, 1.0, 2.5])), "members": members,
            "loads": draw(st.dictionaries(st.sampled_from(chained), st.sampled_from(shares), max_size=2)),
            "latency": draw(st.sampled_from([0.0, 0.0, 0.3])), "launch": draw(st.sampled_from(launches)),
            "token": draw(st.sampled_from(["gives", "takes"])) if odd else "",
            "weight": draw(st.sampled_from([1.0, 8.0])) if odd else 1.0,
            "stream": draw(st.sampled_from(STREAMS[:2])), "back": 0 if odd else 1, "sync": odd and draw(st.booleans()),
            "together": odd and len(members) > 1, "kernels": draw(st.sampled_from([1, 1, 1, 3])),
        }  # fmt: skip
        ops.append(op)
    return ranks, ops


@st.composite
def layers_and_messages(draw):
    """Layer passes of two ranks, each as a chain, and messages between them that take a part of what the chains use."""
    ops = []

    def add(**said):
        ops.append({
            "members": [0, 1], "latency": 0.0, "launch": launch, "token": "", "weight": 1.0, "stream": "compute",
            "back": 0, "sync": False, "together": False, "kernels": 1, **said,
        })  # fmt: skip

    launch = draw(st.sampled_from([0.0, 0.0, 0.1]))
    posted_by = draw(st.sampled_from([None, 0, 1]))  # whose part of a message is a receive: it waits for nothing
    for _ in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0, 2))):
            add(
                loads=draw(st.dictionaries(st.sampled_from(("r0", OWN)), st.sampled_from([0.1, 0.4, 0.7]), min_size=1)),
                duration=draw(st.floats(0.1, 6.0)), latency=draw(st.sampled_from([0.0, 0.3])), together=True,
                weight=draw(st.sampled_from([8.0, 8.0, 1.0])), back=draw(st.integers(0, 2)),
                posted_by=posted_by,
            )  # fmt: skip
        for _ in range(draw(st.integers(3, 6))):
            loads = draw(st.sampled_from([{OWN: 1.0}, {OWN: 1.0, "r0": 0.2}, {OWN: 0.5}]))
            add(loads=loads, duration=draw(st.floats(0.1, 3.0)), latency=draw(st.sampled_from([0.0, 0.0, 0.4])), back=1)
    return 2, ops


@st.composite
def tensor_parallel(draw):
    """Layer passes of two groups of two ranks that meet after each part of a layer, and messages from one to the other.

    Mostly the ranks of a group are in step, and so are their messages; now and then one is slower, or has a message of
    its own, or a part is taken of what both groups use.
    """
    ops, pairs = [], ([0, 1], [2, 3])

    def add(members, **said):
        ops.append({
            "members": members, "latency": 0.0, "launch": launch, "token": "", "weight": 1.0, "stream": "compute",
            "back": 1, "sync": False, "together": False, "kernels": 1, **said,
        })  # fmt: skip

    launch = draw(st.sampled_from([0.0, 0.1, 0.4]))
    slow = draw(st.sampled_from([None, None, None, 1, 3]))
    posted = draw(st.booleans())
    shared = draw(st.sampled_from([{}, {}, {"r1": 0.3}]))
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from([0.2, 1.0, 4.0]))
        taken, weight = draw(st.sampled_from([0.1, 0.4, 0.7])), draw(st.sampled_from([8.0, 8.0, 1.0]))
        for pair in draw(st.sampled_from([((0, 2), (1, 3)), ((0, 2), (1, 3)), ((1, 3),), ()])):
            late = draw(st.sampled_from([0.0, 0.0, 0.0, 0.3]))
            add(list(pair), duration=size, latency=0.2 + late, loads={OWN: taken}, weight=weight, together=True,
                apart="copy", posted_by=pair[1] if posted else None, back=draw(st.integers(1, 3)))  # fmt: skip
        for group in pairs if draw(st.booleans()) else ():  # waits for an exchange within the pass before
            add(group, duration=0.2, loads={OWN: draw(st.sampled_from([0.2, 0.7]))}, stream="comm", back=0,
                weight=draw(st.sampled_from([1.0, 8.0])), together=draw(st.booleans()),
                sync=draw(st.booleans()))  # fmt: skip
        for _ in range(draw(st.integers(1, 3))):
            for group in pairs:
                seconds = draw(st.sampled_from([0.5, 1.5]))
                kernels = draw(st.sampled_from([1, 1, 3]))
                loads = draw(st.sampled_from([{OWN: 1.0}, {OWN: 1.0, "r0": 0.2}, {OWN: 1.0, "r0": 0.7}]))
                add(group, duration=seconds, loads=loads, kernels=kernels, slow=slow)
                own = draw(st.sampled_from([0.2, 0.2, 0.5]))
                add(group, duration=0.4, latency=draw(st.sampled_from([0.0, 0.1])), loads={OWN: own, **shared},
                    weight=8.0, together=True, sync=draw(st.sampled_from([False, False, False, True])))  # fmt: skip
        for group in pairs:
            add(group, duration=0.3, loads={OWN: 1.0}, slow=slow)
    return 4, in_turn(ops)


def in_turn(ops):
    """The same ops, each rank's after its own last: ``back`` counts in the ops of all ranks."""
    for i, op in enumerate(ops):
        before = [j for j in range(i) if set(ops[j]["members"]) & set(op["members"])]
        op["back"] = i - before[-op["back"]] if len(before) >= op["back"] > 0 else 0
    return ops


def together(op, groups):
    """What distinguishes an op that ranks do as one activity: its rendezvous, and the same demand from everyone."""
    return {
        "stream": op.get("apart", "comm"),
        "group": groups.index(tuple(op["members"])),
        "loads": {r: x for r, x in op["loads"].items() if r != OWN}
        | ({f"{OWN}{rank}": op["loads"][OWN] for rank in op["members"]} if OWN in op["loads"] else {}),
    }


def alone(op, rank, k):
    """What distinguishes an op of one rank: its own pace and resource, and launches after the first."""
    rest = k * op["launch"] * (op["kernels"] - 1)
    duration = k * op["duration"] * (PACES[rank] if "slow" not in op else 1.3 if op["slow"] == rank else 1.0)
    return {
        "stream": op["stream"],
        "loads": {f"{OWN}{rank}" if r == OWN else r: x for r, x in op["loads"].items()},
        "duration": duration,
        "kernels": op["kernels"],
        "launch_rest": rest,
        "reach": rest + duration / op["kernels"] if op["kernels"] > 1 else 0.0,
    }


def build(program, k=1.0, names=RESOURCES, order=(0, 1, 2), launch_queue=1024):
    """The plan, the ranks of the program in this ``order``; all times ``k`` times as long."""
    ranks, ops = program
    groups = list(dict.fromkeys(tuple(op["members"]) for op in ops if op["together"]))
    maker = PlanMaker(
        dict.fromkeys(names, 1.0), ranks=ranks, streams=STREAMS, group_sizes=tuple(len(g) for g in groups),
        launch_queue=launch_queue,
    )  # fmt: skip
    place = {rank: n for n, rank in enumerate(r for r in order if r < ranks)}
    for rank, number in place.items():
        local, given = {}, False
        for i, op in enumerate(ops):
            if rank not in op["members"]:
                continue
            kind = together(op, groups) if op["together"] else alone(op, rank, k)
            local[i] = maker.op(
                f"{i}@{rank}", rank=number, latency=op["latency"] * k, launch=op["launch"] * k,
                weight=op["weight"], sync=op["sync"],
                deps=(local[i - op["back"]],) if i - op["back"] in local and rank != op.get("posted_by") else (),
                signals=("x",) if op["token"] == "gives" else (),
                waits=("x",) if op["token"] == "takes" and given else (),
                **({"duration": op["duration"] * k} | kind),
            )  # fmt: skip
            given = given or op["token"] == "gives"
    return maker.plan(repeat=2)


class Meter(core.Engine):
    """The engine, and beside it a meter of its own: who runs when at which speed, and what flowed in between."""

    def __init__(self, plan):
        super().__init__(plan, None)
        self.flowing = {}  # run -> [seconds at full speed so far, asked, since]
        self.clock = 0.0
        self.certify = lambda runs: None
        self.delivered = []

    def _lay(self, run, now):
        return False  # one event after another; that laying out changes nothing is a test of its own

    def _start(self, run, begin):
        asked = run.op.duration
        if run.op.reach > 0.0:
            asked = max(asked, run.launched + run.op.reach - begin)
        self.flowing[run] = [0.0, asked, begin]

    def _latency(self, run, now):
        super()._latency(run, now)
        if getattr(run, "end_event", None) is run:  # booked
            self._start(run, run.last)

    def _demand(self, run, now):
        self._flow()
        super()._demand(run, now)
        self._start(run, now)

    def _solve(self, timer):
        self._flow()
        super()._solve(timer)

    def _finish(self, run):
        self._flow()
        got, asked, _ = self.flowing.pop(run)
        self.delivered.append((got, asked))
        super()._finish(run)

    def _flow(self):
        """Everyone flowed at its speed since speeds or members last changed."""
        now = self.env.now
        running = [run for run, (_, _, since) in self.flowing.items() if since < now]
        if now > self.clock:
            begins = [self.clock, *(self.flowing[run][2] for run in running)]
            for begin in (b for b in begins if b >= self.clock):
                self.certify([run for run in running if self.flowing[run][2] <= begin])
        for run in running:
            self.flowing[run][0] += (now - max(self.clock, self.flowing[run][2])) * run.speed
        self.clock = now


def by_name(timeline):
    spans = timeline.spans
    return {
        (timeline.ops[o].name, int(mb)): (float(a), float(b))
        for o, mb, a, b in zip(spans.op, spans.microbatch, spans.start, spans.end, strict=True)
    }


@given(programs())
@settings(max_examples=25, deadline=None)
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
@settings(max_examples=25, deadline=None)
def test_makespan_is_at_least_the_busiest_resource(program):
    """What all activities ask of a resource in all cannot be delivered in less time than it takes at full capacity."""
    timeline = simulate(build(program))
    use = defaultdict(float)
    for o, peer in zip(timeline.spans.op.tolist(), timeline.spans.peer.tolist(), strict=True):
        if peer < 0:  # a collective is one activity that every member records; the last to come waited for nobody
            for r, amount in timeline.ops[o].demands:
                use[r] += amount
    assert all(total <= timeline.makespan * (1 + 1e-9) for total in use.values())


@given(programs(), st.sampled_from([0.01, 3.0, 1000.0]))
@settings(max_examples=25, deadline=None)
def test_scaling_all_times_scales_the_step(program, k):
    one, scaled = simulate(build(program)), simulate(build(program, k))
    assert scaled.makespan == pytest.approx(one.makespan * k, rel=1e-9)
    after = by_name(scaled)
    for key, (start, end) in by_name(one).items():
        assert after[key] == pytest.approx((start * k, end * k), rel=1e-9, abs=1e-9 * k)


@given(programs(), st.permutations(RESOURCES), st.permutations(range(RANKS)), st.sampled_from([2, 1024]))
@settings(max_examples=25, deadline=None)
def test_numbering_changes_nothing(program, names, order, queue):
    one = by_name(simulate(build(program, launch_queue=queue)))
    other = by_name(simulate(build(program, names=tuple(names), order=order, launch_queue=queue)))
    assert one.keys() == other.keys()
    for key, times in one.items():
        assert other[key] == pytest.approx(times, rel=1e-9, abs=1e-9)


def assert_max_min(runs):
    """No resource above capacity; whoever is below full speed crosses a full one where nobody has more by weight."""
    used, level = defaultdict(float), defaultdict(float)
    for run in runs:
        for r, load in run.loads:
            used[r] += load * run.speed
            level[r] = max(level[r], run.speed / run.op.weight)
    assert all(total <= 1.0 + 2e-9 for total in used.values()), "nothing gives more than it has"
    for run in runs:
        if run.speed < 1.0 - 1e-9:
            full = [r for r, _ in run.loads if used[r] >= 1.0 - 1e-9]
            assert any(run.speed / run.op.weight >= level[r] * (1 - 1e-9) for r in full), "its bottleneck"


@given(programs())
@settings(max_examples=25, deadline=None)
def test_speeds_are_max_min_fair_all_the_time(program):
    """The certificate of the pure function, in every interval of a simulation: nobody is left out of a solve."""
    meter = Meter(build(program))
    meter.certify = assert_max_min
    meter.run()


@given(programs())
@settings(max_examples=25, deadline=None)
def test_every_op_gets_exactly_what_it_asked_for(program):
    """The integral of an op's speed over its life, kept outside the engine, is its demand, however often slowed."""
    plan = build(program)
    meter = Meter(plan)
    timeline = meter.run()
    assert len(meter.delivered) == (timeline.spans.peer < 0).sum(), "every activity was seen"
    for got, asked in meter.delivered:
        assert got == pytest.approx(asked, rel=1e-9, abs=1e-9)


@given(programs(), st.sampled_from([1, 2, 3, 8, 1024]))
@settings(max_examples=25, deadline=None)
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
@settings(max_examples=25, deadline=None)
def test_makespan_is_at_least_the_longest_path(program):
    """Orders are fixed, so slower ops only ever push later ones back: full speed for all is a lower bound."""
    plan = build(program)
    longest = max(end for *_, end in Reference(plan, contended=False).run().values())
    assert simulate(plan).makespan >= longest * (1 - 1e-9)


@given(programs(), st.sampled_from([1, 3, 1024]))
@settings(max_examples=25, deadline=None)
def test_causes_leave_no_gap(program, launch_queue):
    """What made a span ready ended, or launched it, at that very time; and contended seconds fit into the span."""
    plan = build(program, launch_queue=launch_queue)
    timeline = simulate(plan)
    spans = timeline.spans
    rank = np.array([timeline.ops[o].rank_class for o in spans.op])
    ops = {op.row: op for r in plan.ranks for block in r.blocks for op in block}
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
        op = ops[spans.op[span]]
        pull = spans.launched[span] + op.reach - begin - op.latency if op.reach else 0.0
        if end - begin > (op.latency + max(op.duration, pull)) * (1 + 1e-9) + 1e-9:
            assert slowed[span] > 0.0, "nothing is slow without a reason"


class OneByOne(core.Engine):
    """The engine without chains laid out: one event after another."""

    def _lay(self, run, now):
        return False

    def _lay_together(self, chains, now):
        return False


@given(chained_programs() | layers_and_messages() | tensor_parallel(), st.sampled_from([2, 5, 1024]))
@settings(max_examples=150, deadline=None)
def test_laying_out_a_chain_changes_nothing(program, launch_queue):
    """Every column of every span: when, why, after which, and who waited for whom, to the last bit but rounding's."""
    plan = build(program, names=MORE, order=(0, 1, 2, 3), launch_queue=launch_queue)
    laid, single = simulate(plan), OneByOne(plan, None).run()
    ours, theirs = spans_by_op(laid), spans_by_op(single)
    assert ours.keys() == theirs.keys()
    for key, (times, why) in theirs.items():
        assert ours[key][0] == pytest.approx(times, rel=1e-9, abs=1e-12), key
        assert ours[key][1] == why or (happens(ours, key) and happens(theirs, key)), key
    contended = [sum(seconds for *_, seconds in t.contended) for t in (laid, single)]
    assert contended[0] == pytest.approx(contended[1], rel=1e-9, abs=1e-12)


def happens(spans, key):
    """Whether what made a span ready came at that very instant: of two things that did, either may be named."""
    (launched, ready, *_), (cause, by, _) = spans[key]
    came = launched if cause == CAUSE_LAUNCH else spans[by][0][3] if by else 0.0
    return came == pytest.approx(ready, rel=1e-9, abs=1e-9)


def spans_by_op(timeline):
    spans = timeline.spans
    keys = list(zip(spans.op.tolist(), spans.action.tolist(), strict=True))
    told = [None, *keys]  # -1 is nobody
    times = zip(spans.launched, spans.ready, spans.start, spans.end, strict=True)
    # of members that come at one instant either may be the last: nobody waited
    peers = [p if p >= 0 and spans.ready[p] > r + 1e-9 else -1 for p, r in zip(spans.peer, spans.ready, strict=True)]
    links = zip(spans.cause, spans.cause_span, peers, strict=True)
    return {
        key: (tuple(map(float, row)), (int(cause), told[by + 1], told[peer + 1]))
        for key, row, (cause, by, peer) in zip(keys, times, links, strict=True)
    }
