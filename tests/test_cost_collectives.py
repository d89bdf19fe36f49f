"""Ring collectives, copies and CPU work against closed forms and published figures."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.build import build
from sim.cluster.types import Cluster
from sim.cost.collectives import ring_demand
from sim.cost.copies import copy_cost, host_cost
from sim.cost.traffic import NCCL_RING_BASE_LATENCY, CollectiveCost
from sim.errors import InfeasibleError
from sim.spec.types import ClusterSpec, DeviceSpec, HostLinkSpec, HostSpec, NicSpec, NvlinkSpec

GPU = DeviceSpec(name="g", memory=32e9, hbm_bandwidth=9e12, sms=80, gemm={})
# Two Xeon 8168: about 200 GB/s STREAM for the pair (components/README.md section 4, recalled).
HOST = HostSpec(
    name="xeon",
    sockets=2,
    cores_per_socket=24,
    dram=1.5e12,
    dram_bandwidth=100e9,
    core_bandwidth=12e9,
    socket_link=20e9,
    launch=5e-6,
)
LINK = HostLinkSpec(
    kind="pcie", h2d=12e9, d2h=13e9, duplex=20e9, pageable=6.3e9, latency=1e-5, gpus_per_uplink=2, uplink=12.5e9
)
NVLINK = NvlinkSpec(kind="switch", bandwidth=150e9, efficiency=0.8, base_latency=8.4e-6, step_latency=3.4e-6)
NICS = NicSpec(count=8, bandwidth=10e9, efficiency=0.9, step_latency=14e-6)
SPEC = ClusterSpec(
    name="c", nodes=2, gpus_per_host=8, device=GPU, host=HOST, host_link=LINK, nvlink=NVLINK, nics=NICS, sm_share=0.1
)
KINDS = ["all_reduce", "all_gather", "reduce_scatter", "broadcast"]
MIB = 2**20


def ring(nodes: int, gpus: int = 8) -> list[tuple[int, int]]:
    return [(node, gpu) for node in range(nodes) for gpu in range(gpus)]


def loads(cost: CollectiveCost, cluster: Cluster) -> dict[str, float]:
    """Amounts by name, such as n1.gpu3.hbm."""
    split = [divmod(i, cluster.per_node) for i in cost.ids.tolist()]
    rows = zip(split, cost.amounts.tolist(), strict=True)
    return {f"n{node}.{cluster.kinds[0].resources[local].name}": amount for (node, local), amount in rows}


def total(cost: CollectiveCost, cluster: Cluster, start: str, end: str) -> float:
    return sum(a for name, a in loads(cost, cluster).items() if name.startswith(start) and name.endswith(end))


def alone(cost: CollectiveCost) -> float:
    return cost.latency + cost.duration


def plain(nodes: int, gpus: int, rate: float, step: float) -> Cluster:
    """NVLink at ``rate`` with ``step`` seconds a hop and nothing else in the way."""
    link = NvlinkSpec(kind="switch", bandwidth=rate, efficiency=1.0, base_latency=0.0, step_latency=step)
    ports = replace(LINK, uplink=0.0)
    fast = replace(GPU, hbm_bandwidth=1e18)
    return build(replace(SPEC, nodes=nodes, gpus_per_host=gpus, nvlink=link, host_link=ports, device=fast))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 16), size=st.floats(1e3, 1e11), rate=st.floats(1e9, 1e12), step=st.floats(0, 1e-4))
def test_ring_all_reduce_closed_form(n, size, rate, step):
    """2(n-1)(a + S/(nB)): Patarasuk and Yuan 2009."""
    cost = ring_demand("all_reduce", size, ring(1, n), plain(1, n, rate, step))
    assert alone(cost) == pytest.approx(2 * (n - 1) * (step + size / (n * rate)))


@pytest.mark.parametrize("members", [ring(1), ring(2), ring(2, 3), [(0, 1), (1, 1)], [(0, 0), (0, 1), (1, 0)]])
def test_reduce_scatter_and_all_gather_make_an_all_reduce(members):
    c = build(SPEC)
    both, rs, ag = (ring_demand(kind, 1e9, members, c) for kind in ("all_reduce", "reduce_scatter", "all_gather"))
    assert both.ids.tolist() == rs.ids.tolist() == ag.ids.tolist()
    np.testing.assert_allclose(both.amounts, rs.amounts + ag.amounts, rtol=1e-12)
    assert both.latency + NVLINK.base_latency == pytest.approx(rs.latency + ag.latency)


# An independent simulator's single-chunk ring of 8 (components/collectives_crosscheck.md): 50 GiB/s links, 500 ns a
# hop, times in ns. It adds to each received message of a reduction 3 x message / 1600 GB/s, after the wire; ours
# lets HBM run beside the links, so the oracle adds that term here. Its all_gather size is the shard. It cuts
# every delay to whole ns and waits 1 ns at an endpoint: at most 3 ns in each of up to 14 steps and 7 reductions.
CROSSCHECK = [
    ("all_reduce", 1, 42890),
    ("all_reduce", 64, 2304597),
    ("all_reduce", 1024, 36768621),
    ("all_gather", 1, 140225),
    ("all_gather", 64, 8753508),
    ("all_gather", 1024, 140003508),
    ("reduce_scatter", 1, 22296),
    ("reduce_scatter", 64, 1207340),
    ("reduce_scatter", 1024, 19265114),
]


@pytest.mark.parametrize(("kind", "mib", "published"), CROSSCHECK)
def test_ring_of_eight_agrees_with_an_independent_simulator(kind, mib, published):
    size = mib * MIB * (8 if kind == "all_gather" else 1)
    wire = alone(ring_demand(kind, size, ring(1), plain(1, 8, 50 * 2**30, 500e-9)))
    reduction = 0.0 if kind == "all_gather" else 7 * 3 * (size / 8) / 1600e9
    assert (wire + reduction) * 1e9 == pytest.approx(published, abs=3 * 21)


def test_bus_bandwidth_of_a_dgx_2():
    """NVIDIA's reference for V100 NVLink2 is 122 GB/s of 150 a direction: reached by large buffers, not by small."""
    link = replace(NVLINK, efficiency=122 / 150)
    c = build(replace(SPEC, nodes=1, gpus_per_host=16, nvlink=link, device=replace(GPU, hbm_bandwidth=900e9)))

    def bus(size: float) -> float:
        return 2 * 15 / 16 * size / alone(ring_demand("all_reduce", size, ring(1, 16), c))

    assert bus(4 * 2**30) == pytest.approx(122e9, rel=0.005)
    assert bus(MIB) < 0.2 * 122e9
    assert c.resource(ring_demand("all_reduce", 1e9, ring(1, 16), c).bound_by).kind in ("nvlink.tx", "nvlink.rx")


