"""Folded equals unfolded on random systems: layouts x schedules x clusters of up to 64 ranks.

Half have variations, half have their ranks placed at random, some have a node of another type or miss a link.

The systems are drawn once from a fixed seed. Every span of every representative, the memory, the breakdown.
"""

import random
from dataclasses import replace

import numpy as np
import pytest

from scenarios import TINY, data_parallel, on
from sim.api import simulate
from sim.spec.load import load
from sim.spec.types import NicSpec, NodeGroupSpec, NvmeSpec, OffloadSpec, VariationSpec

SMALL = load("quickstart", [*TINY, "model.layers=8", "model.hidden=128", "model.ffn=256", "model.vocab=256"]).scenario
SYSTEMS = 300


def draw(number):
    """One system: sizes that multiply to at most 64 ranks, on nodes of 4 or 8 GPUs."""
    pick = random.Random(number)
    tp, pp, cp = pick.choice([(1, 2, 1), (2, 1, 1), (2, 2, 1), (4, 2, 1), (1, 4, 1), (2, 1, 2), (2, 4, 1), (1, 2, 2)])
    most = 64 if number % 10 == 0 else 16  # every rank is simulated: most systems stay small, some do not
    dp = pick.choice([d for d in (1, 2, 4, 8) if tp * pp * cp * d <= most and tp * pp * cp * d % 4 == 0] or [4])
    world = tp * pp * cp * dp
    gpus = pick.choice([g for g in (4, 8) if world % g == 0] or [4])
    layout = {"tp": tp, "pp": pp, "cp": cp, "order": tuple(pick.sample(["tp", "cp", "dp", "pp"], 4))}
    if tp > 1:
        layout |= {"sequence_parallel": pick.random() < 0.5, "tp_overlap": pick.random() < 0.5}
    if cp > 1:
        layout["cp_kind"] = pick.choice(["ring", "all_gather"])
    accumulation = pick.choice([1, 2, 3])
    if pp > 1:
        accumulation = pick.choice([pp, 2 * pp])
        layout["schedule"] = pick.choice(["gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"])
        layout["virtual_stages"] = 2 if layout["schedule"] in ("interleaved", "zb-v") else 1
        layout["p2p_overlap"] = pick.random() < 0.7 or layout["virtual_stages"] > 1
        layout["scatter_gather"] = tp > 1 and not layout["sequence_parallel"] and pick.random() < 0.5
    scenario = data_parallel(dp, pick.choice([0, 1, 2, 3]), base=SMALL, accumulation=accumulation, grad_bucket=2e5)
    layers = max(2, pp * layout.get("virtual_stages", 1))
    scenario = replace(scenario, model=replace(scenario.model, layers=layers))
    scenario = replace(scenario, layout=replace(scenario.layout, **layout), recompute=pick.choice(["none", "full"]))
    link = replace(scenario.cluster.host_link, gpus_per_uplink=1)
    scenario = on(scenario, nodes=max(world // gpus, 1), gpus_per_host=gpus, host_link=link)
    if pick.random() < 0.4:
        adapters = pick.choice([1, 2])
        nics = NicSpec(count=adapters, bandwidth=25e9, efficiency=0.9, step_latency=1e-5, through=0.5)
        scenario = on(scenario, nics=nics)
    if number % 3 == 0:
        scenario = _with_experts(pick, scenario)
    if number % 5 == 0:
        scenario = _offloaded(pick, scenario)
    if number % 2:
        scenario = on(scenario, variations=tuple(_variation(pick, scenario) for _ in range(pick.choice([1, 2]))))
    if number % 5 == 0 and scenario.cluster.nodes > 1:
        scenario = _with_another_node(pick, scenario)
    if scenario.layout.zero in (1, 2):
        scenario = replace(scenario, layout=replace(scenario.layout, overlap_param_gather=pick.random() < 0.5))
    if number % 4 < 2:
        scenario = replace(scenario, layout=replace(scenario.layout, placement=_placement(pick, scenario)))
    layout, lone = scenario.layout, scenario.layout.pp == 1 and scenario.batch.accumulation > 1
    if number % 6 == 0 and layout.ep > 1 and layout.zero < 3 and (lone or layout.schedule == "interleaved"):
        scenario = replace(scenario, layout=replace(layout, expert_overlap=True))
    if number % 9 == 0:
        scenario = replace(scenario, model=replace(scenario.model, mtp_layers=1))
    return scenario


def _offloaded(pick, scenario):
    """Optimizer and more on the host or on drives, with slow links, so that copies contend."""
    layout, drives = scenario.layout, pick.random() < 0.3
    zero = pick.choice([1, 2, 3])
    offload = OffloadSpec(
        optimizer="nvme" if drives else "cpu",
        gradients="cpu",
        parameters=pick.choice(["none", "cpu"]) if zero == 3 else "none",
        activations="cpu" if layout.pp == 1 and pick.random() < 0.4 else "none",
        update="after" if drives else pick.choice(["after", "delayed", "speculative"]),
        accumulate=pick.choice(["host", "gpu"]),
        casts=pick.choice(["host", "gpu"]),
        sub_group=30_000 if drives else 0,
        threads=pick.choice([0, 1]),
    )
    host = replace(scenario.cluster.host, dram_bandwidth=2e10, core_bandwidth=2e9)
    scenario = on(scenario, host=host, nvme=NvmeSpec(read=6e9, write=3e9, capacity=1e12))
    return replace(scenario, offload=offload, layout=replace(layout, zero=zero, dp_replicate=1))


def _with_experts(pick, scenario):
    """Experts over some of a stage's ranks, within nodes or across; a dense layer first, sometimes."""
    layout = scenario.layout
    ranks = layout.dp * layout.cp * layout.tp
    ep = pick.choice([e for e in (1, 2, 4, 8) if ranks % e == 0])
    model = replace(
        scenario.model, experts=8, top_k=2, moe_ffn=64, mlp_bias=False, first_dense_layers=pick.choice([0, 1]),
        shared_experts=pick.choice([0, 1]),
    )  # fmt: skip
    dispatch = pick.choice(["all_to_all", "once_per_node"])
    changed = replace(
        layout, ep=ep, sequence_parallel=layout.tp > 1, scatter_gather=False, expert_dispatch=dispatch,
        expert_imbalance=pick.choice([1.0, 1.3]) if ep > 1 else 1.0,
    )  # fmt: skip
    return replace(scenario, model=model, layout=changed)


def _with_another_node(pick, scenario):
    """The last node is of another type: another GPU, host, links and adapters."""
    first = scenario.cluster
    device = replace(first.device, name="other", hbm_bandwidth=pick.choice([1.0, 0.6]) * first.device.hbm_bandwidth)
    other = replace(
        first, nodes=1, device=device, variations=(), host=replace(first.host, launch=2 * first.host.launch),
        nvlink=replace(first.nvlink, bandwidth=0.7 * first.nvlink.bandwidth), sm_share=0.2,
        nics=NicSpec(count=pick.choice([1, 4]), bandwidth=12.5e9, efficiency=0.9, step_latency=2e-5),
    )  # fmt: skip
    kept = tuple(v for v in first.variations if v.node < first.nodes - 1)
    return on(scenario, nodes=first.nodes - 1, others=(NodeGroupSpec(count=1, node=other),), variations=kept)


def _placement(pick, scenario):
    """Scattered, two ranks changed places, or all of them: the fewer ranks, the more may differ."""
    world = scenario.layout.world
    devices = pick.sample(range(scenario.cluster.gpus), world)
    if world > 16 or pick.random() < 0.4:
        devices = list(range(world))
        a, b = pick.sample(devices, 2)
        devices[a], devices[b] = b, a
    return pick.choice(["scattered", tuple(devices)])


def _variation(pick, scenario):
    part = pick.choice(["gpu", "hbm", "nvlink", "nic"])
    count = scenario.cluster.gpus_per_host
    if part == "nic":
        count = min(count, scenario.cluster.nics.count)
    lone = part == "nic" and count == 1  # without it the node would be cut off
    missing = part in ("nvlink", "nic") and not lone and pick.random() < 0.3
    return VariationSpec(
        node=pick.randrange(scenario.cluster.nodes),
        part=part,
        index=pick.randrange(count),
        speed=0.0 if missing else pick.choice([0.5, 0.8]),
    )


def spans_of(timeline, rank_class):
    spans = timeline.spans
    mine = np.flatnonzero(np.array([op.rank_class for op in timeline.ops])[spans.op] == rank_class)
    names = [timeline.ops[o].name for o in spans.op[mine].tolist()]
    rows = zip(names, spans.action[mine].tolist(), spans.start[mine].tolist(), spans.end[mine].tolist(), strict=True)
    return sorted(rows, key=lambda row: (row[1], row[0], row[2]))


@pytest.mark.parametrize("number", range(SYSTEMS))
def test_folded_equals_unfolded(number):
    scenario = draw(number)
    folded, whole = simulate(scenario), simulate(scenario, fold=False)
    step = whole.result.step_time
    assert folded.result.step_time == pytest.approx(step, rel=1e-9)
    assert sum(row.members for row in folded.timeline.rank_classes) == scenario.layout.world
    for category, seconds in whole.result.breakdown.items():
        assert folded.result.breakdown.get(category, 0.0) == pytest.approx(seconds, rel=1e-6, abs=1e-9 * step)
    assert max(u.peak for u in folded.result.memory) == pytest.approx(max(u.peak for u in whole.result.memory))
    for mine, row in enumerate(folded.timeline.rank_classes):
        its = next(i for i, r in enumerate(whole.timeline.rank_classes) if r.representative == row.representative)
        a, b = spans_of(folded.timeline, mine), spans_of(whole.timeline, its)
        assert [r[:2] for r in a] == [r[:2] for r in b]
        assert np.allclose([r[2:] for r in a], [r[2:] for r in b], rtol=1e-9, atol=1e-9 * step)


def test_variations_split_classes_and_slow_the_step():
    """A GPU at half its clock: the slow one and the others, who use neither socket nor uplink here."""
    base = load("ddp-gpt2-8xa100", ["model.layers=4"]).scenario
    plain, slow = (
        simulate(base),
        simulate(on(base, variations=(VariationSpec(node=0, part="gpu", index=3, speed=0.5),))),
    )
    assert (plain.result.rank_classes, slow.result.rank_classes) == (1, 2)
    assert slow.result.step_time > 1.2 * plain.result.step_time
