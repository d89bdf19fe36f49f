"""Nodes of several types in one cluster, and nodes that miss a part: who is slower, who has no room, who detours."""

from dataclasses import replace

import numpy as np
import pytest

from scenarios import TINY, data_parallel, on, rings
from sim.api import check, run, simulate
from sim.cluster.build import build
from sim.cost.collectives import ring_demand
from sim.errors import InfeasibleError
from sim.spec.load import load
from sim.spec.types import NodeGroupSpec, VariationSpec
from sim.workload.build import build as build_workload

SMALL = ["model=gpt3-13b", "model.layers=2", "model.vocab=1024", "batch.micro=1"]
A100 = load("quickstart", [*SMALL, "cluster=dgx-a100", "stack=megatron-core-2024"]).scenario
H100 = load("quickstart", [*SMALL, "cluster=dgx-h100", "stack=megatron-core-2024"]).scenario


def trained(*machines, **layout):
    """Data parallelism on whole nodes, one of each machine given."""
    first, *rest = [scenario.cluster for scenario in machines]
    scenario = data_parallel(8 * len(machines), base=A100, accumulation=1)
    cluster = replace(first, nodes=1, others=tuple(NodeGroupSpec(count=1, node=other) for other in rest))
    return replace(scenario, cluster=cluster, layout=replace(scenario.layout, **layout))


def durations(timeline, device, **where):
    """Seconds of the kernels of a rank class, by its device, in the order of the program."""
    rank = next(i for i, row in enumerate(timeline.rank_classes) if row.device == device)
    keep = [op for op in timeline.ops if op.rank_class == rank and op.flops > 0]
    return [op.duration for op in keep if all(getattr(op, key) == value for key, value in where.items())]


def test_each_rank_computes_at_its_own_pace_and_the_slowest_sets_the_step():
    old, new, mixed = (simulate(trained(*pair)) for pair in ((A100, A100), (H100, H100), (A100, H100)))
    assert mixed.result.rank_classes == 2
    assert durations(mixed.timeline, "n0.gpu0") == durations(old.timeline, "n0.gpu0")
    assert durations(mixed.timeline, "n1.gpu0") == durations(new.timeline, "n0.gpu0")
    assert new.result.step_time < 0.8 * old.result.step_time
    assert mixed.result.step_time == pytest.approx(old.result.step_time, rel=0.01)
    waits = [sum(r.result.breakdown.get(c, 0.0) for c in ("bubble", "dp")) for r in (old, mixed)]
    lost = waits[1] - waits[0]
    assert lost > 0.1 * old.result.step_time, "half of the ranks wait where gradients meet"


def test_utilisation_counts_each_device_at_its_own_peak():
    mixed = simulate(trained(A100, H100))
    peaks = [s.cluster.device.gemm[A100.precision.compute].peak for s in (A100, H100)]
    useful = build_workload(trained(A100, H100)).model_flops
    assert mixed.result.mfu == pytest.approx(useful / (mixed.result.step_time * 8 * sum(peaks)), rel=1e-12)


def test_each_rank_has_its_own_memory_and_its_own_host():
    small = on(A100, device=replace(A100.cluster.device, memory=A100.cluster.device.memory / 16))
    step = simulate(trained(A100, small))
    fits = {step.timeline.rank_classes[use.rank_class].device: use.fits for use in step.result.memory}
    assert fits == {"n0.gpu0": True, "n1.gpu0": False}
    assert not step.result.fits
    rich = on(A100, host=replace(A100.cluster.host, dram=4e12))
    offload = trained(A100, rich, zero=2)
    offload = replace(offload, offload=replace(offload.offload, optimizer="cpu", gradients="cpu"))
    hosts = {use.capacity for use in simulate(offload).result.memory if use.where == "host"}
    assert hosts == {A100.cluster.host.dram / 8, 4e12 / 8}


def test_stages_on_unlike_nodes():
    """Two stages, the second on H100: equal layers, unlike times, and the pipeline keeps to the slower stage."""
    stages = {"dp": 8, "pp": 2, "order": ("tp", "cp", "dp", "pp")}
    here, there = simulate(trained(A100, H100, **stages)), simulate(trained(A100, A100, **stages))
    forward = [
        sum(durations(here.timeline, device, phase="F", layer=layer))
        for device, layer in (("n0.gpu0", 0), ("n1.gpu0", 1))
    ]
    assert forward[1] < 0.7 * forward[0]
    assert here.result.step_time < there.result.step_time


