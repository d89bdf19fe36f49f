"""DualPipe, simulated: bubble, parameters and activations of the paper's table, groups, and what an overlap hides.

DeepSeek-V3 report, table 2 (for p stages): bubble (p/2 - 1)(F&B + B - 3W), parameters 2x, activations p + 1. ZB-H1 and
ZB-V: Qi et al. 2023, tables 1 and 2. Stages are equal here but for a small embedding and head, messages are free, and
the times of F, I and W are those that the timeline shows.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_workload_parallel import WIDE, big, parallel

from scenarios import on
from sim.analysis.transfers import sent_bytes
from sim.api import simulate
from sim.errors import ScenarioError
from sim.spec.types import OffloadSpec, ScheduleFile, VariationSpec
from sim.workload.block import BlockBuilder
from sim.workload.build import build, schedule_of
from sim.workload.ops import Block, Collective, Kernel
from sim.workload.peak import peak
from sim.workload.schedules.csv_text import to_csv
from sim.workload.schedules.table import make
from sim.workload.units import stages
from sim.workload.weave import weave

VEE = ("zb-v", "dualpipev")


def even(schedule, p, m, *, layers, **layout):
    """Equal stages, free messages, kernels that last: a bubble is what the order makes of it."""
    v = 2 if schedule in VEE else 1
    layout = {"grad_bucket": 1e12, **layout}  # one reduction, at the end: reductions take memory bandwidth from W
    scenario = big(pp=p, accumulation=m, schedule=schedule, virtual_stages=v, **layout)
    fast = replace(scenario.cluster.nvlink, base_latency=0, step_latency=0, bandwidth=1e18)
    scenario = on(scenario, nvlink=fast, host=replace(scenario.cluster.host, launch=1e-12), sm_share=0.0)
    passes = {"vectorised": False, "fused_linear_bias": False, "scripted_gelu": True}  # I lasts about as long as F
    stack = replace(scenario.stack, fragmentation=0.0, **passes)
    precision = replace(scenario.precision, grad_comm=scenario.precision.grads)
    model = replace(scenario.model, layers=layers, vocab=16)
    return replace(scenario, model=model, stack=stack, precision=precision)


class Shown:
    """What a timeline shows of a pipeline: seconds of work and of idle by rank, until the last backward ends."""

    def __init__(self, scenario):
        self.timeline = simulate(scenario).timeline
        ops, spans = self.timeline.ops, self.timeline.spans
        phase = np.array([op.phase for op in ops])[spans.op]
        rank = np.array([self.timeline.rank_classes[op.rank_class].representative for op in ops])[spans.op]
        pipe = (np.array([op.stream for op in ops])[spans.op] == 0) & (phase != "O")
        seconds, end = spans.end - spans.start, spans.end[pipe].max()
        ranks = range(scenario.layout.pp)
        self.busy = [{p: seconds[pipe & (rank == r) & (phase == p)].sum() for p in "FBIW"} for r in ranks]
        self.idle = [end - sum(busy.values()) for busy in self.busy]


@cache
def parts(p, layers, v):
    """Seconds of F, I and W of a stage in the middle, from a schedule that splits every backward."""
    m = 8
    busy = Shown(even("zb-v" if v == 2 else "zb-h1", p, m, layers=layers)).busy[p // 2]
    return tuple(busy[phase] / (m * v) for phase in "FIW")


def bubble(schedule, p, m):
    """Simulated idle time of a middle rank in units of a stage's forward, and I and W in the same units.

    A layer is the grain of the weaving: a forward hands on its result while the last layer of the backward beside it is
    still to come. Embedding and head, too, are a share of a stage. Both effects are proportional to 1/layers, so twice
    the bubble of stages of 2n layers, less that of stages of n, is that of stages without grain.
    """
    idle = []
    for layers in (2, 4):
        scenario = even(schedule, p, m, layers=layers * p * (2 if schedule in VEE else 1))
        f, i, w = parts(p, scenario.model.layers, scenario.layout.virtual_stages)
        idle.append(Shown(scenario).idle[p // 2] / f)
    return 2 * idle[1] - idle[0], i / f, w / f


@pytest.mark.parametrize(("schedule", "p", "stages"), [("dualpipe", 4, 4), ("dualpipe", 6, 6), ("dualpipev", 2, 4)])
def test_bubble_of_dualpipe(schedule, p, stages):
    """(p/2 - 1)(F&B + B - 3W) for p stages; without communication F&B is F + B. DualPipeV has half as many ranks.

    The table's where F = I; else it lies between that and the same with F for I.
    """
    found, i, w = bubble(schedule, p, 12)
    one, other = ((stages / 2 - 1) * ((1 + i + w) + x - 2 * w) for x in (1, i))
    assert min(one, other) - 0.002 < found < max(one, other) + 0.002
    assert found == pytest.approx((stages / 2 - 1) * ((1 + i + w) + (i + w) - 3 * w), rel=0.015)


@pytest.mark.parametrize("p", [2, 4])
def test_bubble_of_zero_bubble_h1(p):
    """(p - 1)(F + I - W); a W that is longer than F fills no more than its place."""
    found, i, w = bubble("zb-h1", p, 8)
    assert found == pytest.approx((p - 1) * (1 + i - min(w, 1)), rel=0.005)


def test_bubble_of_zero_bubble_v():
    """p - 1 forwards until the last rank begins; no other with F = I = W (Qi et al. 2023, section 6)."""
    p = 4
    found, i, w = bubble("zb-v", p, 8)
    assert found == pytest.approx(p - 1, abs=p * (max(1, i, w) - min(1, i, w)))


@pytest.mark.parametrize(
    ("schedule", "p", "most"),
    [("1f1b", 4, 4), ("zb-h1", 4, 4), ("zb-v", 4, 8), ("dualpipe", 4, 5), ("dualpipe", 6, 7), ("dualpipev", 2, 5)],
)
def test_activations_in_flight(schedule, p, most):
    """1F1B and ZB-H1 p, ZB-V 2p of half a rank's, DualPipe p + 1, DualPipeV 2p + 1 of half a rank's.

    Of ranks without embedding and head, in simulated time; the walk in issue order (``stepline check``) says the same.
    """
    m = 12
    scenario = even(schedule, p, m, layers=24)
    one = sum(sum(unit.kept.values()) for unit in stages(scenario, apart=False)[1])
    timeline = simulate(scenario).timeline
    inner = range(1, p - 1) if p > 2 else range(1, 2)
    held = {row.representative: _held(timeline, c) / one for c, row in enumerate(timeline.rank_classes)}
    if schedule == "1f1b":
        assert [round(held[r], 6) for r in inner] == [p - r for r in inner]
    else:
        assert max(held[r] for r in inner) == pytest.approx(most, rel=1e-6)
    for rank, program in enumerate(build(scenario).programs):
        walked = peak(program, "gpu").by_owner
        kept = sum(size for owner, size in walked.items() if _kept(owner))
        assert kept == pytest.approx(held[rank] * one, rel=0.05)


def _kept(owner):
    return owner.startswith("activations") and owner != "activations.workspace"


def _held(timeline, rank_class):
    """Most bytes of activations held at once."""
    changes = []
    for o, start, end in zip(
        timeline.spans.op.tolist(), timeline.spans.start.tolist(), timeline.spans.end.tolist(), strict=True
    ):
        op = timeline.ops[o]
        if op.rank_class == rank_class:
            changes += [(end if e.at_end else start, e.size > 0, e.size) for e in op.memory if _kept(e.owner)]
    return np.cumsum([size for _, _, size in sorted(changes)]).max()


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("dp", [1, 2])
def test_parameters_twice_and_optimizer_states_shared(zero, dp):
    """Parameters and gradients 2x (table 2); ZeRO-1 shards optimizer states over both copies and their replicas."""
    once, twice = (
        [dict(p.resident_gpu) for p in build(parallel(pp=4, dp=dp, accumulation=8, zero=zero, schedule=s)).programs]
        for s in ("1f1b", "dualpipe")
    )
    for rank in range(4):
        both = [once[rank], once[3 - rank]]
        for owner in ("parameters", "gradients"):
            # the tied table of the last stage of 1F1B is a copy of its own; both ends share it here
            table = (rank in (0, 3)) * 2 * WIDE.model.vocab * WIDE.model.hidden
            grads = {"parameters": 1, "gradients": once[rank]["gradients"] / once[rank]["parameters"]}[owner]
            assert twice[rank][owner] == pytest.approx(sum(held[owner] for held in both) - table * grads)
        states = twice[rank]["parameters"] / 2 * 12
        shards = 2 * dp if zero else 1
        assert twice[rank]["optimizer states"] == pytest.approx(states / shards, rel=1e-3)


def test_copies_reduce_their_gradients_together():
    """The ranks r and p - 1 - r of all replicas: 2 dp of them, an all-reduce of the rank's two stages."""
    scenario = parallel(pp=4, dp=2, accumulation=8, schedule="dualpipe")
    workload = build(scenario)
    assert workload.groups["dp"].tolist() == [[0, 1, 6, 7], [2, 3, 4, 5]]
    timeline = simulate(scenario, fold=False).timeline
    sent = Counter()
    for o in timeline.spans.op.tolist():
        op = timeline.ops[o]
        if op.name.startswith("all-reduce bucket"):
            sent[timeline.rank_classes[op.rank_class].representative] += sent_bytes(op)
    grad = {"fp32": 4, "bf16": 2}[scenario.precision.grad_comm]
    for rank, bytes_sent in sent.items():
        params = dict(workload.programs[workload.program_of_rank[rank]].resident_gpu)["parameters"] / 2
        assert bytes_sent == pytest.approx(2 * (4 - 1) / 4 * params * grad, rel=1e-6)
    assert len(sent) == 8


