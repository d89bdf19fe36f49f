"""From workload to plan: times alone, shared links, and units that scale."""

from collections import Counter
from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from scenarios import A100, V100, data_parallel, on, one_nic, random_system, rings, spans_of
from sim.analysis.breakdown import breakdown
from sim.api import simulate
from sim.cluster.build import build as build_cluster
from sim.cost.kernels import KernelCost
from sim.cost.lower import DMA_WEIGHT, lower
from sim.cost.merge import joined, runs
from sim.engine.core import simulate as run_plan
from sim.plan import Plan
from sim.spec.types import NicSpec, VariationSpec
from sim.workload.build import build
from sim.workload.ops import Kernel, Op


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_uncontended_spans_last_latency_plus_duration(zero):
    timeline = simulate(data_parallel(8, zero)).timeline
    slowed = {span for span, _, _ in timeline.contended}
    rows = [i for i in range(len(timeline.spans.op)) if i not in slowed]
    assert len(rows) > 50
    for i in rows:
        op = timeline.ops[timeline.spans.op[i]]
        assert timeline.spans.end[i] - timeline.spans.start[i] == pytest.approx(
            op.latency + op.duration, rel=1e-9, abs=1e-12
        )


def test_gpus_on_one_uplink_copy_at_half_rate_each():
    """Two GPUs, one uplink as fast as one GPU's own link: gradients take twice as long as on two uplinks."""

    def busy(per_uplink):
        link = replace(V100.cluster.host_link, gpus_per_uplink=per_uplink, uplink=V100.cluster.host_link.d2h)
        scenario = on(data_parallel(2, 2, base=V100, offload=True, grad_bucket=1e12), host_link=link, gpus_per_host=4)
        timeline = simulate(scenario).timeline
        copies = spans_of(timeline, kind="d2h")
        return sum(timeline.spans.end[i] - timeline.spans.start[i] for i in copies) - len(copies) * link.latency

    assert busy(2) == pytest.approx(2 * busy(1), rel=1e-6)


def test_ranks_share_the_cores_of_their_socket():
    """Twice the ranks on a socket, half the cores and half the parameters each: CPU Adam takes as long."""
    seconds = []
    for dp in (1, 8):
        timeline = simulate(data_parallel(dp, 1, base=V100, offload=True)).timeline
        seconds.append(sum(timeline.spans.end[i] - timeline.spans.start[i] for i in spans_of(timeline, kind="adam")))
    assert seconds[1] == pytest.approx(seconds[0], rel=1e-3)


def test_a_collective_takes_its_share_of_the_sms_from_a_kernel():
    timeline = simulate(data_parallel(8, grad_bucket=5e5)).timeline
    kinds = {timeline.resources[r].kind for _, r, _ in timeline.contended}
    assert kinds == {"sm"}


@pytest.mark.parametrize("k", [0.1, 7.0])
@pytest.mark.parametrize("scenario", [data_parallel(16, 2, nodes=2), data_parallel(4, 2, base=V100, offload=True)])
def test_all_rates_times_k_and_latencies_over_k(scenario, k):
    one, other = simulate(scenario).result, simulate(_faster(scenario, k)).result
    assert other.step_time == pytest.approx(one.step_time / k, rel=1e-9)
    assert other.mfu == pytest.approx(one.mfu, rel=1e-9)


def _faster(scenario, k):
    """Every rate of the machine times k, every latency, floor and launch over k."""
    rates = [
        "hbm_bandwidth",
        "unaligned_flops_per_s",
        "dram_bandwidth",
        "socket_link",
        "h2d",
        "d2h",
        "duplex",
        "pageable",
        "uplink",
        "bandwidth",
        "peak",
        "p_inf",
        "read",
        "write",
    ]
    times = ("t0", "kernel_floor", "launch", "latency", "base_latency", "step_latency", "tree_latency", "fill")

    def scale(spec):
        if isinstance(spec, dict):
            return {key: scale(value) for key, value in spec.items()}
        if isinstance(spec, tuple):
            return tuple(scale(value) for value in spec)
        if not hasattr(spec, "__dataclass_fields__"):
            return spec
        changed = {}
        for name in spec.__dataclass_fields__:
            value = getattr(spec, name)
            changed[name] = value * k if name in rates else value / k if name in times else scale(value)
        return replace(spec, **changed)

    return replace(scenario, cluster=scale(scenario.cluster))


def test_utilisation_is_a_share():
    for scenario in (data_parallel(8, 3), data_parallel(4, 2, base=V100, offload=True)):
        used = simulate(scenario).result.utilisation
        assert used
        assert all(0 < share <= 1 + 1e-9 for share in used.values()), used


