"""Large clusters with a part that is slow or gone, ranks in the wrong place: who waits, how long, for which link."""

import time

import pytest

from sim.analysis.explain import explain
from sim.api import run

FEWER = ["model.layers=8"]


@pytest.fixture(scope="module")
def healthy():
    return run("degraded-nic-512", [*FEWER, "cluster.variations=null"]).result


@pytest.mark.parametrize(
    ("name", "slow", "others"), [("degraded-nic-512", 512, 7 * 512), ("lost-rail-512", 2 * 512, 6 * 512)]
)
def test_4096_ranks_wait_for_those_of_the_slow_rail(healthy, name, slow, others):
    """Half a rate, or two rings through one adapter: exchanges over that rail take twice as long, for all its ranks.

    So the step grows by the time that 4 bytes of gradient and 2 of parameter, a tensor-parallel eighth of each, take at
    25 GB/s x 0.96, and somewhat more, for chunks wait longer for each other, too. Whoever is on another rail stands
    still meanwhile.
    """
    began = time.process_time()
    step = run(name, FEWER)
    assert time.process_time() - began < 10
    balance = explain(step.timeline, step.result).balance
    assert healthy.rank_classes == 1
    assert sorted(load.members for load in balance.ranks) == sorted((slow, others))
    waiting = {load.members: load.idle for load in balance.ranks}
    grown = step.result.step_time - healthy.step_time
    params = (12 * 8 * 5120**2 + 50304 * 5120) / 8
    assert waiting[slow] < 0.02 * grown
    assert waiting[others] == pytest.approx(grown, rel=0.01)
    assert 1.0 < grown / (6 * params / (25e9 * 0.96)) < 1.6
    late, _ = balance.late[0]
    assert balance.ranks[late].members == slow


def test_tensor_parallel_groups_across_nodes_are_bound_by_adapters():
    """The same step on the same machine, mesh axes in the wrong order: twice as long, and the result says why."""
    right, wrong = (run(name).result for name in ("placement-tp-inside", "placement-tp-across"))
    of = {name: {use.category: use for use in r.transfers} for name, r in (("right", right), ("wrong", wrong))}
    assert of["right"]["tp"].bound_by == "n0.gpu0.nvlink.tx"
    assert of["wrong"]["tp"].bound_by == "n0.nic0.nic.tx"
    assert of["right"]["tp"].bytes == pytest.approx(of["wrong"]["tp"].bytes)
    assert next(iter(right.bound_by)) == "sm"
    assert next(iter(wrong.bound_by)) == "nic.tx"
    assert wrong.step_time > 1.5 * right.step_time
