"""Looking at a machine: lone rates between any two GPUs, what several of them share, a drawing, errors in words."""

import pytest
from typer.testing import CliRunner

from sim.api import topology
from sim.cli import app
from sim.errors import ScenarioError
from sim.spec.catalogue import names


def test_gpus_of_a_switch_reach_each_other_at_nvlink_speed():
    (node,) = topology("dgx-h100")
    rates = {node.pair[i][j] for i in range(8) for j in range(8) if i != j}
    assert rates == {450e9 * 0.81}
    assert set(node.to_gpu) == {55e9}
    assert set(node.network) == {50e9 * 0.95}


def test_without_nvlink_copies_cross_pcie_and_between_sockets_their_link():
    (node,) = topology("a100-pcie-x8", ["cluster.host.socket_link=7GB/s"])
    assert node.pair[0][1] == 25e9
    assert node.pair[0][7] == 7e9


def test_what_pairs_quads_and_sockets_share_is_named():
    (node,) = topology("dgx-2")
    groups = {(one.resource, one.what): one.gpus for one in node.shared}
    assert groups["switch0.uplink.in", "copies to the GPU"] == (0, 1, 2, 3)
    assert groups["socket1.dram", "copies to the host"] == tuple(range(8, 16))
    assert groups["nic0.nic.tx", "messages to other nodes"] == (0, 1)


def test_kinds_of_node_are_counted():
    assert [node.count for node in topology("dgx-h100-x64")] == [64]
    lost = "cluster.variations=[{node: 3, part: nic, index: 0, speed: 0}]"
    views = topology("dgx-h100-x2", ["cluster.nodes=4", lost])
    assert sorted(node.count for node in views) == [1, 3]


@pytest.mark.parametrize("name", [*names("clusters"), *names("nodes")])
def test_every_shipped_machine_can_be_looked_at(name):
    for node in topology(name):
        assert all(rate > 0 for i, row in enumerate(node.pair) for j, rate in enumerate(row) if i != j)
        assert all(rate > 0 for rate in (*node.to_gpu, *node.to_host))


def test_the_command_prints_and_draws(tmp_path):
    done = CliRunner().invoke(app, ["topology", "show", "dgx-2", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.output.splitlines() if line.lstrip()[:2].strip().isdigit()) <= 80
    assert "shared: switch3.uplink.out" in done.output
    assert (tmp_path / "dgx-2.png").stat().st_size > 10_000


def test_an_unknown_machine_is_bad_input():
    with pytest.raises(ScenarioError, match="did you mean"):
        topology("dgx-h10")