def plan_of(scenario, *, fold=True) -> Plan:
    return lower(build(scenario), build_cluster(scenario.cluster), scenario, fold=fold)


def loads_of(plan, **where):
    """Resource kind -> load, of the first op of rank class 0 with the given attributes."""
    for block in plan.ranks[0].blocks:
        for op in block:
            if all(getattr(plan.ops[op.row], key) == value for key, value in where.items()):
                return {plan.resources[r].kind: load for r, load in op.loads}, op
    msg = f"no op with {where}"
    raise AssertionError(msg)


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_nothing_is_faster_than_alone_and_the_unhindered_take_just_that(seed):
    """On random systems: a span lasts latency + duration, plus the seconds that a full resource kept from it."""
    timeline = simulate(random_system(seed)).timeline
    ops, spans = timeline.ops, timeline.spans
    alone = np.array([op.latency + op.duration for op in ops])[spans.op]
    took = spans.end - spans.start
    slowed = {i for i, _, _ in timeline.contended}
    slowed |= {i for i, peer in enumerate(spans.peer.tolist()) if peer in slowed}
    free = np.array([i not in slowed for i in range(len(took))])
    assert np.allclose(took[free], alone[free], rtol=1e-9, atol=1e-12)
    assert (took >= alone - 1e-12).all()


def test_loads_of_a_shared_uplink():
    """Two GPUs under an uplink of 12.8 GB/s whose own links give 12.8: a copy alone needs all of it, both twice that.

    HBM, host DRAM and the GPU's own link: the same bytes over their own capacities.
    """
    spec = replace(V100.cluster.host_link, gpus_per_uplink=2, uplink=12.8e9, d2h=12.8e9, h2d=12e9, duplex=24.8e9)
    scenario = on(data_parallel(2, 2, base=V100, offload=True), host_link=spec, gpus_per_host=2)
    scenario = on(scenario, host=replace(scenario.cluster.host, sockets=1))
    loads, op = loads_of(plan_of(scenario), kind="d2h")
    size = plan_of(scenario).ops[op.row].size
    assert op.duration == pytest.approx(size / 12.8e9)
    assert loads == pytest.approx(
        {
            "uplink.out": 2.0,
            "pcie.d2h": 1.0,
            "hbm": 12.8e9 / scenario.cluster.device.hbm_bandwidth,
            "dram": 2 * 12.8e9 / scenario.cluster.host.dram_bandwidth,
        }
    )
    assert (op.latency, op.weight) == (spec.latency, DMA_WEIGHT)


def test_full_duplex_is_shared_by_both_directions():
    """A link that gives 12 one way, 12.8 the other and 16 together: each way alone is not slowed by the third limit."""
    spec = replace(V100.cluster.host_link, h2d=12e9, d2h=12.8e9, duplex=16e9, uplink=0.0, gpus_per_uplink=1)
    loads, _ = loads_of(plan_of(on(data_parallel(1, 2, base=V100, offload=True), host_link=spec)), kind="h2d")
    assert loads["pcie.h2d"] == pytest.approx(1.0)
    assert loads["pcie.duplex"] == pytest.approx(12 / 16)


def test_pageable_copies_take_the_pageable_rate_and_leave_room():
    scenario = data_parallel(1, 2, base=V100, offload=True)
    slow = replace(scenario, offload=replace(scenario.offload, pinned=False))
    link = scenario.cluster.host_link
    loads, op = loads_of(plan_of(slow), kind="d2h")
    assert op.duration == pytest.approx(plan_of(slow).ops[op.row].size / link.pageable)
    assert loads["pcie.d2h"] == pytest.approx(link.pageable / link.d2h)


@pytest.mark.parametrize("dp", [1, 2, 8, 16])
def test_cpu_adam_of_all_ranks_of_a_socket(dp):
    """Each has its share of the cores; together they take the stack's fraction of STREAM and all cores."""
    scenario = data_parallel(dp, 1, base=V100, offload=True)
    sharing = min(dp, 8)
    loads, op = loads_of(plan_of(scenario), kind="adam")
    fraction, host = scenario.stack.cpu_adam_fraction, scenario.cluster.host
    size = plan_of(scenario).ops[op.row].size
    assert op.duration == pytest.approx(size * sharing / (fraction * host.dram_bandwidth))
    assert loads == pytest.approx({"dram": fraction, "cores": 1.0})


