"""Every single-chunk, non-sharing row of an independent simulator, within 0.5 %; which rows are left out and why.

ASTRA-sim's analytical backend: rows and conventions of ``components/collectives_crosscheck.md``. Its conventions, kept
here: rates in GiB/s, nanoseconds a hop, an all-gather's size is the shard, rings go one way round (ours go both ways,
so each way has half the rate), a message meets no other, and after each receive of a reduction 3 x message / 1600 GB/s
pass before anything else happens. That serial addition is no part of our algorithms (sums overlap the wire) and is
added here. Rows are compared at protocol Simple with a base latency of 0.

Not comparable, by column or section:

- 'unaware c4 a1', 'c4 a4', 'c64 a64': several chunks, each a collective with all its latencies; one after the other
  (a1), or at once over links that do not share (a4, a64), which is more than the links carry (the page says so).
- 'aware' on a switch: whole messages are stored and forwarded, so every hop pays the bytes again; ours pass through, as
  switches do. 'aware c1 a1' on Ring and FullyConnected is the same number as 'unaware c1 a1' (checked below by it).
- section 2.3, the shipped examples: four chunks, an endpoint delay of 10 ns.
- '2-D all_reduce, baseline': an all-reduce of the full size in each dimension, which no library does.
"""

from dataclasses import replace

import pytest
from test_cost_collectives import GPU, LINK, SPEC, alone

from sim.cluster.build import build
from sim.cost.demand import demand
from sim.spec.types import CollectivesSpec, DimensionSpec, FabricSpec, NvlinkSpec
from sim.workload.ops import Collective

GIB_S = 2.0**30
MIB = 2**20
MEMORY = 1600e9  # bytes/s with which the other simulator adds
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def asking(algorithm):
    return CollectivesSpec(**dict.fromkeys(KINDS, algorithm), protocol="simple")


def node(kind, rate, step, algorithm):
    """Eight GPUs of which nothing but NVLink takes time; ``rate`` GiB/s a port, or a link of a full mesh."""
    link = NvlinkSpec(kind=kind, bandwidth=rate * GIB_S, efficiency=1.0, base_latency=0.0, step_latency=step)
    fast = replace(GPU, hbm_bandwidth=1e18)
    return replace(SPEC, nodes=1, nics=None, nvlink=link, device=fast, collectives=asking(algorithm), host_link=LINK)


def grid(*dimensions, algorithm):
    """Nodes of one GPU at the crossings of ``dimensions``: (kind, size, GiB/s a link, seconds a hop)."""
    axes = tuple(DimensionSpec(kind=k, size=n, bandwidth=rate * GIB_S, latency=hop) for k, n, rate, hop in dimensions)
    nodes = 1
    for axis in axes:
        nodes *= axis.size
    alone_in_node = replace(node("switch", 1.0, 0.0, algorithm), gpus_per_host=1, host_link=replace(LINK, uplink=0.0))
    spec = replace(alone_in_node, nodes=nodes, host=replace(SPEC.host, sockets=1))
    return build(replace(spec, fabric=FabricSpec(dimensions=axes)))


RING = grid(("ring", 8, 25.0, 500e-9), algorithm="ring")  # both ways together 50
SWITCH = {
    name: build(node("switch", 400.0, 2 * 936.25e-9, name)) for name in ("ring", "halving_doubling")
}  # up to the switch and down
SWITCH["direct"] = build(node("full", 7 * 400.0, 2 * 936.25e-9, "direct"))  # no message meets another
FULL = build(node("full", 7 * 50.0, 500e-9, "direct"))
TWO = grid(("ring", 8, 100.0, 500e-9), ("switch", 16, 50.0, 2e-6), algorithm="hierarchical")
THREE = grid(
    ("ring", 8, 100.0, 500e-9), ("ring", 8, 50.0, 500e-9), ("switch", 64, 50.0, 2e-6), algorithm="hierarchical"
)