def test_messages_go_both_ways():
    """m/2 microbatches each way: every boundary is crossed m times forward and m times back, by one rank pair."""
    p, m = 4, 10
    timeline = simulate(parallel(pp=p, accumulation=m, schedule="dualpipe"), fold=False).timeline
    sends = Counter()
    for o in timeline.spans.op.tolist():
        op = timeline.ops[o]
        if op.name.startswith("send"):
            sends[op.name, op.rank_class] += 1
    assert sum(sends.values()) == 2 * m * (p - 1)
    assert {name for name, _ in sends} == {f"send {a}>{b}" for a in range(p) for b in (a - 1, a + 1) if 0 <= b < p}
    assert set(sends.values()) == {m // 2}


def test_overlap_hides_tensor_parallel_communication():
    """What one pass waits for travels under the other: 1F1B exposes all of it, DualPipe what its lone passes have."""
    exposed = {}
    for schedule in ("1f1b", "dualpipe"):
        scenario = big(pp=2, tp=4, accumulation=16, schedule=schedule)
        result = simulate(scenario).result
        exposed[schedule] = result.breakdown["tp"] / result.step_time
    assert exposed["dualpipe"] < 0.5 * exposed["1f1b"]


def test_overlap_hides_expert_communication():
    """What DualPipe was made for: dispatch and combine of one pass under the other. Both copies' experts meet."""
    experts = {"experts": 8, "top_k": 2, "moe_ffn": 5120}
    exposed = {}
    for schedule in ("1f1b", "dualpipe"):
        scenario = big(pp=2, dp=4, ep=4, accumulation=16, schedule=schedule)
        scenario = replace(scenario, model=replace(scenario.model, **experts))
        result = simulate(scenario).result
        exposed[schedule] = result.breakdown["ep"] / result.step_time
    assert exposed["dualpipe"] < 0.6 * exposed["1f1b"]
    assert build(scenario).groups["edp"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert build(scenario).groups["ep"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("layout", [{"dp": 2, "tp": 2, "zero": 1}, {"dp": 4, "cp": 2, "pp": 2}])
@pytest.mark.parametrize("slow", [(), (VariationSpec(node=0, part="gpu", index=1, speed=0.5),)])
def test_folding_changes_nothing(layout, slow):
    """With a slow GPU too, which leaves few ranks alike."""
    scenario = on(parallel(**{"pp": 4, "accumulation": 8, "schedule": "dualpipe", **layout}), variations=slow)
    folded, whole = (simulate(scenario, fold=fold).result for fold in (True, False))
    assert folded.step_time == pytest.approx(whole.step_time, rel=1e-9)
    assert slow or folded.rank_classes < whole.rank_classes


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"zero": 2}, "layout.zero"),
        ({"zero": 1, "dp_replicate": 2}, "layout.dp_replicate"),
        ({"zero": 1, "offload": True}, "offload"),
    ],
)
def test_two_copies_from_a_file_take_what_dualpipe_takes(change, key):
    """The checks of scenario files know DualPipe by name; a file in two directions is found out when it is read."""
    offload = change.pop("offload", False)
    file = ScheduleFile(name="both.csv", text=to_csv(make("dualpipe", 2, 4, 1)))
    scenario = parallel(pp=2, dp=2, accumulation=4, schedule_file=file, **change)
    if offload:
        scenario = replace(scenario, offload=OffloadSpec(optimizer="cpu", gradients="cpu"))
    with pytest.raises(ScenarioError) as error:
        schedule_of(scenario)
    assert str(error.value).startswith(f"both.csv: {key}: two directions hold the parameters twice")


