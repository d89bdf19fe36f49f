"""Folding: the coarsest equitable partition, and the same step with and without it."""

import random
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios import A100, V100, data_parallel, on, one_nic, random_system, spans_by_rank
from sim.analysis.breakdown import breakdown
from sim.analysis.memory import memory_use
from sim.analysis.phases import phases
from sim.analysis.transfers import utilisation
from sim.api import simulate
from sim.cluster.build import build as build_cluster
from sim.cost.classes import classify
from sim.cost.fold import discrete, refine
from sim.cost.lower import lower
from sim.engine.core import simulate as run_plan
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
    begin = time.process_time()
    classes = classify(workload, cluster, fold=True)
    assert time.process_time() - begin < 1.5
    assert classes.members.tolist() == [16_384]


def systems():
    """DP and ZeRO on one to three nodes of 2 to 8 GPUs: own, shared and single adapters; offload on shared uplinks."""
    number = 0
    for nodes, gpus in ((1, 2), (2, 4)):
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
    for gpus, uplink in ((2, 2), (6, 2)):
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
    same_spans(folded.timeline, whole.timeline)


def same_spans(folded, whole):
    """Every span of every representative begins and ends as it does when all ranks are simulated."""
    everyone = spans_by_rank(whole)
    for rank, spans in spans_by_rank(folded).items():
        assert spans.keys() == everyone[rank].keys()
        for key, times in spans.items():
            assert np.allclose(times, everyone[rank][key], rtol=1e-9, atol=1e-13), key


def same_lives(classes, whole):
    """All ranks of a class do the same at the same times, though each was simulated by itself."""
    everyone = spans_by_rank(whole)
    for rank, number in enumerate(classes.rank_class.tolist()):
        first = everyone[int(classes.first[number])]
        assert first.keys() == everyone[rank].keys()
        for key, times in everyone[rank].items():
            assert np.allclose(times, first[key], rtol=1e-9, atol=1e-13), key


@pytest.mark.parametrize("seed", range(60))
def test_random_systems_fold_exactly(seed):
    """Unlike ranks, shared uplinks and adapters, one or two sockets, offload or not: folding changes nothing."""
    scenario = random_system(seed)
    folded, whole = simulate(scenario), simulate(scenario, fold=False)
    one, other = folded.result, whole.result
    assert one.step_time == pytest.approx(other.step_time, rel=1e-9)
    same_spans(folded.timeline, whole.timeline)
    same_lives(classify(build(scenario), build_cluster(scenario.cluster), fold=True), whole.timeline)
    for category in {*one.breakdown, *other.breakdown}:
        assert one.breakdown.get(category, 0.0) == pytest.approx(
            other.breakdown.get(category, 0.0), rel=1e-9, abs=1e-9 * other.step_time
        )
    for where in ("gpu", "host"):
        peaks = [max((u.peak for u in r.memory if u.where == where), default=0.0) for r in (one, other)]
        assert peaks[0] == pytest.approx(peaks[1], rel=1e-9)
    for result, timeline in ((one, folded.timeline), (other, whole.timeline)):
        assert sum(result.breakdown.values()) == pytest.approx(result.step_time, rel=1e-9)
        assert sum(result.phases.values()) == pytest.approx(result.step_time, rel=1e-9)
        assert sum(result.bound_by.values()) == pytest.approx(1.0, rel=1e-9)
        assert max(result.utilisation.values()) <= 1 + 1e-9
        assert utilisation(timeline) == result.utilisation


