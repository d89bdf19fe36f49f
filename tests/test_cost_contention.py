"""Who shares a link waits: exchanges at once on one network, each against what arithmetic says, folded and not.

In all of them latencies are nought and SM shares too, so that a lone exchange takes the bytes of its busiest link over
that link's rate. ``s`` is the common speed that max-min fairness gives (design, section 2).
"""

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as changed
from test_cost_algorithms import machine

from scenarios import A100, on
from sim.cluster.build import build
from sim.cost.lower import lower
from sim.engine.core import simulate as run_plan
from sim.spec.types import CollectivesSpec, FabricSpec
from sim.workload.ops import Action, Block, Collective, Kernel, Op, RankProgram, Workload

GIB = 2.0**30
PORT, NIC = 400.0, 50.0  # GiB/s of a GPU's NVLink and of an adapter


def at_once(spec, *exchanges, fold):
    """Seconds until each of ``exchanges`` ends; one is (kind, whole buffer in bytes, groups of ranks)."""
    world = spec.nodes * spec.gpus_per_host
    axes = {f"x{i}": np.array(groups, dtype=np.int64) for i, (_, _, groups) in enumerate(exchanges)}
    works = [Collective(kind=kind, axis=f"x{i}", size=size) for i, (kind, size, _) in enumerate(exchanges)]
    mine = [tuple(i for i, groups in enumerate(axes.values()) if rank in groups) for rank in range(world)]
    lives = list(dict.fromkeys(mine))
    workload = Workload(
        programs=tuple(_program([works[i] for i in life]) for life in lives),
        program_of_rank=np.array([lives.index(life) for life in mine], dtype=np.int64),
        groups=axes, tokens=1, model_flops=1.0, hardware_flops=1.0,
    )  # fmt: skip
    scenario = replace(A100, cluster=spec, layout=replace(A100.layout, dp=world))
    timeline = run_plan(lower(workload, build(spec), scenario, fold=fold))
    ends = dict[str, list[float]]()
    for op, end in zip(timeline.spans.op.tolist(), timeline.spans.end.tolist(), strict=True):
        ends.setdefault(timeline.ops[op].name, []).append(end)
    return [ends[work.axis] for work in works]


def _program(works):
    ops = tuple(Op(name=w.axis, work=w, stream=f"s{w.axis}", phase="B", category="dp") for w in works)
    return RankProgram(
        name=str([w.axis for w in works]), blocks=(Block(name="b", ops=ops),), actions=(Action(block=0, microbatch=0),),
        resident_gpu=(), resident_host=(),
    )  # fmt: skip


def network(nodes, *, adapters=8, **keys):
    """Nodes of eight: ports of 400 GiB/s, adapters of 50."""
    spec = machine(nodes, rate=PORT, step=0.0, nic=NIC, hop=0.0).spec
    spec = replace(spec, nics=replace(spec.nics, count=adapters), sm_share=0.0, **keys)
    return on(replace(A100, cluster=spec), host=replace(spec.host, launch=1e-15)).cluster


def pairs(shift=0):
    """Eight groups of two: GPU g of node 0 and GPU g + shift of node 1."""
    return [[g, 8 + (g + shift) % 8] for g in range(8)]


both = pytest.mark.parametrize("fold", [True, False])


@both
def test_eight_rings_through_one_adapter(fold):
    """A ring of two sends S(2 x 1/2) each way; eight of them through one adapter take eight times as long."""
    for adapters in (8, 1):
        (ends,) = at_once(network(2, adapters=adapters), ("all_reduce", GIB, pairs()), fold=fold)
        assert ends == pytest.approx([8 / adapters / NIC] * len(ends))


@both
def test_tensor_parallel_inside_and_data_parallel_across_share_nothing_when_tensors_fill_nodes(fold):
    inside = [list(range(8)), list(range(8, 16))]
    tensors, data = at_once(network(2), ("all_reduce", GIB, inside), ("all_reduce", GIB, pairs()), fold=fold)
    assert tensors == pytest.approx([2 * 7 / 8 / PORT] * len(tensors))
    assert data == pytest.approx([1 / NIC] * len(data))


@both
def test_tensor_parallel_inside_and_data_parallel_across_share_ports_when_two_replicas_sit_in_a_node(fold):
    """Tensors over four GPUs, two replicas a node, two nodes: data rings of four cross NVLink and an adapter.

    A data ring sends m = 2S(3/4) over each hop, in two channels: m/2 by each adapter (time D = m/2/NIC), m/2 by each
    port. Tensors load a port fully (time T), data by a = NIC/PORT: s = 1/(1 + a) for both while both run. So tensors
    (shorter) end at T(1 + a), data, which have done T by then, at T(1 + a) + D - T = D + aT.
    """
    inside = [list(range(i, i + 4)) for i in range(0, 16, 4)]
    across = [[g, g + 4, g + 8, g + 12] for g in range(4)]
    tensors, data = at_once(network(2), ("all_reduce", GIB, inside), ("all_reduce", GIB, across), fold=fold)
    a, long, short = NIC / PORT, 1.5 / 2 / NIC, 1.5 / PORT
    assert tensors == pytest.approx([short * (1 + a)] * len(tensors))
    assert data == pytest.approx([long + a * short] * len(data))


