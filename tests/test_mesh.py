"""Placement of ranks, against the cluster's own idea of where GPUs sit."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios import A100, on
from sim.cluster.build import build
from sim.cost.placing import placing
from sim.mesh import AXES, Mesh, places
from sim.spec.types import NicSpec

counts = st.lists(st.integers(1, 16), min_size=1, max_size=8)


def seats(world, placement, gpus):
    node, gpu = places(world, placement, gpus)
    return list(zip(node.tolist(), gpu.tolist(), strict=True))


def test_packed_places():
    assert [seats(18, "packed", [8, 8, 8])[r] for r in (0, 7, 8, 17)] == [(0, 0), (0, 7), (1, 0), (2, 1)]


@given(counts, st.data())
def test_nodes_fill_one_after_another(gpus, data):
    world = data.draw(st.integers(1, sum(gpus)))
    everywhere = [(node, gpu) for node, count in enumerate(gpus) for gpu in range(count)]
    assert seats(world, "packed", gpus) == everywhere[:world]


@given(counts, st.data())
def test_scattered_ranks_deal_nodes_out_like_cards(gpus, data):
    """One rank to each node that has room, again and again."""
    world = data.draw(st.integers(1, sum(gpus)))
    dealt = [(node, turn) for turn in range(max(gpus)) for node, count in enumerate(gpus) if turn < count]
    assert seats(world, "scattered", gpus) == dealt[:world]


@given(counts, st.randoms())
def test_a_list_is_the_device_of_each_rank(gpus, random):
    everywhere = [(node, gpu) for node, count in enumerate(gpus) for gpu in range(count)]
    devices = list(range(len(everywhere)))
    random.shuffle(devices)
    assert seats(len(devices), devices, gpus) == [everywhere[d] for d in devices]


@pytest.mark.parametrize("sockets", [1, 2, 3, 4])
@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 6, 7, 8, 16])
def test_the_fullest_socket(gpus, sockets):
    """Counted over the places that the cluster room gives each GPU, packed and scattered, for every number of ranks."""
    link = A100.cluster.host_link.__class__(kind="pcie", h2d=1e9, d2h=1e9, duplex=2e9, pageable=1e9, latency=0.0)
    host = A100.cluster.host.__class__(
        name="h",
        sockets=sockets,
        cores_per_socket=1,
        dram=1.0,
        dram_bandwidth=1.0,
        core_bandwidth=1.0,
        socket_link=1.0,
        launch=0.0,
    )
    nics = NicSpec(count=1, bandwidth=1e9, efficiency=1.0, step_latency=0.0)
    cluster = build(on(A100, nodes=2, gpus_per_host=gpus, host=host, host_link=link, nics=nics).cluster)
    for placement in ("packed", "scattered"):
        for world in (*range(1, gpus + 1), 2 * gpus):
            where = seats(world, placement, [gpus, gpus])
            met = Counter((node, cluster.kinds[0].places[gpu].socket) for node, gpu in where)
            fullest = [max(count for (n, _), count in met.items() if n == node) for node, _ in where]
            assert placing(world, placement, cluster).sharing.tolist() == fullest


sizes = st.fixed_dictionaries({axis: st.integers(1, 4) for axis in AXES})
orders = st.permutations(AXES).map(tuple)


def numbered(mesh):
    """(Rank, coordinates by axis), counted like an odometer whose fastest wheel is the innermost axis."""
    wheels = itertools.product(*(range(mesh.sizes[axis]) for axis in reversed(mesh.order)))
    return [(rank, dict(zip(reversed(mesh.order), wheel, strict=True))) for rank, wheel in enumerate(wheels)]


def together(mesh, *, same, by):
    """Ranks that agree on the axes ``same``, sorted by the axes ``by``; rows by their first rank."""
    rows = {}
    for rank, at in numbered(mesh):
        rows.setdefault(tuple(at[axis] for axis in same), []).append((*(at[axis] for axis in by), rank))
    return sorted([row[-1] for row in sorted(found)] for found in rows.values())


@given(sizes, orders)
def test_ranks_are_numbered_like_an_odometer(counts, order):
    mesh = Mesh(sizes=counts, order=order)
    for axis in AXES:
        assert mesh.coordinate(axis).tolist() == [at[axis] for _, at in numbered(mesh)]
    assert mesh.world == len(numbered(mesh))


@given(sizes, orders)
def test_a_group_differs_in_its_axis_alone(counts, order):
    mesh = Mesh(sizes=counts, order=order)
    for axis in AXES:
        expected = together(mesh, same=[a for a in AXES if a != axis], by=[axis])
        assert mesh.groups(axis).tolist() == expected
    assert mesh.groups("dp_cp").tolist() == together(mesh, same=["tp", "pp"], by=["dp", "cp"])


@given(sizes, orders, st.data())
def test_replicas_and_shards_are_rows_and_columns(counts, order, data):
    """HSDP: each group of dp x cp ranks, cut into equal runs; replicas are the ranks at one position of every run."""
    whole = counts["dp"] * counts["cp"]
    replicate = data.draw(st.sampled_from([d for d in range(1, whole + 1) if whole % d == 0]))
    mesh = Mesh(sizes=counts, order=order, replicate=replicate)
    part = whole // replicate
    shards, copies = [], []
    for row in together(mesh, same=["tp", "pp"], by=["dp", "cp"]):
        runs = [row[i : i + part] for i in range(0, whole, part)]
        shards += runs
        copies += [list(column) for column in zip(*runs, strict=True)]
    assert mesh.groups("shard").tolist() == sorted(shards)
    assert mesh.groups("replicate").tolist() == sorted(copies)


@given(sizes, orders, st.data())
def test_experts_are_runs_of_a_stages_ranks_in_the_meshs_order(counts, order, data):
    stage = counts["dp"] * counts["cp"] * counts["tp"]
    ep = data.draw(st.sampled_from([d for d in range(1, stage + 1) if stage % d == 0]))
    mesh = Mesh(sizes=counts, order=order, experts=ep)
    outer_first = [axis for axis in reversed(order) if axis != "pp"]
    runs, copies = [], []
    for row in together(mesh, same=["pp"], by=outer_first):
        mine = [row[i : i + ep] for i in range(0, stage, ep)]
        runs += mine
        copies += [list(column) for column in zip(*mine, strict=True)]
    assert mesh.groups("ep").tolist() == sorted(runs)
    assert mesh.groups("edp").tolist() == sorted(copies)


def test_megatron_numbers_experts_within_a_stage():
    """Megatron-LM, 16 GPUs, tp 2, pp 2, ep 4 (expert tensor parallel 1): stages of 8 ranks, two groups in each."""
    mesh = Mesh(sizes={"tp": 2, "cp": 1, "dp": 4, "pp": 2}, experts=4)
    assert mesh.groups("ep").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert mesh.groups("edp").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7], [8, 12], [9, 13], [10, 14], [11, 15]]


def test_megatron_numbers_tensor_parallel_ranks_first():
    """Megatron-LM, ``initialize_model_parallel``: its docstring's 16 GPUs, tensor 2, pipeline 4 (hence data 2)."""
    mesh = Mesh(sizes={"tp": 2, "cp": 1, "dp": 2, "pp": 4})
    assert mesh.groups("dp").tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10], [9, 11], [12, 14], [13, 15]]
    assert mesh.groups("tp").tolist() == [[i, i + 1] for i in range(0, 16, 2)]
    assert mesh.groups("pp").tolist() == [[i, i + 4, i + 8, i + 12] for i in range(4)]