def mixed(seed):
    """A random system whose ranks form several groups, in any pattern, and of which some run another program."""
    draw = random.Random(seed)
    scenario = next(s for s in (random_system(seed + 10_007 * i) for i in range(99)) if 4 <= s.layout.dp <= 8)
    n = scenario.layout.dp
    size = draw.choice([d for d in range(2, n + 1) if n % d == 0])
    ranks = list(range(n))
    if draw.random() < 0.4:
        draw.shuffle(ranks)
    strided = draw.random() < 0.5
    groups = [ranks[i :: n // size] for i in range(n // size)] if strided else [
        ranks[i : i + size] for i in range(0, n, size)
    ]  # fmt: skip
    other = replace(scenario, recompute="none" if scenario.recompute == "full" else "full")
    pattern = draw.choice(([0] * n, [0, 1] * n, [1] + [0] * n, [draw.randint(0, 1) for _ in range(n)]))
    workload = replace(
        build(scenario),
        programs=(build(scenario).programs[0], build(other).programs[0]),
        program_of_rank=np.array(pattern[:n], dtype=np.int64),
        groups={"dp": np.array([sorted(g) for g in groups], dtype=np.int64)},
    )
    return scenario, workload


@pytest.mark.parametrize("seed", range(20))
def test_unlike_programs_and_many_groups_fold_exactly(seed):
    """Groups that share adapters and uplinks, stragglers that others wait for, ranks without a peer."""
    scenario, workload = mixed(seed)
    cluster = build_cluster(scenario.cluster)
    folded, whole = (run_plan(lower(workload, cluster, scenario, fold=fold)) for fold in (True, False))
    assert folded.makespan == pytest.approx(whole.makespan, rel=1e-9)
    same_spans(folded, whole)
    same_lives(classify(workload, cluster, fold=True), whole)
    for timeline in (folded, whole):
        for parts in (breakdown(timeline), phases(timeline)):
            assert sum(parts.values()) == pytest.approx(timeline.makespan, rel=1e-9)
        assert max(utilisation(timeline).values()) <= 1 + 1e-9
    used = {u.rank_class: u.peak for u in memory_use(folded, gpu_capacity=1.0, host_capacity=1.0) if u.where == "gpu"}
    every = {u.rank_class: u.peak for u in memory_use(whole, gpu_capacity=1.0, host_capacity=1.0) if u.where == "gpu"}
    for number, row in enumerate(folded.rank_classes):
        its = next(i for i, r in enumerate(whole.rank_classes) if r.representative == row.representative)
        assert used[number] == pytest.approx(every[its], rel=1e-9)


def test_a_straggler_splits_its_group_and_no_other():
    """Eight ranks in pairs; rank 5 runs another program: it and its peer 4 become classes of their own."""
    scenario = on(data_parallel(8), host_link=replace(A100.cluster.host_link, gpus_per_uplink=1))
    workload = replace(
        build(scenario),
        programs=build(scenario).programs * 2,
        program_of_rank=np.array([0, 0, 0, 0, 0, 1, 0, 0]),
        groups={"dp": np.arange(8).reshape(4, 2)},
    )
    scenario = on(scenario, host=replace(scenario.cluster.host, sockets=8))
    classes = classify(workload, build_cluster(scenario.cluster), fold=True)
    assert classes.rank_class.tolist() == [0, 0, 0, 0, 1, 2, 0, 0]
    assert [(g.count, g.members) for g in classes.groups] == [(3, (0, 1)), (1, (4, 5))]


def test_a_slow_neighbour_on_the_same_socket_splits_too():
    """As above on two sockets: ranks 6 and 7 share DRAM with the straggler, ranks 0 to 3 do not."""
    scenario = data_parallel(8, 2, base=V100, offload=True)  # CPU work
    workload = replace(
        build(scenario),
        programs=build(scenario).programs * 2,
        program_of_rank=np.array([0, 0, 0, 0, 0, 1, 0, 0]),
        groups={"dp": np.arange(8).reshape(4, 2)},
    )
    host = replace(scenario.cluster.host, sockets=2)
    scenario = on(
        scenario, gpus_per_host=8, host=host, host_link=replace(scenario.cluster.host_link, gpus_per_uplink=1)
    )
    classes = classify(workload, build_cluster(scenario.cluster), fold=True)
    assert classes.rank_class.tolist() == [0, 0, 0, 0, 1, 2, 3, 3]


def test_every_resource_is_met_by_the_class_that_says_so():
    """Members of rank classes are all ranks; a resource class holds resources of one kind and capacity only."""
    for seed in range(20):
        scenario, workload = mixed(seed)
        cluster = build_cluster(scenario.cluster)
        classes = classify(workload, cluster, fold=True)
        assert classes.members.sum() == scenario.layout.dp
        assert (np.bincount(classes.rank_class) == classes.members).all()
        met = np.flatnonzero(classes.resource_class >= 0)
        for number, size in enumerate(classes.resource_size.tolist()):
            mine = met[classes.resource_class[met] == number]
            assert len(mine) == size
            resources = [cluster.kinds[0].resources[i % cluster.per_node] for i in mine.tolist()]
            assert len({(r.kind, r.capacity) for r in resources}) == 1


def test_equal_ranks_are_one_class():
    assert simulate(data_parallel(8, 2)).result.rank_classes == 1
    assert A100.layout.dp == 1