def over(nodes, ratio, *, rails=False):
    return network(nodes, fabric=FabricSpec(nodes_per_leaf=2, oversubscription=ratio, rails=rails))


def job(*nodes):
    return [[8 * node + gpu for node in nodes for gpu in range(8)]]


@both
def test_two_jobs_on_one_oversubscribed_spine(fold):
    """Leaves {0, 1}, {2, 3} whose uplinks carry U = 2 x 8 x NIC / 4. A job over both leaves sends m = 2S(15/16) up.

    On leaves of their own jobs take m / (8 NIC); a lone job over the spine m / U, twice that; two at once twice again.
    The shorter of two (half the bytes) ends at 2 x its own time, the longer when all bytes are through.
    """
    spec, moved = over(4, 4.0), 2 * 15 / 16
    up = 2 * 8 * NIC / 4
    apart = at_once(spec, ("all_reduce", GIB, job(0, 1)), ("all_reduce", GIB, job(2, 3)), fold=fold)
    assert np.concatenate(apart) == pytest.approx(moved / (8 * NIC))
    (lone,) = at_once(spec, ("all_reduce", GIB, job(0, 2)), fold=fold)
    assert lone == pytest.approx([moved / up] * len(lone))
    equal = at_once(spec, ("all_reduce", GIB, job(0, 2)), ("all_reduce", GIB, job(1, 3)), fold=fold)
    assert np.concatenate(equal) == pytest.approx(2 * moved / up)
    short, long = at_once(spec, ("all_reduce", GIB / 2, job(0, 2)), ("all_reduce", GIB, job(1, 3)), fold=fold)
    assert short == pytest.approx([moved / up] * len(short))
    assert long == pytest.approx([1.5 * moved / up] * len(long))


@both
def test_rail_aligned_groups_leave_the_spine_alone_and_crossing_ones_share_it(fold):
    """Rings of two send S each way. On its rail a ring meets adapters only. From rail g to g + 1 it climbs two leaves:
    each rail's uplink (2 NIC / 4) carries two rings' S each way: 2S / (NIC / 2), four times as long.
    """  # fmt: skip
    spec = over(2, 4.0, rails=True)
    (aligned,) = at_once(spec, ("all_reduce", GIB, pairs()), fold=fold)
    (crossing,) = at_once(spec, ("all_reduce", GIB, pairs(1)), fold=fold)
    assert aligned == pytest.approx([1 / NIC] * len(aligned))
    assert crossing == pytest.approx([4 / NIC] * len(crossing))


def beside(kind, **collectives):
    """Seconds of a compute-bound kernel under a collective of eight GPUs, alone, and of the collective."""
    spec = on(replace(A100, cluster=network(1)), sm_share=0.2).cluster
    link = replace(spec.nvlink, in_switch=1.0)
    asked = CollectivesSpec(**collectives, protocol="simple")
    spec = replace(spec, device=A100.cluster.device, nvlink=link, nics=None, collectives=asked)
    kernel = Kernel(
        name="k", kind="gemm", flops=2.0 * 16384**3, bytes_read=1.0, bytes_written=1.0, m=16384, n=16384, k=16384,
        dtype="bf16",
    )  # fmt: skip
    work = Collective(kind=kind, axis="x0", size=4 * GIB)
    ops = (
        Op(name="kernel", work=kernel, stream="compute", phase="B", category="backward"),
        Op(name="x0", work=work, stream="sx0", phase="B", category="dp"),
    )
    program = changed(_program([]), blocks=(Block(name="b", ops=ops),))
    workload = Workload(
        programs=(program,), program_of_rank=np.zeros(8, dtype=np.int64), tokens=1, model_flops=1.0,
        hardware_flops=1.0, groups={"x0": np.arange(8, dtype=np.int64)[None, :]},
    )  # fmt: skip
    scenario = replace(A100, cluster=spec, layout=replace(A100.layout, dp=8))
    timeline = run_plan(lower(workload, build(spec), scenario))
    took = {
        timeline.ops[op].name: end
        for op, end in zip(timeline.spans.op.tolist(), timeline.spans.end.tolist(), strict=True)
    }
    kernels = next(op for op in timeline.ops if op.name == "kernel")
    return took["kernel"], kernels.latency + kernels.duration, took["x0"]


@pytest.mark.parametrize(
    ("kind", "asked", "share"),
    [
        ("all_reduce", {"all_reduce": "ring"}, 0.2),
        ("all_reduce", {"all_reduce": "nvls"}, 0.1),  # half the channels
        ("all_gather", {}, 0.2),
        ("all_gather", {"copy_engines": True}, 0.0),
        ("reduce_scatter", {"copy_engines": True}, 0.2),  # copy engines cannot add
        ("all_to_all", {"copy_engines": True}, 0.0),
    ],
)
def test_a_kernel_gives_up_the_sms_that_a_collective_takes(kind, asked, share):
    """While the collective runs, for D seconds, it keeps its part of the SMs: the kernel ends share x D later."""
    under, alone, collective = beside(kind, **asked)
    assert collective < alone
    assert under == pytest.approx(alone + share * collective, rel=1e-6)
