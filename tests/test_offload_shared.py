"""GPUs that offload through shared uplinks and one memory never get more than the hardware has, on random hosts."""

import random
from dataclasses import replace

import numpy as np
import pytest

from scenarios import TINY, on
from sim.api import simulate
from sim.spec.load import load
from sim.spec.types import NvmeSpec

HOSTS = 40
BASE = [*TINY, "model.layers=3", "batch.micro=1", "layout.zero=2"]
COPIES = ("pcie.", "uplink.", "dram", "cores", "socket_link", "nvme.")


def host(number):
    """One to eight GPUs on one or two sockets, pairs or quads on an uplink, any rates."""
    pick = random.Random(number)
    gpus = pick.choice([1, 2, 4, 8])
    sockets = pick.choice([s for s in (1, 2) if gpus % s == 0])
    group = pick.choice([g for g in (1, 2, 4) if gpus // sockets % g == 0 or g == 1])
    sets = [*BASE, "cluster.nodes=1", f"layout.dp={gpus}"]
    scenario = load("zero-offload-10b-v100", sets).scenario
    rate = pick.uniform(1e9, 3e10)
    link = replace(
        scenario.cluster.host_link, h2d=rate, d2h=rate * pick.uniform(0.6, 1.0), duplex=rate * pick.uniform(1.0, 1.5),
        pageable=rate / 2, gpus_per_uplink=group, uplink=rate * pick.uniform(0.3, 2.0) if group > 1 else 0.0,
    )  # fmt: skip
    cpu = replace(
        scenario.cluster.host, sockets=sockets, dram_bandwidth=pick.uniform(2e9, 1e11), socket_link=2e9,
        binding=pick.choice(["local", "remote"]),
    )  # fmt: skip
    drives = NvmeSpec(read=pick.uniform(1e9, 6e9), write=pick.uniform(1e9, 3e9), capacity=1e13)
    scenario = on(scenario, gpus_per_host=gpus, host_link=link, host=cpu, nvme=drives)
    offload = replace(
        scenario.offload, optimizer=pick.choice(["cpu", "nvme"]), pinned=pick.random() < 0.7,
        threads=pick.choice([0, 1, 4]), sub_group=20_000,
    )  # fmt: skip
    if offload.optimizer == "cpu":
        offload = replace(offload, sub_group=0, update=pick.choice(["after", "delayed", "speculative"]))
    if pick.random() < 0.4:
        offload = replace(offload, parameters=pick.choice(["cpu", "nvme"]))
        scenario = replace(scenario, layout=replace(scenario.layout, zero=3))
    return replace(scenario, offload=offload)


def asked_of(timeline, resource):
    """(Bytes asked of one member of a resource class in all, seconds in which anybody used it)."""
    times = np.bincount(timeline.spans.op, minlength=len(timeline.ops))
    total, used = 0.0, []
    for number, op in enumerate(timeline.ops):
        amount = dict(op.demands).get(resource, 0.0)
        if amount > 0:
            members = timeline.rank_classes[op.rank_class].members / op.group_size
            total += amount * op.group_size * members * times[number]
            used.append(number)
    return total / timeline.resources[resource].members, used


def window(timeline, ops):
    """First start and last end of any span of these ops."""
    mine = np.isin(timeline.spans.op, ops)
    return timeline.spans.start[mine].min(), timeline.spans.end[mine].max()


@pytest.mark.parametrize("number", range(HOSTS))
def test_nothing_carries_more_than_it_has(number):
    """Bytes on a link, over the time from its first to its last use, are within its capacity."""
    timeline = simulate(host(number)).timeline
    seen = 0
    for resource, row in enumerate(timeline.resources):
        if not row.kind.startswith(COPIES):
            continue
        total, used = asked_of(timeline, resource)
        if used:
            begin, end = window(timeline, used)
            assert total <= row.capacity * (end - begin) * (1 + 1e-6), row.name
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_gpus_on_one_uplink_share_it_evenly(gpus):
    """Copies of n GPUs through one uplink of the rate of one link take n times as long."""
    sets = [*BASE, f"cluster.gpus_per_host={gpus}", "cluster.nodes=1", f"layout.dp={gpus}", "cluster.host.sockets=1"]
    link = "{kind: pcie, h2d: 10 GB/s, d2h: 10 GB/s, duplex: 20 GB/s, pageable: 5 GB/s, latency: 0 s"
    sets += [f"cluster.host_link={link}, gpus_per_uplink: {gpus}, uplink: 10 GB/s, source: made up}}"]
    result = simulate(load("zero-offload-10b-v100", sets).scenario).result
    copy = next(use for use in result.transfers if use.category == "h2d")
    assert copy.achieved == pytest.approx(10e9 / gpus, rel=1e-3)
    assert copy.ranks == pytest.approx(gpus)
