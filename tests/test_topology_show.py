"""Looking at a machine: lone rates between any two GPUs, what several of them share, a drawing, errors in words."""

import pytest
from typer.testing import CliRunner

from sim.api import network, topology
from sim.cli import app
from sim.errors import ScenarioError
from sim.report.network import network_figure
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


def test_many_gpus_that_are_all_alike_are_one_line():
    """A rack of 72 behind one switch: no matrix of 5,184 equal numbers; sixteen behind switches are still a matrix."""
    said = CliRunner().invoke(app, ["topology", "show", "gb200-nvl72"]).output
    assert "every GPU: 684 to every other, 193 to the host and 201 from it" in said
    assert "shared: 36 x socket*.dram, 381 GB/s, by 2 GPUs each (copies to the GPU)" in said
    assert len(said.splitlines()) < 20
    said = CliRunner().invoke(app, ["topology", "show", "dgx-2"]).output
    assert len([line for line in said.splitlines() if line[:4].strip().isdigit()]) == 16


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


def test_leaves_are_shown_with_their_uplinks_and_lone_messages_with_what_they_cross():
    """384 nodes of 8 x 400 Gb/s a pod, a seventh of it up: 47.5 GB/s alone, 47.5 / 7 when all send."""
    view = network("h100-24k-roce")
    assert [(leaf.first, leaf.last) for leaf in view.leaves[:2]] == [(0, 1), (2, 3)]
    assert (len(view.leaves), view.pod) == (8 * 192, 192)
    assert view.core == pytest.approx(192 * view.leaves[0].up / 7)
    near, other, far = view.ways
    for way in (near, other):
        assert (way.rate, way.together, len(way.crosses)) == (47.5e9, 0.0, 2)
    assert far.rate == 47.5e9
    assert far.together == pytest.approx(47.5e9 / 7)
    assert far.crosses[2:] == ("pod0.up", "pod1.down")


def test_a_slow_uplink_is_seen_and_rails_are_counted():
    sets = [
        "cluster.fabric={nodes_per_leaf: 16, oversubscription: 2, rails: true}",
        "cluster.variations=[{node: 1, part: uplink, index: 2, speed: 0.5}]",
    ]
    view = network("dgx-h100-x64", sets)
    assert view.rails == 8
    assert view.leaves[1].up == pytest.approx(view.leaves[0].up * (1 - 0.5 / 8))
    assert [way.where for way in view.ways][1] == "the same nodes, another rail"
    assert view.ways[1].together == pytest.approx(47.5e9 / 2)


def test_a_torus_is_shown_by_its_dimensions():
    view = network("gh200-torus-64")
    assert [(d.kind, d.size) for d in view.dimensions] == [("ring", 4)] * 3
    assert view.ways[1].crosses == ("n0.gpu0.d1.grid.next",)
    assert view.ways[-1].rate == 100e9  # half each way round
    assert network("dgx-h100") is None
    assert network_figure(network("selene")) is None


DRAWN = [("h100-24k-roce", "1536 leaves of 2"), ("gh200-torus-64", "a grid, ring of 4")]


@pytest.mark.parametrize(("name", "said"), DRAWN)
def test_networks_are_printed_and_drawn(tmp_path, name, said):
    done = CliRunner().invoke(app, ["topology", "show", name, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert said in done.output
    assert (tmp_path / f"{name}-network.png").stat().st_size > 10_000
    labels = {text.get_text() for text in network_figure(network(name)).axes[0].texts}
    assert labels >= ({"core and spines of pods", "leaf 0", "leaf 7"} if "24k" in name else {"0", "63"})


def test_an_unknown_machine_is_bad_input():
    with pytest.raises(ScenarioError, match="did you mean"):
        topology("dgx-h10")