def test_a_node_boundary_carries_the_ring_over_all_nics():
    c, size = build(SPEC), 1e9
    cost = ring_demand("all_reduce", size, ring(2), c)
    crossing = 2 * size * 15 / 16
    for node in ("n0.", "n1."):
        for way in ("nic.tx", "nic.rx"):
            assert total(cost, c, node, way) == pytest.approx(crossing)
        # Eight channels of seven hops inside the node, an eighth of the bytes each.
        assert total(cost, c, node, "nvlink.tx") == pytest.approx(7 * crossing)
    assert loads(cost, c)["n1.nic5.nic.tx"] == pytest.approx(crossing / 8)
    assert cost.duration == pytest.approx(crossing / 8 / 9e9)
    assert c.kinds[0].resources[cost.bound_by % c.per_node].kind == "nic.tx"


def test_one_nic_for_eight_gpus_sets_the_bus_bandwidth():
    c, size = build(replace(SPEC, nics=replace(NICS, count=1))), 1e9
    cost = ring_demand("all_reduce", size, ring(2), c)
    assert 2 * size * 15 / 16 / cost.duration == pytest.approx(9e9)


def test_one_member_a_node_uses_its_own_nic_and_no_nvlink():
    c = build(replace(SPEC, nodes=4))
    cost = ring_demand("reduce_scatter", 4e9, [(node, 3) for node in range(4)], c)
    got = loads(cost, c)
    assert {name.split(".", 1)[1] for name in got} == {"nic3.nic.tx", "nic3.nic.rx", "gpu3.hbm"}
    assert got["n2.nic3.nic.tx"] == pytest.approx(3e9)
    assert cost.latency == pytest.approx(8.4e-6 + 3 * 14e-6)