# -- weaving


def _chain(name, spec):
    """``spec``: k a kernel, c a collective that the next kernel waits for, / a new layer."""
    block, layer, wait = BlockBuilder(name), 0, ()
    for number, letter in enumerate(spec):
        if letter == "/":
            layer += 1
        elif letter == "c":
            deps = (len(block.ops) - 1,) if block.ops else ()
            work = Collective(kind="all_reduce", axis="tp", size=1.0)
            wait = (block.side(f"{name}{number}", work, "tp", "F", "tp", deps=deps),)
        else:
            kernel = Kernel(name=f"{name}{number}", kind="gemm", flops=1.0, bytes_read=1.0, bytes_written=1.0)
            block.kernels((kernel,), "F", layer=layer, deps=wait)
            wait = ()
    return block.block()


@pytest.mark.parametrize(
    ("forward", "backward", "woven"),
    [
        ("kk", "kk", "f0 f1 b0 b1"),
        ("k/k", "k/k", "f0 b0 f2 b2"),
        ("kck", "kck", "f0 f1 b0 b1 f2 b2"),
        ("ck", "k/k", "f0 b0 f1 b2"),
        ("kck/kck", "k/k", "f0 f1 b0 f2 f4 f5 f6 b2"),
        ("kck", "kkkk", "f0 f1 b0 b1 f2 b2 b3"),
        ("kckck", "kkkk/k", "f0 f1 b0 b1 f2 f3 b2 b3 f4 b5"),
    ],
)
def test_pieces_alternate_and_end_together(forward, backward, woven):
    block = weave(_chain("f", forward), _chain("b", backward))
    assert " ".join(op.name for op in block.ops) == woven