def test_a_host_launches_at_its_own_pace():
    slow = on(A100, host=replace(A100.cluster.host, launch=1e-3))
    mixed, fast = simulate(trained(A100, slow)), simulate(trained(A100, A100))
    assert mixed.result.step_time > 2 * fast.result.step_time
    late = [i for i, row in enumerate(mixed.timeline.rank_classes) if row.device.startswith("n1")]
    spans, ops = mixed.timeline.spans, mixed.timeline.ops
    launched = {c: max(spans.launched[i] for i, o in enumerate(spans.op.tolist()) if ops[o].rank_class == c)
                for c in range(len(mixed.timeline.rank_classes))}  # fmt: skip
    assert max(launched, key=launched.get) in late


def test_unlike_nodes_differ_in_gpus():
    """Eight GPUs, then four: devices are counted node by node, and a packed world fills whole nodes."""
    half = on(H100, gpus_per_host=4, nics=replace(H100.cluster.nics, count=4))
    scenario = trained(A100, half)
    scenario = replace(scenario, layout=replace(scenario.layout, dp=12), batch=replace(scenario.batch, size=24))
    step = simulate(scenario, fold=False)
    assert [row.device for row in step.timeline.rank_classes][7:9] == ["n0.gpu7", "n1.gpu0"]
    assert simulate(scenario).result.step_time == pytest.approx(step.result.step_time, rel=1e-9)


def test_each_node_reads_and_writes_its_own_drives():
    """Optimizer states on drives of one rate, and on drives of a quarter of it."""
    slow = replace(A100.cluster.nvme, read=A100.cluster.nvme.read / 4, write=A100.cluster.nvme.write / 4)
    mixed = trained(on(A100, nvme=slow), A100, zero=1)
    mixed = replace(mixed, offload=replace(mixed.offload, optimizer="nvme", gradients="cpu"))
    timeline = simulate(mixed).timeline
    taken = {}
    for op in timeline.ops:
        if op.kind in ("nvme_read", "nvme_write"):
            taken.setdefault((timeline.rank_classes[op.rank_class].device, op.kind), []).append(op.duration)
    for kind in ("nvme_read", "nvme_write"):
        assert np.allclose(taken["n0.gpu0", kind], 4 * np.array(taken["n1.gpu0", kind]), rtol=1e-12)


# -- missing parts


def broken(scenario, *parts, nodes=2):
    missing = tuple(VariationSpec(node=1, part=part, index=index, speed=0.0) for part, index in parts)
    return on(scenario, nodes=nodes, variations=missing)


def names(cluster, node, route):
    return [cluster.node(node).resources[local].name for local in route]


def test_the_gpus_of_a_missing_adapter_use_the_next_one():
    """Eight rings over eight adapters; with one gone seven carry the bytes of eight: 8/7 of the time."""
    whole, lacking = build(on(A100, nodes=2).cluster), build(broken(A100, ("nic", 3)).cluster)
    assert [kind.missing for kind in lacking.kinds] == [(), (("nic", 3),)]
    places = lacking.node(1).places
    assert names(lacking, 1, [places[3].nic_tx, places[4].nic_tx]) == ["nic4.nic.tx"] * 2
    assert "nic3.nic.tx" not in [resource.name for resource in lacking.node(1).resources]
    last = build(broken(A100, ("nic", 7)).cluster).node(1).places
    assert last[7].nic_tx == last[0].nic_tx
    ring = [(node, gpu) for node in range(2) for gpu in range(8)]
    before, after = (ring_demand("all_reduce", 8e9, ring, cluster) for cluster in (whole, lacking))
    assert whole.resource(before.bound_by).kind == lacking.resource(after.bound_by).kind == "nic.tx"
    assert after.duration == pytest.approx(8 / 7 * before.duration, rel=1e-12)


