"""Placement of ranks, against the cluster's own idea of where GPUs sit."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios import A100, on
from sim.cluster.build import build
from sim.mesh import place, ranks_per_socket


def test_places():
    assert [place(r, 8) for r in (0, 7, 8, 17)] == [(0, 0), (0, 7), (1, 0), (2, 1)]


@given(st.integers(1, 16), st.integers(1, 64))
def test_nodes_fill_one_after_another(gpus, world):
    places = [place(r, gpus) for r in range(world)]
    assert places == sorted(set(places)), "in order, and no GPU twice"
    assert all(gpu < gpus for _, gpu in places)
    assert max(node for node, _ in places) == (world - 1) // gpus


@pytest.mark.parametrize("sockets", [1, 2, 3, 4])
@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 6, 7, 8, 16])
def test_the_fullest_socket(gpus, sockets):
    """Counted over the places that the cluster room gives each GPU, for every number of ranks."""
    link = A100.cluster.host_link.__class__(kind="pcie", h2d=1e9, d2h=1e9, duplex=2e9, pageable=1e9, latency=0.0)
    host = A100.cluster.host.__class__(
        name="h", sockets=sockets, cores_per_socket=1, dram=1.0, dram_bandwidth=1.0, socket_link=1.0, launch=0.0
    )
    cluster = build(on(A100, gpus_per_host=gpus, host=host, host_link=link).cluster)
    for world in (*range(1, gpus + 1), 2 * gpus):
        met = Counter((node, cluster.places[gpu].socket) for node, gpu in (place(r, gpus) for r in range(world)))
        assert ranks_per_socket(world, gpus, sockets) == max(met.values())
