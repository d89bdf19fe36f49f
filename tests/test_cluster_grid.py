"""Grids of nodes: routes by hand, closed forms of groups on the axes of a torus, and folding."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cost_collectives import alone

from scenarios import A100, data_parallel, on
from sim.api import simulate
from sim.cluster.build import build
from sim.cluster.grid import Grid
from sim.cost.demand import demand
from sim.errors import InfeasibleError
from sim.spec.types import CollectivesSpec, DimensionSpec, FabricSpec, VariationSpec
from sim.workload.ops import Collective

RATE, HOP = 50e9, 1e-6


def dimension(kind, size, rate=RATE):
    return DimensionSpec(kind=kind, size=size, bandwidth=rate, latency=HOP)


def torus(*sizes, gpus=1, base=A100, **keys):
    """The scenario ``base`` on a torus of nodes with ``gpus`` GPUs each."""
    nodes = int(np.prod(sizes))
    fabric = FabricSpec(dimensions=tuple(dimension("ring", size) for size in sizes))
    host, link = replace(base.cluster.host, sockets=1), replace(base.cluster.host_link, gpus_per_uplink=1, uplink=0.0)
    return on(base, nodes=nodes, gpus_per_host=gpus, nics=None, fabric=fabric, host=host, host_link=link, **keys)


def cost(kind, size, members, *sizes, asked="auto", **keys):
    names = dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter", "all_to_all"), asked)
    cluster = build(torus(*sizes, collectives=CollectivesSpec(**names, protocol="simple"), **keys).cluster)
    return demand(Collective(kind=kind, axis="dp", size=size), members, cluster), cluster


def crossed(asked, cluster):
    found = Counter()
    for number, amount in zip(asked.ids.tolist(), asked.amounts.tolist(), strict=True):
        found[cluster.name_of(number)] = amount
    return found


def test_a_message_goes_round_the_shorter_way():
    grid = Grid((dimension("ring", 5), dimension("ring", 3)))
    forward, back = 0, 1
    assert [(h.node, h.link, h.part) for h in grid.hops(0, 2)] == [(0, forward, 1.0), (1, forward, 1.0)]
    assert [(h.node, h.link) for h in grid.hops(0, 4)] == [(0, back)]
    # node 0 to 13 = (3, 2): two back in the first dimension, one back in the second
    assert [(h.node, h.link) for h in grid.hops(0, 13)] == [(0, back), (4, back), (3, 2 + back)]
    assert grid.latency(0, 13) == pytest.approx(3 * HOP)


def test_halves_go_both_ways_where_both_are_as_long():
    parts = Counter((h.node, h.link) for h in Grid((dimension("ring", 4),)).hops(0, 2))
    assert parts == {(0, 0): 1, (1, 0): 1, (0, 1): 1, (3, 1): 1}
    assert {h.part for h in Grid((dimension("ring", 4),)).hops(0, 2)} == {0.5}


@given(st.lists(st.tuples(st.sampled_from(["ring", "switch", "full"]), st.integers(1, 5)), min_size=1, max_size=3),
       st.data())  # fmt: skip
def test_routes_are_the_same_everywhere_and_as_long_as_they_say(kinds, data):
    """A grid looks the same from every node; the hops of a message times their parts are its distance."""
    grid = Grid(tuple(dimension(kind, size) for kind, size in kinds))
    nodes = int(grid.sizes.prod())
    a, b, to = (data.draw(st.integers(0, nodes - 1)) for _ in range(3))
    there = grid.moved(np.array([b]), np.array([a]), np.array([to])).item()
    moved = [(grid.moved(np.array([h.node]), np.array([a]), np.array([to])).item(), h.link) for h in grid.hops(a, b)]
    assert sorted(moved) == sorted((h.node, h.link) for h in grid.hops(to, there))
    links = [link for d, (kind, _) in enumerate(kinds) for link in [kind] * (grid.begins[d + 1] - grid.begins[d])]
    far = sum(h.part * (0.5 if links[h.link] == "switch" else 1.0) for h in grid.hops(a, b))  # up and down: one
    assert grid.latency(a, b) == pytest.approx(far * HOP)


@pytest.mark.parametrize(("axis", "stride"), [(0, 1), (1, 4), (2, 16)])
def test_a_group_on_an_axis_of_a_torus_rings_along_it(axis, stride):
    """2(n-1)(a + S/(2nB)): both ways round; no link of another axis, nor of another line, carries a byte."""
    members = [(5 + i * stride - (5 // stride % 4) * stride, 0) for i in range(4)]
    asked, cluster = cost("all_reduce", 1e9, members, 4, 4, 4, asked="ring")
    assert asked.latency == pytest.approx(A100.cluster.nvlink.base_latency + 6 * HOP)
    assert asked.duration == pytest.approx(2 * 1e9 * 3 / 4 / (2 * RATE))
    links = {name for name in crossed(asked, cluster) if ".grid." in name}
    assert links == {f"n{node}.gpu0.d{axis}.grid.{way}" for node, _ in members for way in ("next", "back")}


def test_a_plane_goes_dimension_by_dimension_or_in_one_ring():
    """By levels 2S(3/4 + 3/16)/(2B); one ring 2S(15/16)/(2B) over rows, with the wrap of one hop more on each."""
    plane = [(node, 0) for node in range(16)]
    levels, cluster = cost("all_reduce", 1e9, plane, 4, 4, 4, asked="hierarchical")
    assert levels.duration == pytest.approx(2 * 1e9 * (3 / 4 + 3 / 16) / (2 * RATE))
    assert levels.latency == pytest.approx(A100.cluster.nvlink.base_latency + 12 * HOP)
    ring, _ = cost("all_reduce", 1e9, plane, 4, 4, 4, asked="ring")
    assert ring.duration == pytest.approx(2 * 1e9 * 15 / 16 / (2 * RATE))
    free, _ = cost("all_reduce", 1e9, plane, 4, 4, 4)
    assert alone(free) == min(alone(levels), alone(ring))
    assert len(crossed(levels, cluster)) == 16 * 5  # HBM and four links each; the third axis is free


def test_all_to_all_on_a_ring_is_bound_by_its_middle():
    """n^2/8 parts cross each link one way (n even): S/n x n^2/8 / B."""
    asked, _ = cost("all_to_all", 8e9, [(node, 0) for node in range(8)], 8, asked="direct")
    assert asked.duration == pytest.approx(8e9 / 8 * 8**2 / 8 / RATE)
    levels, _ = cost("all_to_all", 8e9, [(node, 0) for node in range(8)], 8, asked="hierarchical")
    assert levels.duration == pytest.approx(asked.duration)
    handed, _ = cost("all_to_all", 8e9, [(node, 0) for node in range(8)], 8, asked="ring")
    assert handed.duration == pytest.approx(8e9 * 7 / 2 / (2 * RATE))


def test_every_gpu_of_a_node_has_links_of_its_own():
    """Two nodes of two GPUs: each GPU's ring has half the buffer, and both ways half of that."""
    asked, cluster = cost("all_gather", 4e9, [(n, g) for n in range(4) for g in range(2)], 4, gpus=2, asked="ring")
    found = crossed(asked, cluster)
    assert found["n0.gpu0.d0.grid.next"] == found["n3.gpu1.d0.grid.back"] == pytest.approx(4e9 * 7 / 8 / 2 / 2)