@pytest.mark.parametrize("dp", [2, 8])
def test_a_ring_in_a_node(dp):
    """All-reduce: 2 S (n-1)/n over every port at its sustained rate; its share of the SMs; 2(n-1) steps of latency."""
    scenario = rings(data_parallel(dp, grad_bucket=1e12))
    nvlink = scenario.cluster.nvlink
    plan = plan_of(scenario)
    loads, op = loads_of(plan, kind="all_reduce")
    size = plan.ops[op.row].size
    assert op.duration == pytest.approx(2 * size * (dp - 1) / dp / (nvlink.bandwidth * nvlink.efficiency))
    assert op.latency == pytest.approx(nvlink.base_latency + 2 * (dp - 1) * nvlink.step_latency)
    assert loads["nvlink.tx"] == loads["nvlink.rx"] == pytest.approx(1.0)
    assert loads["sm"] == pytest.approx(scenario.cluster.sm_share)
    assert op.group == -1, "equal ranks arrive together: no rendezvous"


def test_a_ring_over_two_nodes_with_one_adapter_each():
    scenario = one_nic(rings(data_parallel(16, nodes=2, grad_bucket=1e12)))
    plan = plan_of(scenario)
    loads, op = loads_of(plan, kind="all_reduce")
    assert op.duration == pytest.approx(2 * plan.ops[op.row].size * 15 / 16 / 12.5e9)
    assert loads["nic.tx"] == loads["nic.rx"] == pytest.approx(1.0)


def test_ports_that_carry_less_are_a_class_of_their_own():
    """Two channels over four GPUs a node: the GPU where a channel enters takes half of the ring from its neighbour."""
    nics = NicSpec(count=2, bandwidth=25e9, efficiency=1.0, step_latency=1e-6)
    scenario = on(rings(data_parallel(8, nodes=2, grad_bucket=1e12)), gpus_per_host=4, nics=nics)
    plan = plan_of(on(scenario, host_link=replace(scenario.cluster.host_link, gpus_per_uplink=1)))
    op = next(op for block in plan.ranks[0].blocks for op in block if plan.ops[op.row].kind == "all_reduce")
    ports = sorted((load, plan.resources[r].members) for r, load in op.loads if plan.resources[r].kind == "nvlink.rx")
    assert [members for _, members in ports] == [4, 4]
    assert ports[0][0] == pytest.approx(ports[1][0] / 2)


def test_groups_that_share_an_adapter_load_it_together():
    """Two rings over two nodes, four ranks each, one adapter a node: twice the load of one ring."""
    scenario = one_nic(on(data_parallel(8, nodes=2, grad_bucket=1e12), gpus_per_host=4))
    link = replace(scenario.cluster.host_link, gpus_per_uplink=1)
    scenario = on(scenario, host_link=link)
    cluster = build_cluster(scenario.cluster)
    workload = replace(build(scenario), groups={"dp": np.arange(8).reshape(4, 2).T.copy()})
    loads, _ = loads_of(lower(workload, cluster, scenario), kind="all_reduce")
    assert loads["nic.tx"] == pytest.approx(2.0)
    timeline_ops = lower(workload, cluster, scenario).ops
    assert {op.group_size for op in timeline_ops if op.kind == "all_reduce"} == {4}


def test_kernels_ask_for_their_sms_and_bytes():
    scenario = data_parallel(1)
    plan = plan_of(scenario)
    loads, op = loads_of(plan, kind="gemm")
    row = plan.ops[op.row]
    assert loads["sm"] == pytest.approx(1.0)
    assert loads["hbm"] == pytest.approx(row.size / (row.duration * scenario.cluster.device.hbm_bandwidth))
    assert op.launch == scenario.cluster.host.launch * scenario.stack.launch_factor


def test_unlike_ranks_meet_and_equal_ones_do_not():
    """Four GPUs on two adapters: those where a channel enters differ from the others. Unfolded, all members meet."""
    nics = NicSpec(count=2, bandwidth=12.5e9, efficiency=1.0, step_latency=1e-6)
    scenario = on(data_parallel(8, nodes=2), gpus_per_host=4, nics=nics)
    scenario = on(scenario, host_link=replace(scenario.cluster.host_link, gpus_per_uplink=1))
    folded, whole = plan_of(scenario), plan_of(scenario, fold=False)
    assert len(folded.ranks) < len(whole.ranks) == 8
    assert set(whole.group_sizes) == {8}
    assert all(size == len(folded.ranks) for size in folded.group_sizes)