EIGHT = [  # system, its cluster, algorithm, collective, nanoseconds at 1, 64 and 1024 MiB: 'unaware c1 a1'
    ("Ring", RING, "ring", "all_reduce", (42890, 2304597, 36768621)),
    ("Ring", RING, "ring", "all_gather", (140225, 8753508, 140003508)),
    ("Ring", RING, "ring", "reduce_scatter", (22296, 1207340, 19265114)),
    ("Ring", RING, "ring", "all_to_all", (82377, 4389029, 70014029)),
    ("Switch", SWITCH["ring"], "ring", "all_reduce", (32194, 409739, 6162829)),
    ("Switch", SWITCH["ring"], "ring", "all_gather", (30199, 1106862, 17513112)),
    ("Switch", SWITCH["ring"], "ring", "reduce_scatter", (16948, 259911, 3962218)),
    ("Switch", SWITCH["ring"], "ring", "all_to_all", (60985, 599313, 8802445)),
    ("Switch", SWITCH["direct"], "direct", "all_reduce", (4600, 58535, 880405)),
    ("Switch", SWITCH["direct"], "direct", "all_gather", (4315, 158124, 2501874)),
    ("Switch", SWITCH["direct"], "direct", "reduce_scatter", (2422, 37131, 566032)),
    ("Switch", SWITCH["direct"], "direct", "all_to_all", (2179, 21405, 314374)),
    ("Switch", SWITCH["halving_doubling"], "halving_doubling", "all_reduce", (16243, 331858, 5141213)),
    ("Switch", SWITCH["halving_doubling"], "halving_doubling", "all_gather", (22710, 1099370, 17505620)),
    ("Switch", SWITCH["halving_doubling"], "halving_doubling", "reduce_scatter", (8488, 189520, 2948094)),
    ("FullyConnected", FULL, "direct", "all_reduce", (6128, 329229, 5252661)),
    ("FullyConnected", FULL, "direct", "all_gather", (20033, 1250502, 20000502)),
    ("FullyConnected", FULL, "direct", "reduce_scatter", (3186, 172478, 2752160)),
    ("FullyConnected", FULL, "direct", "all_to_all", (2943, 156752, 2500502)),
]
RECEIVES = {"ring": 7, "direct": 1, "halving_doubling": 3}  # of one reduction over eight


def got(kind, size, cluster, members):
    """Seconds; ``size`` as the other simulator counts it."""
    whole = size * (len(members) if kind == "all_gather" else 1)
    return alone(demand(Collective(kind=kind, axis="dp", size=whole), members, cluster))


def places(cluster):
    return [(n, gpu) for n, gpus in enumerate(cluster.gpus_of_node) for gpu in range(gpus)]


@pytest.mark.parametrize(
    ("system", "cluster", "algorithm", "kind", "rows"), EIGHT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_eight_devices(system, cluster, algorithm, kind, rows):
    assert len(places(cluster)) == 8
    for mib, nanoseconds in zip((1, 64, 1024), rows, strict=True):
        adds = RECEIVES[algorithm] if kind in ("all_reduce", "reduce_scatter") else 0
        ours = got(kind, mib * MIB, cluster, places(cluster)) + adds * 3 * (mib * MIB / 8) / MEMORY
        assert ours == pytest.approx(nanoseconds * 1e-9, rel=0.005)


LEVELS = [  # cluster, its sizes, collective, nanoseconds by MiB
    (TWO, (8, 16), "all_reduce", {1: 82073, 64: 1031662, 1024: 15502043}),
    (TWO, (8, 16), "all_gather", {1: 873364, 64: 53783524, 1024: 860033524}),
    (TWO, (8, 16), "reduce_scatter", {1: 42000, 64: 578230, 1024: 8749770}),
    (THREE, (8, 8, 64), "all_reduce", {1: 279242, 1024: 13831389}),
    (THREE, (8, 8, 64), "all_gather", {1: 23238533, 1024: 23660133080}),
    (THREE, (8, 8, 64), "reduce_scatter", {1: 140577, 1024: 7921994}),
]


@pytest.mark.parametrize(
    ("cluster", "sizes", "kind", "rows"), LEVELS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_two_and_three_dimensions_of_128_and_4096_devices(cluster, sizes, kind, rows):
    for mib, nanoseconds in rows.items():
        part, adds = mib * MIB, 0.0
        for size in sizes if kind != "all_gather" else ():
            part /= size
            adds += (size - 1) * 3 * part / MEMORY
        ours = got(kind, mib * MIB, cluster, places(cluster)) + adds
        assert ours == pytest.approx(nanoseconds * 1e-9, rel=0.005)