def test_what_needs_switches_is_refused_in_a_grid():
    cluster = build(torus(4, collectives=CollectivesSpec(all_reduce="tree")).cluster)
    work = Collective(kind="all_reduce", axis="dp", size=1.0)
    with pytest.raises(InfeasibleError, match=r"tree needs a network of adapters and switches, not one of fabric"):
        demand(work, [(0, 0), (1, 0)], cluster)
    corner = [(0, 0), (1, 0), (4, 0)]
    with pytest.raises(InfeasibleError, match="hierarchical needs members wherever the rows and columns"):
        cost("all_reduce", 1.0, corner, 4, 4, asked="hierarchical")


@pytest.mark.parametrize("faulty", [False, True])
@pytest.mark.parametrize(("dp", "tp"), [(24, 1), (6, 4), (3, 8)])
def test_a_torus_folds_exactly(dp, tp, faulty):
    """Groups that lie the same way round are alike, wherever they begin; a slow link splits its classes by itself."""
    slow = (VariationSpec(node=4, part="links", index=1, speed=0.5),) if faulty else ()
    base = data_parallel(dp, base=torus(4, 3, gpus=2, variations=slow), nodes=12)
    base = replace(base, layout=replace(base.layout, tp=tp))
    folded, whole = simulate(base), simulate(base, fold=False)
    assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-9)
    assert whole.result.rank_classes == 24
    assert folded.result.rank_classes <= (24 if faulty else 4)
    assert folded.result.rank_classes < whole.result.rank_classes
