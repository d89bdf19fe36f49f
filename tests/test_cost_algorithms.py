"""Collective algorithms against closed forms and each other; what shares a link, waits."""

import time
from dataclasses import replace

import numpy as np
import pytest
from test_cost_collectives import GPU, LINK, SPEC, alone, ring

from scenarios import A100, data_parallel, on
from sim.api import simulate
from sim.cluster.build import build
from sim.cost.choice import ALGORITHMS, CANDIDATES, chosen
from sim.cost.demand import demand
from sim.cost.traffic import by_node
from sim.errors import InfeasibleError
from sim.spec.types import CollectivesSpec, FabricSpec, NicSpec, NvlinkSpec, VariationSpec
from sim.workload.ops import Collective

GIB_S = 2.0**30


def machine(nodes=1, gpus=8, *, rate=400.0, step=2 * 936.25e-9, nic=50.0, hop=2e-6, asked="ring", **more):
    """Rates in GiB/s a GPU, latencies in seconds; nothing but the links takes time. ``asked`` for every collective."""
    link = NvlinkSpec(kind="switch", bandwidth=rate * GIB_S, efficiency=1.0, base_latency=0.0, step_latency=step)
    nics = NicSpec(count=gpus, bandwidth=nic * GIB_S, efficiency=1.0, step_latency=hop)
    kinds = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter"), asked)
    how = CollectivesSpec(**{**kinds, "protocol": "simple", **more})
    ports, fast = replace(LINK, uplink=0.0), replace(GPU, hbm_bandwidth=1e18)
    return build(
        replace(
            SPEC, nodes=nodes, gpus_per_host=gpus, nvlink=link, nics=nics, host_link=ports, device=fast, collectives=how
        )
    )


def seconds(kind, size, nodes=1, gpus=8, **keys):
    return alone(chosen(kind, size, ring(nodes, gpus), machine(nodes, gpus, **keys)))


def switched(**keys):
    cluster = machine(**keys)
    link = replace(cluster.spec.nvlink, in_switch=0.8, in_switch_latency=1e-6)
    return replace(cluster.spec, nvlink=link)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_a_switch_that_adds_moves_s_and_a_part(n):
    """S + S/n each way at 0.8 of the port, once to ask for sums and once to spread them."""
    cluster = build(switched(asked="nvls"))
    cost = chosen("all_reduce", 1e9, [(0, gpu) for gpu in range(n)], cluster)
    assert cost.duration == pytest.approx(1e9 * (1 + 1 / n) / 0.8 / (400 * GIB_S))
    assert cost.latency == pytest.approx(1e-6)
    assert cost.sm_load < cluster.spec.sm_share * cost.duration


@pytest.mark.parametrize(("nodes", "sent"), [(2, 1.0), (3, 1.5), (4, 2.0), (16, 2.0)])
def test_trees_send_what_their_busiest_node_does(nodes, sent):
    """Of two nodes each sends half of what a ring would; from four on as much."""
    tree = chosen("all_reduce", 1e9, ring(nodes), machine(nodes, asked="tree", nic=1.0))
    assert tree.duration == pytest.approx(sent * 1e9 / (8 * GIB_S))
    rings = chosen("all_reduce", 1e9, ring(nodes), machine(nodes, nic=1.0))
    assert rings.duration == pytest.approx(2 * 1e9 * (8 * nodes - 1) / (8 * nodes) / (8 * GIB_S))


def test_trees_too_pass_through_a_node_but_for_those_of_its_switch():
    """A chain through eight GPUs keeps half of the adapters' rate; with NVLS each GPU sends its part from its own."""
    whole, half = (replace(switched(nodes=4, nic=1.0).nics, through=through) for through in (1.0, 0.5))
    for asked, slower in (("tree", 2.0), ("nvls_tree", 1.0)):
        spec = switched(nodes=4, nic=1.0, asked=asked)
        took = [chosen("all_reduce", 1e9, ring(4), build(replace(spec, nics=nics))).duration for nics in (whole, half)]
        assert took[1] == pytest.approx(slower * took[0]), asked


def test_switches_of_the_network_send_half_of_a_ring():
    spec = replace(machine(16, asked="sharp", nic=1.0).spec, fabric=FabricSpec(nodes_per_leaf=16, reduction=True))
    assert chosen("all_reduce", 1e9, ring(16), build(spec)).duration == pytest.approx(1e9 / (8 * GIB_S))


def test_parallel_trees_take_log_steps():
    keys = {"gpus": 1, "hop": 1e-5}
    cost = chosen("all_gather", 8.0, ring(8, 1), machine(8, asked="pat", **keys))
    assert cost.latency == pytest.approx(3e-5)
    big = chosen("all_gather", 1e9, ring(8, 1), machine(8, asked="pat", nic=1.0, **keys))
    assert big.duration == pytest.approx(1e9 * 7 / 8 / 0.75 / GIB_S)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e9])
