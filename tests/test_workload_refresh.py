"""Parameters that other ranks updated, gathered under the next forward: when, how many bytes, what is left exposed."""

from collections import Counter
from dataclasses import replace

import pytest

from scenarios import A100, data_parallel, on
from sim.analysis.transfers import sent_bytes
from sim.api import simulate
from sim.spec.load import load
from sim.workload.build import build
from sim.workload.model import params
from sim.workload.ops import Collective
from sim.workload.units import stages

BIG = load("quickstart", ["model=gpt3-13b", "model.layers=6", "model.vocab=1024", "batch.micro=1"]).scenario


def sharded(zero=1, *, base=BIG, dp=4, accumulation=2, sequence=2048, **layout):
    """Layers of 629 MB that compute for milliseconds: a bucket is a layer."""
    scenario = data_parallel(dp, zero, base=base, accumulation=accumulation, **{"gather_bucket": 5e8, **layout})
    return replace(scenario, batch=replace(scenario.batch, sequence=sequence))


def overlapped(scenario, *, overlap=True):
    return replace(scenario, layout=replace(scenario.layout, overlap_param_gather=overlap))


def gathers(timeline):
    """(Bytes of the whole, start, end, microbatch, phase) of the gathers of the first rank class, in order of start."""
    spans, found = timeline.spans, []
    for i, o in enumerate(timeline.spans.op.tolist()):
        op = timeline.ops[o]
        if op.category == "param_gather" and op.kind == "all_gather" and op.rank_class == 0:
            found.append((op.size, spans.start[i], spans.end[i], int(spans.microbatch[i]), op.phase))
    return sorted(found, key=lambda row: row[1])


@pytest.mark.parametrize("zero", [1, 2])
def test_only_the_first_bucket_is_left_exposed(zero):
    """At the end of the step: all bytes over the link. Under forward: what the first unit needs, here the embedding
    and the layer after it; each later layer computes longer than the next one takes to arrive."""
    after, under = (simulate(overlapped(sharded(zero), overlap=o)) for o in (False, True))
    nvlink = BIG.cluster.nvlink
    rate, hop = nvlink.bandwidth * nvlink.efficiency, nvlink.base_latency + 3 * nvlink.step_latency
    held = [2 * unit.params for unit in stages(sharded(), apart=False)[0]]
    first = held[0] + held[1]
    total = sum(held)
    buckets = len(gathers(after.timeline))
    assert after.result.breakdown["param_gather"] == pytest.approx(total * 3 / 4 / rate + buckets * hop, rel=1e-9)
    assert gathers(under.timeline)[0][0] == first
    assert under.result.breakdown["param_gather"] == pytest.approx(first * 3 / 4 / rate + hop, rel=1e-9)
    assert under.result.step_time < after.result.step_time


TWO_CHUNKS = {"pp": 2, "virtual_stages": 2, "schedule": "interleaved"}


@pytest.mark.parametrize("layout", [{}, {"pp": 2}, TWO_CHUNKS, {"tp": 2}])
@pytest.mark.parametrize("zero", [1, 2])
def test_a_step_moves_the_same_bytes_and_needs_the_same_memory(layout, zero):
    """2 bytes a parameter that a rank holds, of which it receives (n - 1) / n; once a step, whatever the schedule."""
    layers = {"base": replace(BIG, model=replace(BIG.model, layers=8))} if layout.get("pp") else {}
    scenario = sharded(zero, dp=2, **layers, **layout)
    after, under = (simulate(overlapped(scenario, overlap=o)) for o in (False, True))
    moved = []
    for step in (after, under):
        sent = Counter()
        for o in step.timeline.spans.op.tolist():
            op = step.timeline.ops[o]
            if op.kind == "all_gather" and op.category == "param_gather":
                sent[op.rank_class] += sent_bytes(op)
        moved.append(sent)
    assert moved[1] == pytest.approx(moved[0], rel=1e-12)
    held = [dict(program.resident_gpu)["parameters"] for program in build(scenario).programs]
    assert sorted(moved[1].values()) == pytest.approx(sorted(size / 2 for size in held), rel=1e-9)
    peaks = [{use.rank_class: use.peak for use in step.result.memory} for step in (after, under)]
    assert peaks[0] == pytest.approx(peaks[1], rel=1e-12)


