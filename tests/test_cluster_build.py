"""A built cluster against hand-drawn nodes: what each route crosses, what each resource can carry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.build import build
from sim.cluster.types import Cluster
from sim.errors import InfeasibleError
from sim.spec.types import ClusterSpec, DeviceSpec, HostLinkSpec, HostSpec, NicSpec, NvlinkSpec, NvmeSpec

GPU = DeviceSpec(name="g", memory=32e9, hbm_bandwidth=900e9, sms=80, gemm={})
HOST = HostSpec(
    name="two sockets",
    sockets=2,
    cores_per_socket=24,
    dram=1e12,
    dram_bandwidth=100e9,
    core_bandwidth=12e9,
    socket_link=20e9,
    launch=5e-6,
)
LINK = HostLinkSpec(
    kind="pcie", h2d=12e9, d2h=13e9, duplex=20e9, pageable=6e9, latency=1e-5, gpus_per_uplink=2, uplink=12.5e9
)
NVLINK = NvlinkSpec(kind="switch", bandwidth=150e9, efficiency=0.8, base_latency=1e-5, step_latency=2e-6)
NICS = NicSpec(count=8, bandwidth=25e9, efficiency=0.96, step_latency=1e-5)
NODE = ClusterSpec(name="c", nodes=1, gpus_per_host=8, device=GPU, host=HOST, host_link=LINK, nvlink=NVLINK, nics=NICS)


def names(cluster: Cluster, route: tuple[int, ...]) -> list[str]:
    return [cluster.kinds[0].resources[i].name for i in route]


def capacity(cluster: Cluster) -> dict[str, float]:
    return {r.name: r.capacity for r in cluster.kinds[0].resources}


def test_host_path_crosses_dram_uplink_link_and_hbm():
    c = build(NODE)
    down = ["socket1.dram", "switch2.uplink.in", "gpu5.pcie.h2d", "gpu5.pcie.duplex", "gpu5.hbm"]
    up = ["gpu5.hbm", "gpu5.pcie.d2h", "gpu5.pcie.duplex", "switch2.uplink.out", "socket1.dram"]
    assert names(c, c.kinds[0].places[5].h2d) == down
    assert names(c, c.kinds[0].places[5].d2h) == up


def test_own_root_port_and_independent_directions_leave_no_uplink_and_no_duplex():
    c = build(replace(NODE, host_link=replace(LINK, uplink=0.0, duplex=25e9)))
    assert names(c, c.kinds[0].places[0].h2d) == ["socket0.dram", "gpu0.pcie.h2d", "gpu0.hbm"]
    assert not [r.name for r in c.kinds[0].resources if "duplex" in r.name or "uplink" in r.name]


def test_peers_prefer_nvlink_ports():
    c = build(replace(NODE, p2p=False))
    assert names(c, c.kinds[0].peer[0][7]) == ["gpu0.nvlink.tx", "gpu7.nvlink.rx"]
    assert c.kinds[0].peer == build(replace(NODE, nvlink=replace(NVLINK, kind="mesh"), p2p=False)).kinds[0].peer


def test_boards_of_gpus_are_joined_by_a_bridge():
    """Two boards of four: ports inside, ports and the bridge of that direction between."""
    c = build(replace(NODE, nvlink=replace(NVLINK, board=4, bridge=80e9)))
    assert names(c, c.kinds[0].peer[0][3]) == ["gpu0.nvlink.tx", "gpu3.nvlink.rx"]
    assert names(c, c.kinds[0].peer[0][7]) == ["gpu0.nvlink.tx", "board0-1.nvlink.bridge", "gpu7.nvlink.rx"]
    assert names(c, c.kinds[0].peer[7][0]) == ["gpu7.nvlink.tx", "board1-0.nvlink.bridge", "gpu0.nvlink.rx"]
    assert capacity(c)["board0-1.nvlink.bridge"] == 80e9


@pytest.mark.parametrize(
    ("a", "b", "between"),
    [
        (0, 1, []),  # below one switch
        (0, 2, ["switch0.uplink.out", "switch1.uplink.in"]),
        (0, 7, ["switch0.uplink.out", "socket0-1.socket_link", "switch3.uplink.in"]),
        (7, 0, ["switch3.uplink.out", "socket1-0.socket_link", "switch0.uplink.in"]),
    ],
)
def test_peer_access_over_pcie_crosses_only_what_lies_between(a, b, between):
    c = build(replace(NODE, nvlink=None))
    sends, gets = [f"gpu{a}.pcie.d2h", f"gpu{a}.pcie.duplex"], [f"gpu{b}.pcie.h2d", f"gpu{b}.pcie.duplex"]
    assert names(c, c.kinds[0].peer[a][b]) == sends + between + gets


def test_without_peer_access_bytes_are_written_to_and_read_from_the_receivers_dram():
    c = build(replace(NODE, nvlink=None, p2p=False))
    near, far = Counter(names(c, c.kinds[0].peer[0][1])), Counter(names(c, c.kinds[0].peer[0][7]))
    assert near["socket0.dram"] == 2
    assert near["switch0.uplink.out"] == near["switch0.uplink.in"] == 1
    assert (far["socket0.dram"], far["socket0-1.socket_link"], far["socket1.dram"]) == (0, 1, 2)


def test_capacities_are_what_transfers_sustain():
    got = capacity(build(NODE))
    assert got["gpu0.nvlink.tx"] == pytest.approx(120e9)
    assert got["nic0.nic.tx"] == pytest.approx(24e9)
    assert (got["gpu0.sm"], got["gpu0.hbm"], got["socket0.cores"]) == (1.0, 900e9, 24.0)
    assert (got["gpu0.pcie.h2d"], got["gpu0.pcie.d2h"], got["gpu0.pcie.duplex"]) == (12e9, 13e9, 20e9)


@pytest.mark.parametrize(("count", "served"), [(8, 8), (4, 4), (1, 1), (16, 8), (12, 8)])
def test_nics_are_shared_evenly_and_none_is_lost(count, served):
    c = build(replace(NODE, nics=replace(NICS, count=count)))
    used = [p.nic_tx for p in c.kinds[0].places]
    assert len(set(used)) == len({p.nic_rx for p in c.kinds[0].places}) == served
    assert set(Counter(used).values()) == {8 // served}
    assert sum(c.kinds[0].resources[i].capacity for i in sorted(set(used))) == pytest.approx(count * 24e9)


def test_what_a_node_lacks_has_no_number():
    place = build(replace(NODE, nvlink=None, nics=None)).kinds[0].places[0]
    assert (place.nvlink_tx, place.nvlink_rx, place.nic_tx, place.nic_rx) == (-1, -1, -1, -1)


def test_nvme_set_belongs_to_the_node():
    got = capacity(build(replace(NODE, nvme=NvmeSpec(read=10e9, write=5e9, capacity=4e12))))
    assert (got["nvme.nvme.read"], got["nvme.nvme.write"]) == (10e9, 5e9)


def test_all_nodes_share_one_description():
    one, many = build(NODE), build(replace(NODE, nodes=2048))
    (few,), (lots,) = one.kinds, many.kinds
    assert (few.resources, few.places, few.peer) == (lots.resources, lots.places, lots.peer)
    assert many.at(2047, 3) == 2047 * many.per_node + 3


def test_a_switch_on_two_sockets_is_refused():
    with pytest.raises(InfeasibleError, match="GPUs 3 to 5 share a PCIe switch but sit on sockets 0 and 1"):
        build(replace(NODE, host_link=replace(LINK, gpus_per_uplink=3)))


def test_sockets_without_a_link_are_refused_only_when_gpus_must_cross():
    host = replace(HOST, socket_link=0.0)
    with pytest.raises(InfeasibleError, match='"c": GPU 0 has no route to GPU 4 of its node'):
        build(replace(NODE, host=host, nvlink=None))
    assert build(replace(NODE, host=host)).kinds[0].peer[0][4]


@settings(max_examples=40, deadline=None)
@given(
    gpus=st.sampled_from([1, 2, 4, 8, 16]),
    sockets=st.sampled_from([1, 2]),
    gpu_link=st.sampled_from(["nvlink", "p2p", "host memory"]),
    uplink=st.sampled_from([0.0, 12.5e9]),
    nics=st.integers(0, 20),
)
def test_every_route_starts_at_the_sender_ends_at_the_receiver_and_touches_no_third_gpu(
    gpus, sockets, gpu_link, uplink, nics
):
    spec = replace(
        NODE,
        gpus_per_host=gpus,
        host=replace(HOST, sockets=sockets),
        host_link=replace(LINK, uplink=uplink, gpus_per_uplink=max(1, gpus // 4)),
        nvlink=NVLINK if gpu_link == "nvlink" else None,
        p2p=gpu_link == "p2p",
        nics=replace(NICS, count=nics),
    )
    c = build(spec)
    assert Counter(p.socket for p in c.kinds[0].places).most_common()[0][1] == -(-gpus // sockets)
    for a in range(gpus):
        for b in range(gpus):
            route = names(c, c.kinds[0].peer[a][b])
            assert (route == []) == (a == b)
            owners = [n.split(".")[0] for n in route if n.startswith("gpu")]
            assert owners == sorted(owners, key=lambda g, first=f"gpu{a}": g != first)
            assert set(owners) <= {f"gpu{a}", f"gpu{b}"}
            assert not [n for n in route if n.startswith("nic")]


def test_a_build_is_the_same_in_every_process():
    code = "import test_cluster_build as t; c = t.build(t.NODE); print(c.kinds)"
    outs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outs[0] == outs[1]