def test_short_exchanges_are_no_cuts_beside_those_of_experts():
    """k, tp, k, ep, k: the tensor-parallel exchange is waited for within a piece."""
    parts = []
    for name in "fb":
        block, after = BlockBuilder(name), ()
        for number, axis in enumerate(("tp", "ep", "")):
            kernel = Kernel(name=f"{name}{number}", kind="gemm", flops=1.0, bytes_read=1.0, bytes_written=1.0)
            _, last = block.kernels((kernel,), "F", layer=0, deps=after)
            if axis:
                work = Collective(kind="all_reduce", axis=axis, size=1.0)
                after = (block.side(f"{name}.{axis}", work, axis, "F", axis, deps=(last,)),)
        parts.append(block.block())
    order = [op.name for op in weave(*parts).ops]
    assert order == ["f0", "f.tp", "f1", "f.ep", "b0", "b.tp", "b1", "b.ep", "f2", "b2"]


def test_weaving_keeps_each_pass():
    parts = _chain("f", "kck/kkck"), _chain("b", "ckck/k")
    block = weave(*parts)
    for part in parts:
        mine = [op for op in block.ops if op.name[0] == part.ops[0].name[0]]
        assert [op.name for op in mine] == [op.name for op in part.ops]
        assert [[block.ops[d].name for d in op.deps] for op in mine] == [
            [part.ops[d].name for d in op.deps] for op in part.ops
        ]
    assert weave(Block(name="f", ops=()), parts[1]).ops == parts[1].ops
