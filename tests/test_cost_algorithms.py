"""Collective algorithms against an independent simulator, closed forms, and each other; what shares a link, waits."""

import time
from dataclasses import replace

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
MIB = 2**20
MEMORY = 1600e9  # what the other simulator adds up with: three passes over each message, after it has come


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


def adding(steps, message):
    return steps * 3 * message / MEMORY


# ASTRA-sim's analytical backend, eight devices on a switch (400 GiB/s, 936.25 ns twice), one chunk, no sharing; ns by
# MiB: components/collectives_crosscheck.md. An all-gather's size there is the shard. Direct messages have links of
# their own there: seven times the rate of one.
SWITCH = [
    ("ring", "all_reduce", {1: 32194, 64: 409739, 1024: 6162829}),
    ("ring", "all_gather", {1: 30199, 64: 1106862, 1024: 17513112}),
    ("ring", "reduce_scatter", {1: 16948, 64: 259911, 1024: 3962218}),
    ("direct", "all_reduce", {1: 4600, 64: 58535, 1024: 880405}),
    ("direct", "all_gather", {1: 4315, 64: 158124, 1024: 2501874}),
    ("direct", "reduce_scatter", {1: 2422, 64: 37131, 1024: 566032}),
    ("halving_doubling", "all_reduce", {1: 16243, 64: 331858, 1024: 5141213}),
    ("halving_doubling", "reduce_scatter", {1: 8488, 64: 189520, 1024: 2948094}),
    ("halving_doubling", "all_gather", {1: 22710, 64: 1099370, 1024: 17505620}),
]
REDUCING_STEPS = {"ring": 7, "direct": 1, "halving_doubling": 3}


@pytest.mark.parametrize(("algorithm", "kind", "rows"), SWITCH)
def test_a_switch_of_eight_as_an_independent_simulator_has_it(algorithm, kind, rows):
    rate = 400.0 * (7 if algorithm == "direct" else 1)
    for mib, nanoseconds in rows.items():
        whole = mib * MIB * (8 if kind == "all_gather" else 1)
        more = 0.0 if kind == "all_gather" else adding(REDUCING_STEPS[algorithm], whole / 8)
        got = seconds(kind, whole, rate=rate, asked=algorithm) + more
        assert got == pytest.approx(nanoseconds * 1e-9, rel=0.005)


RING = [
    ("all_reduce", {1: 42890, 64: 2304597, 1024: 36768621}),
    ("all_gather", {1: 140225, 64: 8753508, 1024: 140003508}),
    ("reduce_scatter", {1: 22296, 64: 1207340, 1024: 19265114}),
]


@pytest.mark.parametrize(("kind", "rows"), RING)
def test_a_ring_of_eight_as_an_independent_simulator_has_it(kind, rows):
    for mib, nanoseconds in rows.items():
        whole = mib * MIB * (8 if kind == "all_gather" else 1)
        more = 0.0 if kind == "all_gather" else adding(7, whole / 8)
        assert seconds(kind, whole, rate=50.0, step=500e-9) + more == pytest.approx(nanoseconds * 1e-9, rel=0.005)


def levels(kind, size, nodes, rate=200.0):
    """Rings of eight under a switch, hierarchical, with the serial additions of the other simulator."""
    keys = {"rate": rate, "step": 500e-9, "nic": 50.0, "hop": 2e-6, "asked": "hierarchical"}
    more = 0.0 if kind == "all_gather" else adding(7, size / 8) + adding(nodes - 1, size / 8 / nodes)
    return seconds(kind, size, nodes, **keys) + more


def test_two_levels_of_128_devices_as_an_independent_simulator_has_them():
    """Ring 8 (200 GiB/s, 500 ns) under Switch 16 (50 GiB/s, 1000 ns twice)."""
    for mib, nanoseconds in {1: 82073, 64: 1031662, 1024: 15502043}.items():
        assert levels("all_reduce", mib * MIB, 16) == pytest.approx(nanoseconds * 1e-9, rel=0.005)
    for mib, nanoseconds in {1: 873364, 64: 53783524, 1024: 860033524}.items():
        assert levels("all_gather", 128 * mib * MIB, 16) == pytest.approx(nanoseconds * 1e-9, rel=0.005)
    for mib, nanoseconds in {1: 42000, 64: 578230, 1024: 8749770}.items():
        assert levels("reduce_scatter", mib * MIB, 16) == pytest.approx(nanoseconds * 1e-9, rel=0.005)


@pytest.mark.parametrize(("mib", "nanoseconds"), [(1, 279242), (1024, 13831389)])
def test_three_levels_of_4096_devices_by_composition(mib, nanoseconds):
    """Ring 8 (200) x Ring 8 (100) x Switch 64 (50): the inner ring before and after the two outer levels of S/8."""
    size = mib * MIB
    inner = sum(seconds(kind, size, rate=200.0, step=500e-9) for kind in ("reduce_scatter", "all_gather"))
    outer = levels("all_reduce", size / 8, 64, rate=100.0)
    assert inner + adding(7, size / 8) + outer == pytest.approx(nanoseconds * 1e-9, rel=0.005)


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
