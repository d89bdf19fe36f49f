"""Which GPU a rank has: what a placement does to collectives, to the CPU and to what is shown."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from scenarios import A100, V100, data_parallel, on
from sim.api import simulate
from sim.report.result_json import to_dict
from sim.report.text import show


def placed(scenario, placement):
    return replace(scenario, layout=replace(scenario.layout, placement=placement))


def two_nodes(gpus=4, **layout):
    scenario = data_parallel(gpus, base=A100, nodes=2)
    scenario = on(scenario, gpus_per_host=gpus)
    return replace(scenario, layout=replace(scenario.layout, tp=2, **layout))


def spans(timeline):
    names = [timeline.ops[o].name for o in timeline.spans.op.tolist()]
    return sorted(zip(timeline.spans.start.tolist(), timeline.spans.end.tolist(), names, strict=True))


@pytest.mark.parametrize("placement", ["scattered", (0, 4, 1, 5, 2, 6, 3, 7)])
def test_tensor_parallelism_across_nodes_is_the_mesh_order_that_does_the_same(placement):
    """Ranks 2i and 2i + 1 hold the halves of a layer; dealt out over two nodes, each pair talks over the network."""
    near = simulate(two_nodes())
    far = simulate(placed(two_nodes(), placement))
    turned = simulate(two_nodes(order=("dp", "tp", "cp", "pp")))
    assert far.result.breakdown["tp"] > 1.5 * near.result.breakdown["tp"]
    assert far.result.step_time == turned.result.step_time
    assert spans(far.timeline) == spans(turned.timeline)
    bound = {u.category: u.bound_by for u in far.result.transfers}
    assert bound["tp"].endswith("nic.tx")
    assert bound["dp"].endswith("nvlink.tx")


def test_packed_said_as_a_list_is_packed():
    assert simulate(placed(two_nodes(), tuple(range(8)))).timeline.makespan == simulate(two_nodes()).timeline.makespan


def test_offload_is_as_fast_as_its_ranks_share_a_socket():
    """Eight ranks with CPU Adam on two nodes of two sockets: four on each of two sockets, or two on each of four."""
    base = on(data_parallel(8, 2, base=V100, offload=True, nodes=2), gpus_per_host=8)
    base = on(base, host=replace(base.cluster.host, sockets=2), nics=A100.cluster.nics)
    close, spread = (0, 1, 2, 3, 8, 9, 10, 11), (0, 1, 4, 5, 8, 9, 12, 13)

    def adam(placement):
        timeline = simulate(placed(base, placement)).timeline
        return {op.duration for op in timeline.ops if op.kind == "adam"}

    assert adam("scattered") == adam(close), "scattered ranks have the first GPUs of each node, all on one socket"
    (slow,), (fast,) = adam(close), adam(spread)
    assert slow == pytest.approx(2 * fast, rel=1e-12)


def test_a_fuller_node_has_less_of_the_host_for_each_rank():
    base = on(data_parallel(4, 2, base=V100, offload=True, nodes=2), gpus_per_host=8, nics=A100.cluster.nics)
    uneven, even = (
        next(u for u in simulate(placed(base, p)).result.memory if u.where == "host").capacity
        for p in ((0, 1, 2, 8), (0, 1, 8, 9))
    )
    assert (uneven, even) == (V100.cluster.host.dram / 3, V100.cluster.host.dram / 2)


def test_unequal_shares_of_the_cpu_fold_exactly():
    """Three ranks on one node, one on the other: the lone rank has more of its CPU, and waits."""
    base = on(data_parallel(4, 2, base=V100, offload=True, nodes=2), gpus_per_host=8, nics=A100.cluster.nics)
    base = placed(base, (0, 1, 2, 8))
    folded, whole = simulate(base), simulate(base, fold=False)
    assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-12)
    assert folded.result.rank_classes < 4
    assert np.allclose(sum(r.members for r in folded.timeline.rank_classes), 4)


def test_the_result_shows_where_ranks_sit():
    listed = (0, 1, 4, 7, 6, 5, 3, 2)
    for placement, said in (("packed", "packed"), ("scattered", "scattered"), (listed, "0-1, 4, 7-5, 3-2")):
        result = simulate(placed(two_nodes(), placement)).result
        assert to_dict(result)["placement"] == said
        stream = io.StringIO()
        show(Console(file=stream, width=100), result)
        assert (f"devices of the ranks: {said}" in stream.getvalue()) == (placement != "packed")