@pytest.mark.parametrize("seed", [s for s in range(40) if random_system(s).cluster.nvlink is not None][:12])
def test_random_systems_scale(seed):
    """Everything twice as fast: half the time, every span. (Without NVLink a base latency of NCCL's is a constant.)"""
    scenario = random_system(seed)
    one, other = simulate(scenario), simulate(_faster(scenario, 2.0))
    assert other.result.step_time == pytest.approx(one.result.step_time / 2, rel=1e-9)
    assert np.allclose(np.sort(other.timeline.spans.end) * 2, np.sort(one.timeline.spans.end), rtol=1e-9, atol=1e-15)
    for category, seconds in one.result.breakdown.items():
        assert other.result.breakdown[category] * 2 == pytest.approx(seconds, rel=1e-6, abs=1e-9 * one.result.step_time)


def test_the_sixteen_thousandth_rank_costs_nothing():
    """Lowering a deep model on 16,384 ranks walks each size of ring once, not each layer's."""
    base = replace(A100, model=replace(A100.model, layers=60))
    scenario = data_parallel(16_384, 3, base=base, nodes=2048)
    begin = process_time()
    plan = plan_of(scenario)
    assert process_time() - begin < 2.0
    assert len(plan.ranks) == 1


def both_ways(scenario, *, fold=True):
    """The step with every kernel an op of its own, and with runs of kernels as one."""
    parts = build(scenario), build_cluster(scenario.cluster), scenario
    return tuple(run_plan(lower(*parts, fold=fold, merged=merged)) for merged in (False, True))


@given(st.lists(st.floats(1e-6, 1e-3), min_size=1, max_size=30), st.floats(0.0, 1e-3))
def test_reach_of_a_run(seconds, launch):
    """Kernel i is launched i launches after the first and runs when it is there and the one before it has ended."""
    kernels = [Kernel(name="k", kind="gemm", flops=1.0, bytes_read=2.0, bytes_written=3.0)] * len(seconds)
    costs = [KernelCost(duration=s, bound_by="sm" if i % 2 else "hbm") for i, s in enumerate(seconds)]
    run = joined(kernels, costs, launch, (0.5, 0.8))
    end, alone = 0.0, [s / (0.5 if i % 2 else 0.8) for i, s in enumerate(seconds)]
    for number, length in enumerate(alone):
        end = max(end, number * launch) + length
    assert run.reach == pytest.approx(end if len(seconds) > 1 else 0.0)
    assert run.duration == pytest.approx(sum(alone))
    assert run.arithmetic == pytest.approx(sum(alone[1::2]))
    assert (run.kernels, run.flops, run.moved) == (len(seconds), len(seconds), 5 * len(seconds))


@pytest.mark.parametrize("seed", range(0, 80, 4))
def test_merged_kernels_take_as_long(seed):
    """Exactly, line by line, where nobody contends; else averaging a run's loads may move a hundredth of the step."""
    scenario = random_system(seed)
    every, merged = both_ways(scenario)
    assert len(merged.spans.op) < len(every.spans.op)
    allowed = 1e-9 if not every.contended else 1e-2
    assert merged.makespan == pytest.approx(every.makespan, rel=allowed)
    one, other = breakdown(every), breakdown(merged)
    for category in {*one, *other}:
        assert other.get(category, 0.0) == pytest.approx(one.get(category, 0.0), abs=allowed * every.makespan)


@pytest.mark.parametrize("seed", range(1, 60, 6))
def test_merged_steps_fold_exactly(seed):
    scenario = random_system(seed)
    folded, whole = (both_ways(scenario, fold=fold)[1] for fold in (True, False))
    assert folded.makespan == pytest.approx(whole.makespan, rel=1e-9)
    one, other = breakdown(folded), breakdown(whole)
    for category in {*one, *other}:
        assert one.get(category, 0.0) == pytest.approx(other.get(category, 0.0), abs=1e-9 * whole.makespan)


@pytest.mark.parametrize("scenario", [data_parallel(4, 3), data_parallel(2, 2, base=V100, offload=True)])
def test_merging_loses_no_work(scenario):
    """Kernels, FLOPs, bytes, seconds and memory effects: the same sums, whoever they are written down for."""

    def sums(timeline):
        rows = [timeline.ops[o] for o in timeline.spans.op.tolist()]
        computing = [row for row in rows if row.flops or row.kernels > 1]
        effects = Counter()
        for row in rows:
            for effect in row.memory:
                effects[effect.owner, effect.at_end] += effect.size
        return (
            sum(row.flops for row in computing),
            sum(row.duration for row in rows),
            sum(row.kernels for row in rows),
            sum(amount for row in rows for _, amount in row.demands),
            effects,
        )

    every, merged = (sums(timeline) for timeline in both_ways(scenario))
    assert merged[:-1] == pytest.approx(every[:-1], rel=1e-9)
    assert merged[-1] == pytest.approx(every[-1], rel=1e-9)