def test_auto_is_never_slower_than_what_it_chooses_from(size):
    spec = replace(switched(nodes=4, asked="auto"), collectives=CollectivesSpec())
    free = alone(chosen("all_reduce", size, ring(4), build(spec)))
    for name in CANDIDATES["all_reduce"]:
        for protocol in ("simple", "ll128", "ll"):
            cluster = build(replace(spec, collectives=CollectivesSpec(all_reduce=name, protocol=protocol)))
            if not ALGORITHMS[name].needs(by_node(ring(4)), cluster):
                assert free <= alone(chosen("all_reduce", size, ring(4), cluster)) * (1 + 1e-12)


def test_small_messages_use_ll_and_large_ones_simple():
    """Steps of LL are shorter and its bytes twice as many: at some size the two take equally long."""
    keys = {"step": 1e-5, "rate": 1.0}
    small, large = ({p: seconds("all_reduce", s, protocol=p, **keys) for p in ("ll", "simple")} for s in (1e3, 1e9))
    assert small["ll"] < 0.2 * small["simple"]
    assert large["ll"] > 1.9 * large["simple"]
    assert seconds("all_reduce", 1e3, protocol="auto", **keys) == small["ll"]
    assert seconds("all_reduce", 1e9, protocol="auto", **keys) == large["simple"]


@pytest.mark.parametrize(
    ("asked", "nodes", "gpus", "said"),
    [
        ("nvls", 1, 8, "collectives.all_reduce: nvls needs two or more members a node behind an NVLink switch"),
        ("halving_doubling", 1, 6, "needs a power of two of members, not 6"),
        ("sharp", 2, 8, "needs switches that add (fabric.reduction)"),
    ],
)
def test_what_is_not_there_is_refused_by_name(asked, nodes, gpus, said):
    with pytest.raises(InfeasibleError) as caught:
        chosen("all_reduce", 1.0, ring(nodes, gpus), machine(nodes, gpus, asked=asked))
    assert said in str(caught.value)


def under(oversubscription, *, rails, nodes=4):
    fabric = FabricSpec(nodes_per_leaf=2, oversubscription=oversubscription, rails=rails)
    return build(replace(machine(nodes).spec, fabric=fabric))


def message(a, b, cluster, size=1e9):
    return demand(Collective(kind="send_recv", axis="pp", size=size), [a, b], cluster)


def test_a_message_on_one_leaf_or_rail_never_meets_the_spine():
    flat, rails = under(4.0, rails=False), under(4.0, rails=True)
    across = 2  # uplinks, up and down
    assert len(message((0, 0), (2, 0), flat).ids) == len(message((0, 0), (1, 3), flat).ids) + across
    assert len(message((0, 0), (1, 3), rails).ids) == len(message((0, 0), (1, 0), rails).ids) + across
    assert len(message((0, 0), (1, 0), under(1.0, rails=True)).ids) == len(message((0, 0), (1, 0), rails).ids)


def test_a_ring_over_leaves_is_bound_by_their_uplinks():
    """Two nodes a leaf, 16 adapters over uplinks of 16/16: one ring's 2S(n-1)/n leaves a leaf over one node's rate."""
    whole = chosen("all_reduce", 1e9, ring(4), under(16.0, rails=False))
    sent = 2 * 1e9 * 31 / 32
    assert whole.duration == pytest.approx(sent / (2 * 8 * 50 * GIB_S / 16))
    assert chosen("all_reduce", 1e9, ring(2), under(16.0, rails=False)).duration == pytest.approx(
        2 * 1e9 * 15 / 16 / (8 * 50 * GIB_S)
    )


def test_a_full_mesh_uses_every_link_of_a_gpu_for_rings_and_one_for_a_copy():
    """Eight GPUs: 2S(7/8) leave by seven links; of four, by three of them."""
    spec = machine().spec
    mesh = build(replace(spec, nvlink=replace(spec.nvlink, kind="full", bandwidth=7e9)))
    whole, half = (chosen("all_reduce", 1e9, [(0, g) for g in range(n)], mesh) for n in (8, 4))
    assert whole.duration == pytest.approx(2 * 1e9 * 7 / 8 / 7e9)
    assert half.duration == pytest.approx(2 * 1e9 * 3 / 4 / 3e9)
    assert message((0, 0), (0, 5), mesh).duration == pytest.approx(1.0)
    for kind in ("all_gather", "broadcast"):
        assert chosen(kind, 1e9, [(0, g) for g in range(8)], mesh).duration <= 1.01 / 7
    exchange = Collective(kind="all_to_all", axis="ep", size=8e9)
    assert demand(exchange, [(0, g) for g in range(8)], mesh).duration == pytest.approx(1.0)