def test_half_of_a_node_uses_the_nics_of_its_members():
    c = build(SPEC)
    got = loads(ring_demand("all_gather", 8e9, [(n, g) for n in (0, 1) for g in (1, 3, 5, 7)], c), c)
    assert [name for name in got if name.endswith("nic.tx")] == [
        f"n{n}.nic{g}.nic.tx" for n in (0, 1) for g in (1, 3, 5, 7)
    ]
    assert got["n0.nic3.nic.rx"] == pytest.approx(7e9 / 4)


@pytest.mark.parametrize(("kind", "passes"), [("all_reduce", 2), ("all_gather", 1), ("broadcast", 1)])
def test_latency_counts_steps_in_and_between_nodes_as_nccl_does(kind, passes):
    """base + (steps - inter) intra + inter net; steps = passes x 23, inter = passes x 2 (NCCL src/graph/tuning.cc)."""
    cost = ring_demand(kind, 1e6, ring(3), build(replace(SPEC, nodes=3)))
    assert cost.latency == pytest.approx(8.4e-6 + passes * (21 * 3.4e-6 + 2 * 14e-6))


def test_latency_over_pcie_has_nccls_base_and_the_links_step():
    cost = ring_demand("all_gather", 1e6, ring(1), build(replace(SPEC, nvlink=None)))
    assert cost.latency == pytest.approx(NCCL_RING_BASE_LATENCY + 7 * 1e-5)


@pytest.mark.parametrize(("kind", "passes"), [("reduce_scatter", 3), ("all_gather", 2), ("all_reduce", 5)])
def test_memory_is_read_by_the_sender_and_read_and_written_by_a_reducing_receiver(kind, passes):
    c = build(SPEC)
    got = loads(ring_demand(kind, 8e9, ring(1), c), c)
    assert [a for name, a in got.items() if name.endswith("hbm")] == pytest.approx([passes * 7e9] * 8)


def test_memory_can_be_the_bottleneck():
    c = build(replace(SPEC, device=replace(GPU, hbm_bandwidth=100e9)))
    cost = ring_demand("reduce_scatter", 8e9, ring(1), c)
    assert cost.duration == pytest.approx(3 * 7e9 / 100e9)
    assert c.kinds[0].resources[cost.bound_by].name == "gpu0.hbm"


@pytest.mark.parametrize(("gpus", "kept"), [((0,), 1.0), ((0, 4), 0.25), (tuple(range(8)), 0.25)])
def test_a_ring_through_several_gpus_keeps_a_part_of_the_adapters(gpus, kept):
    """2S(n-1)/n over the adapters of the node's members, at the part of their rate that ``through`` leaves."""
    c = build(replace(SPEC, nodes=4, nics=replace(NICS, count=4, bandwidth=25e9, efficiency=0.8, through=0.25)))
    members = [(node, gpu) for node in range(4) for gpu in gpus]
    cost = ring_demand("all_reduce", 1e9, members, c)
    n, rate = len(members), min(4, len(gpus)) * 25e9 * 0.8 * kept
    assert cost.duration == pytest.approx(2e9 * (n - 1) / n / rate)
    walked = dict(zip(cost.ids.tolist(), cost.amounts.tolist(), strict=True))
    once = ring_demand("broadcast", 1e9, members, c)
    assert (once.amounts > 0).all()
    assert set(once.ids.tolist()) <= set(walked), "what is left out of a ring is left out whole"


