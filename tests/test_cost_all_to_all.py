"""All-to-all by hand: who sends how much over which link, in a node, between nodes, and once a node."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios import A100, on
from sim.cluster.build import build
from sim.cost.all_to_all import all_to_all_demand
from sim.errors import InfeasibleError
from sim.spec.types import FabricSpec, NicSpec
from sim.workload.ops import Collective

NICS = NicSpec(count=8, bandwidth=25e9, efficiency=1.0, step_latency=0.0)


def made(nodes, gpus=8, nics=NICS):
    link = replace(A100.cluster.nvlink, all_to_all=1.0)
    return build(on(A100, nodes=nodes, gpus_per_host=gpus, nics=nics, nvlink=link).cluster)


def members(nodes, gpus):
    return [(node, gpu) for node in range(nodes) for gpu in range(gpus)]


def loads(work, where, cluster):
    """Bytes by kind of resource and (node, GPU)."""
    cost = all_to_all_demand(work, where, cluster)
    found = Counter()
    for number, amount in zip(cost.ids.tolist(), cost.amounts.tolist(), strict=True):
        node, local = divmod(number, cluster.per_node)
        found[node, cluster.kinds[0].resources[local].name] += amount
    return found


def exchange(size, **more):
    return Collective(kind="all_to_all", axis="ep", size=size, **more)


def test_in_a_node_every_gpu_sends_all_but_its_own_part():
    found = loads(exchange(8e6), members(1, 8), made(1))
    for gpu in range(8):
        assert found[0, f"gpu{gpu}.nvlink.tx"] == pytest.approx(7e6)
        assert found[0, f"gpu{gpu}.nvlink.rx"] == pytest.approx(7e6)
        assert found[0, f"gpu{gpu}.hbm"] == pytest.approx(14e6)
    assert not any("nic" in name for _, name in found)


@given(nodes=st.integers(2, 5), gpus=st.sampled_from([1, 2, 4, 8]), size=st.floats(1e3, 1e9))
def test_between_nodes_each_row_takes_the_adapter_of_its_gpu(nodes, gpus, size):
    cluster, where = made(nodes), members(nodes, gpus)
    found = loads(exchange(size), where, cluster)
    n = nodes * gpus
    for node, gpu in where:
        assert found[node, f"nic{gpu}.nic.tx"] == pytest.approx(size * (n - gpus) / n)
        assert found[node, f"nic{gpu}.nic.rx"] == pytest.approx(size * (n - gpus) / n)
        assert found[node, f"gpu{gpu}.nvlink.tx"] == pytest.approx(size * (gpus - 1) / n)


def test_once_a_node_a_token_crosses_as_often_as_it_has_nodes_to_visit():
    """Two nodes, two experts a token: a quarter of the tokens stay, half go to both, so 3/4 cross, not 2 x 1/2."""
    rows = 2e6
    found = loads(exchange(rows, copies=2), members(2, 8), made(2))
    assert found[0, "nic0.nic.tx"] == pytest.approx(rows / 2 * 0.75)
    assert found[1, "nic3.nic.rx"] == pytest.approx(rows / 2 * 0.75)
    # rows of the own node by NVLink, and those that came by another GPU's adapter: 7 of 8
    assert found[0, "gpu0.nvlink.tx"] == pytest.approx(rows * 7 / 16 + rows / 2 * 7 / 8)


def test_deepseek_v3_sends_a_token_to_four_nodes_at_most():
    """Its report (section 3.2.2): 8 experts on at most 4 of 8 nodes, so fewer than 4 copies cross."""
    token = 7168.0
    found = loads(exchange(8 * token, copies=8, most_nodes=4), members(8, 8), made(8))
    visited = 4 * (1 - (3 / 4) ** 8)
    assert found[0, "nic0.nic.tx"] == pytest.approx(token * visited * 7 / 8)
    assert found[0, "nic0.nic.tx"] < token * 4
    free = loads(exchange(8 * token, copies=8), members(8, 8), made(8))
    assert free[0, "nic0.nic.tx"] == pytest.approx(token * 8 * (1 - (7 / 8) ** 8) * 7 / 8)


@given(nodes=st.integers(1, 4), gpus=st.integers(1, 4), copies=st.integers(0, 6), most=st.integers(0, 3))
def test_whatever_is_sent_is_received(nodes, gpus, copies, most):
    found = loads(exchange(1e6, copies=copies, most_nodes=most), members(nodes, gpus), made(nodes))
    total = Counter()
    for (_, name), amount in found.items():
        total[name.split(".", 1)[1]] += amount
    assert math.isclose(total["nvlink.tx"], total["nvlink.rx"])
    assert math.isclose(total["nic.tx"], total["nic.rx"])
    assert all(amount > 0 for amount in found.values())


def test_an_uneven_group_sends_as_much_as_it_receives():
    where = [(0, 0), (0, 1), (0, 2), (1, 0)]
    found = loads(exchange(4e6), where, made(2))
    assert found[1, "nic0.nic.rx"] == pytest.approx(3e6)
    assert sum(found[0, f"nic{i}.nic.tx"] for i in range(3)) == pytest.approx(3e6)


def test_one_member_costs_nothing_and_nodes_without_adapters_are_refused():
    assert all_to_all_demand(exchange(1e6), [(0, 0)], made(1)).duration == 0.0
    with pytest.raises(InfeasibleError, match="has no NICs"):
        all_to_all_demand(exchange(1e6), members(2, 1), made(2, nics=None))


def test_direct_sends_keep_part_of_a_link_and_what_goes_once_to_a_node_all_of_it():
    """Libraries lose some of a link to many senders at once; kernels that send once a node were made not to."""
    link = replace(A100.cluster.nvlink, all_to_all=0.5)
    slow = build(on(A100, nodes=2, gpus_per_host=8, nics=replace(NICS, all_to_all=0.25), nvlink=link).cluster)
    plain = build(on(A100, nodes=2, gpus_per_host=8, nics=NICS, nvlink=replace(link, all_to_all=1.0)).cluster)
    for work, within, across in ((exchange(8e6), 2.0, 4.0), (exchange(8e6, copies=2), 1.0, 1.0)):
        before, after = loads(work, members(2, 8), plain), loads(work, members(2, 8), slow)
        assert after[0, "gpu0.nvlink.tx"] == pytest.approx(within * before[0, "gpu0.nvlink.tx"])
        assert after[1, "nic3.nic.rx"] == pytest.approx(across * before[1, "nic3.nic.rx"])
        assert after[0, "gpu0.hbm"] == before[0, "gpu0.hbm"]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_uplinks_carry_what_message_after_message_would(data):
    """Sets of members on one leaf and rail against every pair: leaves, pods, rails, uneven groups, once a node."""
    fabric = FabricSpec(
        nodes_per_leaf=data.draw(st.integers(1, 3)), oversubscription=2.0, rails=data.draw(st.booleans()),
        leaves_per_pod=data.draw(st.integers(0, 2)), core_oversubscription=2.0,
    )  # fmt: skip
    cluster = build(replace(made(6, nics=replace(NICS, count=data.draw(st.sampled_from([4, 8])))).spec, fabric=fabric))
    copies = data.draw(st.sampled_from([0, 3]))
    even = [(node, gpu) for node in (0, 1, 3, 5) for gpu in range(4)]
    where = even if copies else even + data.draw(st.lists(st.sampled_from([(2, 1), (2, 6), (4, 0)]), unique=True))
    cost = all_to_all_demand(exchange(1e6, copies=copies), where, cluster)
    nodes = Counter(node for node, _ in where)
    expected = Counter()
    for a in where:
        for node, there in nodes.items():
            part = 1e6 * there / len(where)
            sent = 1e6 / copies * (1 - (1 - there / len(where)) ** copies) if copies else part
            to = [(node, a[1])] if copies else [m for m in where if m[0] == node]
            for b in to if node != a[0] else ():
                for number in cluster.crossing(a, b):
                    expected[number] += sent / len(to)
    got = {n: x for n, x in zip(cost.ids.tolist(), cost.amounts.tolist(), strict=True)
           if n >= cluster.nodes * cluster.per_node}  # fmt: skip
    assert got == pytest.approx(dict(expected))