def test_a_lost_link_of_a_mesh_leaves_the_others():
    """GPU 3 without links: its traffic takes PCIe; copies of the others do not notice."""
    spec = machine().spec
    lost = (VariationSpec(node=0, part="nvlink", index=3, speed=0.0),)
    mesh = build(replace(spec, nvlink=replace(spec.nvlink, kind="full", bandwidth=7e9), variations=lost))
    assert message((0, 0), (0, 5), mesh).duration == pytest.approx(1.0)
    assert mesh.resource(message((0, 0), (0, 3), mesh).bound_by).kind.startswith("pcie")
    slow = (VariationSpec(node=0, part="nvlink", index=3, speed=0.5),)
    mesh = build(replace(spec, nvlink=replace(spec.nvlink, kind="full", bandwidth=7e9), variations=slow))
    assert [message((0, a), (0, b), mesh).duration for a, b in ((3, 0), (0, 3), (0, 1))] == pytest.approx([2, 2, 1])


def test_all_to_all_crosses_the_spine_but_for_its_leaf_and_rail():
    """Of 32 members, 16 are on the other leaf: half of each buffer; with rails more."""
    exchange = Collective(kind="all_to_all", axis="ep", size=32e9)
    flat = demand(exchange, ring(4), under(16.0, rails=False))
    assert flat.duration == pytest.approx(16 * 16e9 / (2 * 8 * 50 * GIB_S / 16))
    rails = demand(exchange, ring(4), under(16.0, rails=True))
    leaving = 2 * (16e9 + 7 * 1e9)  # from two nodes' adapters of one rail: to the other leaf, and to the neighbour node
    assert rails.duration == pytest.approx(leaving / (2 * 50 * GIB_S / 16))
    spec = replace(under(16.0, rails=True).spec, collectives=CollectivesSpec(all_to_all="hierarchical"))
    aligned = demand(exchange, ring(4), build(spec))
    assert aligned.duration < rails.duration


def test_once_a_node_stays_on_its_rail():
    work = Collective(kind="all_to_all", axis="ep", size=1e9, copies=2)
    crossing = demand(work, ring(2), under(16.0, rails=True))
    assert not any(number >= 4 * under(16.0, rails=True).per_node for number in crossing.ids.tolist())


@pytest.mark.parametrize("rails", [False, True])
def test_a_degraded_uplink_binds_even_without_oversubscription(rails):
    slow = (VariationSpec(node=1, part="uplink", index=0, speed=0.125),)
    fabric = FabricSpec(nodes_per_leaf=2, rails=rails)
    cluster = build(replace(machine(4).spec, fabric=fabric, variations=slow))
    cost = chosen("all_reduce", 1e9, ring(4), cluster)
    assert cluster.name_of(cost.bound_by) in ("leaf1.rail0.up", "leaf1.rail0.down")
    below = 2 * (1 if rails else 8) * 50 * GIB_S * 0.125
    assert cost.duration == pytest.approx(2 * 1e9 * 31 / 32 / (8 if rails else 1) / below)


@pytest.mark.parametrize("rails", [False, True])
@pytest.mark.parametrize("faulty", [False, True])
def test_oversubscribed_leaves_fold_exactly(rails, faulty):
    """Groups whose nodes lie the same way over leaves are alike; those that lie otherwise are not."""
    fabric = FabricSpec(nodes_per_leaf=2, oversubscription=8.0, rails=rails)
    slow = (VariationSpec(node=3, part="nic", index=1, speed=0.5),) if faulty else ()
    base = on(data_parallel(24, base=A100, nodes=3 + faulty), fabric=fabric, variations=slow)
    folded, whole = simulate(base), simulate(base, fold=False)
    assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-9)
    assert folded.result.rank_classes < whole.result.rank_classes
    wide = simulate(replace(base, cluster=replace(base.cluster, fabric=None)))
    assert folded.result.step_time > wide.result.step_time


def podded(core, *, nodes=8, leaf=1.0, rails=False, **keys):
    """Leaves of two nodes, pods of two leaves."""
    fabric = FabricSpec(
        nodes_per_leaf=2, oversubscription=leaf, rails=rails, leaves_per_pod=2, core_oversubscription=core
    )
    return build(replace(machine(nodes).spec, fabric=fabric, **keys))