def test_long_steps_are_merged_unasked(monkeypatch):
    scenario = data_parallel(2, 1)
    parts = build(scenario), build_cluster(scenario.cluster), scenario
    apart, merged = (len(lower(*parts, merged=m).ops) for m in (False, True))
    spans = len(run_plan(lower(*parts, merged=False)).spans.op)
    assert merged < apart
    for most, expected in ((spans, apart), (spans - 1, merged)):
        monkeypatch.setattr("sim.cost.lower.MERGE_ABOVE", most)
        assert len(lower(*parts).ops) == expected


def test_nothing_is_merged_across_what_somebody_waits_for():
    """Gathers of ZeRO-3 wait for the last kernel of a layer, reductions for that of a bucket: each ends its run."""
    workload = build(data_parallel(4, 3))
    for block in workload.programs[0].blocks:
        last = {run[-1] for run in runs(block.ops)}
        first = {run[0] for run in runs(block.ops)}
        assert sorted(i for run in runs(block.ops) for i in run) == list(range(len(block.ops)))
        for index, op in enumerate(block.ops):
            assert set(op.deps) <= last
            assert index in first or not (op.deps or op.waits)
            assert index in last or not (op.signals or op.sync)


def test_a_run_is_bound_by_what_binds_most_of_its_time():
    """Kernel by kernel: a run's seconds in arithmetic against its seconds in memory."""
    scenario = data_parallel(1)
    workload, cluster = build(scenario), build_cluster(scenario.cluster)
    one, merged = (lower(workload, cluster, scenario, merged=m) for m in (False, True))
    kinds = set()
    for block, apart, together in zip(
        workload.programs[0].blocks, one.ranks[0].blocks, merged.ranks[0].blocks, strict=True
    ):
        for members, op in zip(runs(block.ops), together, strict=True):
            rows = [one.ops[apart[i].row] for i in members]
            seconds = {-1: 0.0} | dict.fromkeys((row.bound_by for row in rows), 0.0)
            for row in rows:
                seconds[row.bound_by] += row.duration
            assert merged.ops[op.row].bound_by == max(seconds, key=lambda r: seconds[r]), block.name
            kinds.add(merged.resources[merged.ops[op.row].bound_by].kind if op.duration else "none")
    assert {"sm", "hbm"} <= kinds


@pytest.mark.parametrize(("part", "slowed"), [("gpu", "sm"), ("hbm", "hbm")])
def test_a_slow_part_slows_the_kernels_that_it_binds(part, slowed):
    """One GPU at half its clock, or its HBM at half its rate: kernels bound by it take twice as long, others do not."""
    scenario = data_parallel(1)
    slow = on(scenario, variations=(VariationSpec(node=0, part=part, index=0, speed=0.5),))
    one, other = (plan_of(s) for s in (scenario, slow))
    kernels = [(a, b) for a, b in zip(one.ops, other.ops, strict=True) if a.duration > 0]
    assert {one.resources[a.bound_by].kind for a, _ in kernels} == {"sm", "hbm"}
    for a, b in kernels:
        factor = 2.0 if one.resources[a.bound_by].kind == slowed else 1.0
        assert b.duration == pytest.approx(factor * a.duration)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [[0, 1, 2, 3]]),
        ({1: {"signals": ("t",)}}, [[0, 1], [2, 3]]),
        ({1: {"sync": True}}, [[0, 1], [2, 3]]),
        ({2: {"waits": ("t",)}}, [[0, 1], [2, 3]]),
        ({2: {"deps": (0,)}}, [[0], [1], [2, 3]]),  # nobody may wait for an inner one: 0 ends its run
        ({3: {"deps": (1,)}}, [[0, 1], [2], [3]]),
        ({2: {"phase": "R", "category": "recompute"}}, [[0, 1], [2], [3]]),
        ({2: {"stream": "dp"}}, [[0, 1], [2], [3]]),
    ],
)
def test_what_ends_a_run(change, expected):
    kernel = Kernel(name="k", kind="gemm", flops=1.0, bytes_read=1.0, bytes_written=1.0)
    plain = Op(name="k", work=kernel, stream="compute", phase="F", category="forward")
    assert runs([changed(plain, **change.get(i, {})) for i in range(4)]) == expected
