"""Folding: the coarsest equitable partition, and the same step with and without it."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios import A100, V100, data_parallel, on, one_nic
from sim.api import simulate
from sim.cluster.build import build as build_cluster
from sim.cost.classes import classify
from sim.cost.fold import discrete, refine
from sim.spec.types import NicSpec
from sim.workload.build import build


def brute_force(start, edges):
    """Refine by comparing whole multisets, without hashing."""
    colour = list(start)
    while True:
        seen = [
            (
                colour[v],
                tuple(sorted(Counter((w, colour[b if a == v else a]) for a, b, w in edges if v in (a, b)).items())),
            )
            for v in range(len(start))
        ]
        finer = [sorted(set(seen)).index(s) for s in seen]
        if len(set(finer)) == len(set(colour)):
            return colour
        colour = finer


graphs = st.integers(2, 9).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.integers(0, 2)), max_size=14).map(
            lambda edges: [(a, b, w) for a, b, w in edges if a != b]
        ),
    )
)


@given(graphs)
def test_refinement_equals_brute_force(graph):
    start, edges = graph
    columns = np.array(edges, dtype=np.int64).reshape(-1, 3).T
    found = refine(np.array(start, dtype=np.int64), columns[0], columns[1], columns[2]).colour
    expected = brute_force(start, edges)
    pairs = set(zip(found.tolist(), expected, strict=True))
    assert len(pairs) == len(set(expected)) == len(set(found.tolist()))


def test_a_different_resource_splits_its_neighbours_alone():
    """Four ranks, each with a resource of its own; the third resource is slow."""
    start = np.array([0, 0, 0, 0, 1, 1, 2, 1])
    found = refine(start, np.arange(4), np.arange(4, 8), np.zeros(4, dtype=np.int64))
    assert found.colour[:4].tolist() == [0, 0, 1, 0]
    assert len(found.size) == 4


def test_discrete():
    assert discrete(3).colour.tolist() == [0, 1, 2]


def test_sixteen_thousand_ranks_fold_at_once():
    scenario = data_parallel(16_384, 1, nodes=2048)
    workload, cluster = build(scenario), build_cluster(scenario.cluster)
    begin = time.perf_counter()
    classes = classify(workload, cluster, fold=True)
    assert time.perf_counter() - begin < 3.0
    assert classes.members.tolist() == [16_384]


def systems():
    """DP and ZeRO on one to three nodes of 2 to 8 GPUs: own, shared and single adapters; offload on shared uplinks."""
    number = 0
    for nodes, gpus in ((1, 2), (1, 8), (2, 2), (2, 4), (3, 2), (2, 8)):
        for zero in range(4):
            for nic in ("own", "two", "one") if nodes > 1 else ("own",):
                number += 1
                scenario = data_parallel(nodes * gpus, zero, nodes=nodes, accumulation=1 + number % 2)
                link = replace(scenario.cluster.host_link, gpus_per_uplink=1)
                scenario = on(scenario, gpus_per_host=gpus, host_link=link)
                if nic == "one":
                    scenario = one_nic(scenario)
                elif nic == "two":
                    two = NicSpec(count=2, bandwidth=25e9, efficiency=0.9, step_latency=14e-6)
                    scenario = on(scenario, nics=two)
                yield pytest.param(scenario, id=f"{nodes}x{gpus}-zero{zero}-{nic}")
    for gpus, uplink in ((1, 4), (2, 2), (4, 4), (8, 2), (16, 4), (6, 2)):
        for zero in (1, 2):
            scenario = data_parallel(gpus, zero, base=V100, offload=True, grad_bucket=2e5)
            link = replace(scenario.cluster.host_link, gpus_per_uplink=uplink)
            yield pytest.param(on(scenario, host_link=link), id=f"offload-{gpus}-uplink{uplink}-zero{zero}")


@pytest.mark.parametrize("scenario", list(systems()))
def test_folded_equals_unfolded(scenario):
    folded, whole = simulate(scenario), simulate(scenario, fold=False)
    assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-9)
    assert folded.result.rank_classes <= whole.result.rank_classes == scenario.layout.dp
    assert sum(row.members for row in folded.timeline.rank_classes) == scenario.layout.dp
    for category, seconds in whole.result.breakdown.items():
        assert folded.result.breakdown.get(category, 0.0) == pytest.approx(
            seconds, rel=1e-7, abs=1e-9 * whole.result.step_time
        )
    assert max(u.peak for u in folded.result.memory) == pytest.approx(max(u.peak for u in whole.result.memory))
    for row in folded.timeline.rank_classes:
        mine, its = (
            _spans(t, next(i for i, r in enumerate(t.rank_classes) if r.representative == row.representative))
            for t in (folded.timeline, whole.timeline)
        )
        assert mine.keys() == its.keys()
        for key, times in mine.items():
            assert times == pytest.approx(its[key], rel=1e-9, abs=1e-12)


def _spans(timeline, rank_class):
    found = {}
    spans = timeline.spans
    for i, o in enumerate(spans.op.tolist()):
        op = timeline.ops[o]
        if op.rank_class == rank_class:
            key = (op.name, op.stream, op.layer, op.phase, int(spans.action[i]))
            found.setdefault(key, []).extend((float(spans.start[i]), float(spans.end[i])))
    return {key: sorted(times) for key, times in found.items()}


def test_equal_ranks_are_one_class():
    assert simulate(data_parallel(8, 2)).result.rank_classes == 1
    assert A100.layout.dp == 1