def walked_broadcast(members: list[tuple[int, int]], size: float, c: Cluster) -> dict[int, float]:
    """Broadcast walked hop by hop on each channel, with one NIC a GPU and equal nodes: an independent account."""
    nodes = list(dict.fromkeys(node for node, _ in members))
    inside = [[gpu for node, gpu in members if node == which] for which in nodes]
    width = len(inside[0])
    channels = range(width) if len(nodes) > 1 else range(1)
    out: dict[int, float] = {}
    for k in channels:
        walk = [(node, gpus[(k + i) % width]) for node, gpus in zip(nodes, inside, strict=True) for i in range(width)]
        begin = walk.index(members[0])
        walk = walk[begin:] + walk[:begin]
        for (a, i), (b, j) in pairwise(walk):
            link_in, link_out = inside[nodes.index(b)][k], inside[nodes.index(a)][k]
            used = (
                [c.at(a, n) for n in c.kinds[0].peer[i][j]]
                if a == b
                else [c.at(a, c.kinds[0].places[link_out].nic_tx), c.at(b, c.kinds[0].places[link_in].nic_rx)]
            )
            for n in [*used, c.at(a, c.kinds[0].places[i].hbm), c.at(b, c.kinds[0].places[j].hbm)]:
                out[n] = out.get(n, 0.0) + size / len(channels)
    return out


@pytest.mark.parametrize(
    "members", [ring(1), ring(2), ring(3, 4), ring(2, 3), [(1, 2), (0, 2)], [(1, 5), (1, 2), (0, 5), (0, 2)]]
)
@pytest.mark.parametrize("nvlink", [NVLINK, None])
def test_broadcast_carries_the_buffer_over_every_hop_but_the_one_back_to_the_root(members, nvlink):
    c = build(replace(SPEC, nodes=3, nvlink=nvlink))
    cost, expected = ring_demand("broadcast", 1e9, members, c), walked_broadcast(members, 1e9, c)
    got = dict(zip(cost.ids.tolist(), cost.amounts.tolist(), strict=True))
    assert got == pytest.approx(expected)


def test_a_ring_over_pcie_is_bound_by_what_its_members_share():
    """Through host memory, each socket's DRAM carries the hops to its GPUs twice, and a link both ways at once."""
    c, hop = build(replace(SPEC, nodes=1, nvlink=None, p2p=False)), 1e9 * 7 / 8
    cost = ring_demand("all_gather", 1e9, ring(1), c)
    got = loads(cost, c)
    assert got["n0.socket0.dram"] == got["n0.socket1.dram"] == pytest.approx(4 * 2 * hop)
    assert got["n0.gpu3.pcie.duplex"] == got["n0.switch1.uplink.in"] == pytest.approx(2 * hop)
    assert got["n0.socket0-1.socket_link"] == pytest.approx(hop)
    assert cost.duration == pytest.approx(2 * hop / 12.5e9)  # the switch uplink


def test_members_of_a_node_are_brought_together():
    c = build(SPEC)
    mixed = [(0, 0), (1, 0), (0, 1), (1, 1)]
    tidy = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert loads(ring_demand("all_reduce", 1e9, mixed, c), c) == loads(ring_demand("all_reduce", 1e9, tidy, c), c)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    members=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=2, max_size=24, unique=True),
    nics=st.integers(1, 12),
)
def test_whatever_is_sent_is_received_and_nothing_runs_above_capacity(kind, members, nics):
    c = build(replace(SPEC, nodes=3, nics=replace(NICS, count=nics)))
    cost = ring_demand(kind, 1e9, members, c)
    for sent, received in (("nic.tx", "nic.rx"), ("nvlink.tx", "nvlink.rx")):
        assert total(cost, c, "n", sent) == pytest.approx(total(cost, c, "n", received))
    capacity = np.array([c.kinds[0].resources[i % c.per_node].capacity for i in cost.ids.tolist()])
    assert (cost.amounts > 0).all()
    assert (np.diff(cost.ids) > 0).all()
    assert (cost.amounts / capacity).max() == pytest.approx(cost.duration)
    assert cost.bound_by in cost.ids


def test_sm_time_goes_with_the_duration_and_does_not_set_it():
    c = build(SPEC)
    cost = ring_demand("all_reduce", 1e9, ring(1), c)
    assert cost.sm_load == pytest.approx(0.1 * cost.duration)
    assert not [name for name in loads(cost, c) if name.endswith(".sm")]