def test_a_gpu_without_nvlink_is_reached_over_pcie():
    lacking = build(broken(A100, ("nvlink", 5)).cluster)
    kind, link = lacking.node(1), A100.cluster.host_link
    assert names(lacking, 1, kind.peer[0][1]) == ["gpu0.nvlink.tx", "gpu1.nvlink.rx"]
    detour = names(lacking, 1, kind.peer[4][5])
    assert detour[0] == "gpu4.pcie.d2h"
    assert "gpu5.pcie.h2d" in detour
    assert not [name for name in names(lacking, 1, kind.peer[0][5]) if "nvlink" in name or "gpu4" in name]
    cost = ring_demand("all_gather", 8e9, [(1, gpu) for gpu in range(8)], lacking)
    slowest = min(link.h2d, link.d2h, link.uplink)
    assert cost.duration >= 8e9 * 7 / 8 / slowest * (1 - 1e-12)


def test_a_missing_link_shows_in_the_step_and_folds():
    base = rings(data_parallel(16, base=A100, nodes=2))
    for part in (("nic", 2), ("nvlink", 6)):
        hurt = broken(base, part)
        folded, whole = simulate(hurt), simulate(hurt, fold=False)
        assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-9)
        assert folded.result.step_time > simulate(base).result.step_time
        assert folded.result.rank_classes < 16


def test_a_node_without_any_adapter_is_alone():
    lone = broken(data_parallel(16, base=A100, nodes=2), *(("nic", n) for n in range(8)))
    said = (
        'cluster "dgx-a100" has no NIC left in node 1, whose ranks cannot reach other nodes; leave it one in '
        "cluster.variations, or place no rank there with layout.placement"
    )
    with pytest.raises(InfeasibleError) as caught:
        simulate(lone)
    assert str(caught.value) == said
    inside = replace(lone, layout=replace(lone.layout, dp=8, placement=tuple(range(8, 16))), batch=A100.batch)
    assert simulate(inside).result.step_time > 0


def test_half_an_adapter_and_a_missing_one():
    """A part at half speed keeps its place in a node that lacks another."""
    half = VariationSpec(node=1, part="nic", index=4, speed=0.5)
    spec = broken(A100, ("nic", 3)).cluster
    cluster = build(replace(spec, variations=(half, *spec.variations)))
    number = cluster.at(1, cluster.node(1).places[4].nic_tx)
    usual = cluster.at(1, cluster.node(1).places[5].nic_tx)
    rates = cluster.capacities(np.array([number, usual]))
    assert rates[0] == 0.5 * rates[1]


# -- files


def test_a_mixed_cluster_from_names():
    mixed = "cluster={extends: dgx-a100, nodes: 2, others: [{node: dgx-h100, count: 2}, {node: hgx-h200}]}"
    cluster = load("quickstart", [*TINY, mixed, "layout.dp=8", "batch.size=null"]).scenario.cluster
    assert [m.device.name for m in cluster.machines] == ["a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm-141gb"]
    assert cluster.machine_of_node == (0, 0, 1, 1, 2)
    assert cluster.gpus == 40


def test_one_key_of_another_node_can_be_set():
    mixed = ["cluster={extends: dgx-a100, others: [{node: dgx-h100}]}", "layout.dp=8", "batch.size=null"]
    memory = load("quickstart", [*mixed, "cluster.others.0.node.device.memory=1GB"]).scenario.cluster.others[0]
    assert memory.node.device.memory == 1e9
    swapped = load("quickstart", [*mixed, "cluster.others.0.node=hgx-h200"]).scenario.cluster.others[0]
    assert swapped.node.name == "hgx-h200"
    assert load("quickstart", [*mixed, "cluster.others.0={node: hgx-h200, count: 3}"]).scenario.cluster.gpus == 32


def test_check_weighs_the_rank_that_is_nearest_to_its_limit():
    mixed = ["cluster={extends: dgx-a100, others: [{node: dgx-h100}]}", "layout.dp=16", "batch.size=null"]
    small = "cluster.others.0.node.device.memory=4GB"
    weights = {w.where: w for w in check("ddp-gpt2-8xa100", [*mixed, small]).weights}
    assert weights["gpu"].capacity == 4e9
    result = run("ddp-gpt2-8xa100", [*mixed, small, "model.layers=2"]).result
    assert {use.capacity for use in result.memory if use.where == "gpu"} == {4e9, 80 * 2**30}