def test_pods_meet_in_a_core_that_binds_what_leaves_them():
    """Pods of four nodes, 32 adapters of 50 behind 16 times fewer: a ring's 2S(n-1)/n leaves a pod over 100."""
    cluster = podded(16.0)
    assert (cluster.leaves, cluster.pods) == (0, 2)
    whole = chosen("all_reduce", 1e9, ring(8), cluster)
    assert whole.duration == pytest.approx(2 * 1e9 * 63 / 64 / (32 * 50 * GIB_S / 16))
    assert cluster.name_of(whole.bound_by) in ("pod0.up", "pod0.down", "pod1.up", "pod1.down")
    inside = chosen("all_reduce", 1e9, ring(4), cluster)
    assert inside.duration == pytest.approx(2 * 1e9 * 31 / 32 / (8 * 50 * GIB_S))
    exchange = demand(Collective(kind="all_to_all", axis="ep", size=64e9), ring(8), cluster)
    assert exchange.duration == pytest.approx(32 * 32e9 / (32 * 50 * GIB_S / 16))
    by_tree = replace(cluster.spec, collectives=CollectivesSpec(all_reduce="tree", protocol="simple"))
    assert chosen("all_reduce", 1e9, ring(8), build(by_tree)).duration == pytest.approx(2e9 / (100 * GIB_S))


def test_leaves_and_pods_are_each_crossed_once():
    cluster = podded(4.0, leaf=2.0)
    names = [[cluster.name_of(n) for n in cluster.crossing((0, 0), (to, 0))] for to in (1, 2, 4)]
    assert names == [[], ["leaf0.rail0.up", "leaf1.rail0.down"],
                     ["leaf0.rail0.up", "leaf2.rail0.down", "pod0.up", "pod1.down"]]  # fmt: skip
    half = (VariationSpec(node=1, part="core", index=0, speed=0.5),)
    slow = podded(4.0, leaf=2.0, variations=half)
    assert message((0, 0), (4, 0), slow).duration >= message((0, 0), (4, 0), cluster).duration
    at = slow.at(slow.nodes + slow.leaves + 1, 0)
    assert slow.capacities(np.array([at])) == pytest.approx(slow.resource(at).capacity / 2)


@pytest.mark.parametrize("leaf", [1.0, 8.0])
@pytest.mark.parametrize(("rails", "faulty"), [(False, False), (True, False), (True, True)])
def test_pods_fold_exactly(leaf, rails, faulty):
    fabric = FabricSpec(
        nodes_per_leaf=1, oversubscription=leaf, rails=rails, leaves_per_pod=2, core_oversubscription=16.0
    )
    slow = (VariationSpec(node=1, part="core", index=0, speed=0.5),) if faulty else ()
    base = on(data_parallel(32, base=A100, nodes=4), fabric=fabric, variations=slow)
    folded, whole = simulate(base), simulate(base, fold=False)
    assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-9)
    assert folded.result.rank_classes < whole.result.rank_classes
    wide = simulate(replace(base, cluster=replace(base.cluster, fabric=None, variations=())))
    assert folded.result.step_time > wide.result.step_time


def test_eight_rings_through_one_adapter_get_an_eighth_each():
    """Stages of tensor-parallel ranks whose eight data-parallel rings leave a node by one adapter (S: one ring's)."""
    one = NicSpec(count=1, bandwidth=1e9, efficiency=1.0, step_latency=0.0)
    base = data_parallel(16, 0, base=A100, nodes=2, grad_bucket=1e12)
    layout = replace(base.layout, dp=2, tp=8)
    base = on(replace(base, layout=layout, batch=replace(base.batch, size=2, micro=1, accumulation=1)), nics=one)
    timeline = simulate(base).timeline
    rows = [i for i, o in enumerate(timeline.spans.op.tolist()) if timeline.ops[o].category == "dp"]
    for i in rows:
        op = timeline.ops[timeline.spans.op[i]]
        if op.kind == "all_reduce" and op.duration > 1e-3:
            assert timeline.spans.end[i] - timeline.spans.start[i] == pytest.approx(
                8 * op.duration + op.latency, rel=0.02
            )
            assert op.duration == pytest.approx(op.size / 1e9, rel=0.1)
    assert any(timeline.ops[timeline.spans.op[i]].duration > 1e-3 for i in rows)


def test_a_lost_rail_of_512_nodes_is_a_few_classes():
    """Adapter 3 of every node is gone: its GPUs share the next one, and the step grows; ranks of other rails wait."""
    lost = tuple(VariationSpec(node=node, part="nic", index=3, speed=0.0) for node in range(512))
    base = data_parallel(512 * 8, base=A100, nodes=512)
    began = time.process_time()
    hurt = simulate(on(base, variations=lost))
    assert time.process_time() - began < 10
    assert hurt.result.rank_classes <= 8
    assert hurt.result.step_time > simulate(base).result.step_time