def test_one_member_costs_nothing():
    cost = ring_demand("all_reduce", 1e9, [(0, 0)], build(SPEC))
    assert (alone(cost), len(cost.ids), cost.bound_by) == (0.0, 0, -1)


def test_nodes_without_nics_are_refused():
    c = build(replace(SPEC, nics=None))
    message = (
        'cluster "c" has no NICs: ranks on several nodes cannot communicate; give nics or keep the group in one node'
    )
    with pytest.raises(InfeasibleError) as caught:
        ring_demand("all_reduce", 1e9, ring(2), c)
    assert str(caught.value) == message
    assert ring_demand("all_reduce", 1e9, ring(1), c).duration > 0


def test_sixteen_thousand_members_cost_milliseconds():
    c, members = build(replace(SPEC, nodes=2048)), ring(2048)
    began = time.process_time()
    cost = ring_demand("all_reduce", 1e9, members, c)
    assert time.process_time() - began < 1.0
    assert len(cost.ids) == 2048 * 8 * 5  # NVLink tx and rx, NIC tx and rx, HBM
    assert cost.duration == pytest.approx(2e9 * 16383 / 16384 / 8 / 9e9)


@pytest.mark.parametrize(
    ("direction", "pinned", "rate"), [("h2d", True, 12e9), ("d2h", True, 12.5e9), ("h2d", False, 6.3e9)]
)
def test_a_lone_copy_runs_at_the_slowest_of_its_path_or_at_the_pageable_rate(direction, pinned, rate):
    """d2h: the link measures 13 GB/s but the switch above it 12.5."""
    c = build(SPEC)
    cost = copy_cost(direction, 1e9, c.kinds[0].places[5], c, 1, pinned=pinned)
    assert (cost.latency, cost.duration) == (1e-5, pytest.approx(1e9 / rate))
    got = loads(cost, c)
    assert set(got.values()) == {1e9}
    way = "in" if direction == "h2d" else "out"
    path = {"socket1.dram", f"switch2.uplink.{way}", f"gpu5.pcie.{direction}", "gpu5.pcie.duplex", "gpu5.hbm"}
    assert set(got) == {f"n1.{name}" for name in path}


def test_a_pageable_copy_without_a_rate_is_refused():
    c = build(replace(SPEC, host_link=replace(LINK, pageable=0.0)))
    with pytest.raises(InfeasibleError, match=r"give host_link\.pageable or pin the host memory"):
        copy_cost("h2d", 1e9, c.kinds[0].places[0], c, 0, pinned=False)


def test_cpu_work_on_a_dgx_2_takes_what_the_log_shows():
    """components/offload.md, item 6: 10.27e9 parameters, optimizer = gradients 1.1-1.2 s + step 6.2-6.5 s.

    The note calls the first part a copy; it is read here as a pass over fp32 gradients, 8 bytes each, on the CPU.
    The fractions were chosen from these times, so this checks bytes and units, not the fractions.
    """
    c = build(SPEC)
    unscale = host_cost(8 * 10.27e9, c.kinds[0].places[0], c, 0, ranks_per_socket=1, fraction=0.7)
    adam = host_cost(28 * 10.27e9, c.kinds[0].places[0], c, 0, ranks_per_socket=1, fraction=0.45)
    assert 1.1 < alone(unscale) < 1.2
    assert 6.2 < alone(adam) < 6.5


def test_ranks_of_a_socket_together_use_all_cores_and_the_fraction_of_dram():
    c, ranks, fraction, size = build(SPEC), 4, 0.6, 1e9
    cost = host_cost(size, c.kinds[0].places[7], c, 1, ranks_per_socket=ranks, fraction=fraction)
    assert cost.duration == pytest.approx(size * ranks / (fraction * 100e9))
    got = loads(cost, c)
    assert set(got) == {"n1.socket1.dram", "n1.socket1.cores"}
    assert ranks * got["n1.socket1.cores"] / cost.duration == pytest.approx(24)
    assert ranks * got["n1.socket1.dram"] / cost.duration == pytest.approx(fraction * 100e9)