def test_chunk_by_chunk_in_the_first_forward_alone():
    """Two chunks a rank: each chunk's gathers carry its parameters, on its first microbatch and on no other."""
    scenario = overlapped(sharded(dp=2, accumulation=4, stage_layers=(1, 2, 2, 1), **TWO_CHUNKS))
    found = gathers(simulate(scenario).timeline)
    assert {(microbatch, phase) for *_, microbatch, phase in found} == {(0, "F")}
    cut = stages(scenario, apart=True)
    expected = [sum(2 * unit.params for unit in cut[stage]) for stage in (0, 2)]
    assert sum(size for size, *_ in found) == sum(expected)
    for program, mine in zip(build(scenario).programs, ((0, 2), (1, 3)), strict=True):
        for stage in mine:
            blocks = [b for b in program.blocks if b.name == f"forward {stage}"]
            sizes = [sum(op.work.size for op in b.ops if isinstance(op.work, Collective) and op.work.axis == "dp")
                     for b in blocks]  # fmt: skip
            assert sorted(sizes) == [0.0, sum(2 * unit.params for unit in cut[stage])]


def test_no_layer_computes_before_it_has_arrived_and_gathers_follow_one_another():
    slow = replace(BIG.cluster.nvlink, bandwidth=5e9)
    step = simulate(on(overlapped(sharded()), nvlink=slow))
    spans, ops = step.timeline.spans, step.timeline.ops
    arrived = [end for _, _, end, *_ in gathers(step.timeline)]
    begun = [start for _, start, *_ in gathers(step.timeline)]
    layers = {}
    for i, o in enumerate(spans.op.tolist()):
        if ops[o].phase == "F" and ops[o].layer >= 0 and spans.microbatch[i] == 0:
            layers.setdefault(ops[o].layer, []).append(spans.start[i])
    assert len(arrived) == len(layers) + 1 == 7, "a bucket is a layer, the first with the embedding; the last norm"
    assert all(min(layers[layer]) >= arrived[layer] for layer in range(6))
    assert begun[1:] == pytest.approx(arrived[:-1], rel=1e-3)


def test_a_pipeline_gathers_while_it_fills():
    """The second stage has all of its parameters before the first microbatch reaches it."""
    scenario = overlapped(sharded(dp=2, pp=2, accumulation=4))
    timeline = simulate(scenario).timeline
    spans, ops = timeline.spans, timeline.ops
    last = next(i for i, row in enumerate(timeline.rank_classes) if row.representative >= 2)
    rows = [(ops[o], spans.start[i], spans.end[i]) for i, o in enumerate(spans.op.tolist())]
    ends = [end for op, _, end in rows if op.rank_class == last and op.name.startswith("all-gather parameters")]
    first = min(start for op, start, _ in rows if op.rank_class == last and op.layer >= 0 and op.phase == "F")
    assert len(ends) == 4, "three layers and the head"
    assert max(ends) < first


def test_a_slow_link_hides_what_one_forward_can_hide():
    """The link is the longer one: the step is shorter by the first microbatch's forward, less what is not under it."""
    slow = replace(BIG.cluster.nvlink, bandwidth=2e9)
    after, under = (simulate(on(overlapped(sharded(), overlap=o), nvlink=slow)) for o in (False, True))
    forward = after.result.breakdown["forward"] / 2
    saved = after.result.step_time - under.result.step_time
    assert 0.5 * forward < saved <= 1.05 * forward


def test_experts_are_gathered_by_their_own_group():
    model = replace(
        A100.model, layers=3, experts=8, top_k=2, moe_ffn=256, mlp_bias=False, first_dense_layers=1, shared_experts=0
    )
    scenario = data_parallel(8, 1, base=replace(A100, model=model), ep=4)
    after, under = (simulate(overlapped(scenario, overlap=o)).timeline for o in (False, True))
    held = []
    for timeline in (after, under):
        sizes = Counter()
        for o in timeline.spans.op.tolist():
            op = timeline.ops[o]
            if op.category == "param_gather" and op.kind == "all_gather":
                sizes[op.group_size] += op.size
        held.append(sizes)
    assert set(held[0]) == {8, 2}
    assert held[1] == pytest.approx(held[0], rel=1e-12)
    assert held[0][8] + 4 * held[0][2] == pytest.approx(2 * params(model), rel=1e-9)


def test_one_rank_that_holds_everything_gathers_nothing():
    assert gathers(simulate(overlapped(sharded(dp=1))).timeline) == []
