"""What a software stack adds to the work, hides of it, and holds in memory: against counts made by hand."""

from collections import Counter
from dataclasses import replace

import pytest

from scenarios import data_parallel, spans_of
from sim.api import simulate
from sim.spec.load import load
from sim.workload.build import build
from sim.workload.kernels import Shape, layer_backward, layer_forward
from sim.workload.ops import Collective

TINY = ["model.layers=4", "model.hidden=256", "model.heads=4", "model.kv_heads=4", "model.ffn=1024", "model.vocab=1024"]
BASE = load("quickstart", [*TINY, "batch.micro=1"]).scenario


def of(*, tp=1, dp=1, accumulation=1, stack=None, **layout):
    scenario = data_parallel(dp, base=BASE, accumulation=accumulation)
    layout = replace(scenario.layout, tp=tp, **layout)
    return replace(scenario, layout=layout, stack=replace(scenario.stack, **(stack or {})), recompute="none")


def overlaps(scenario, which):
    shape = Shape(
        model=scenario.model, micro=1, sequence=scenario.batch.sequence, stack=scenario.stack,
        precision=scenario.precision, layout=scenario.layout,
    )  # fmt: skip
    return Counter((i.kind, i.overlap) for i in which(shape) if isinstance(i, Collective))


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_asynchronous_gradients_run_beside_weight_gradients(sequence_parallel):
    """Forward and what comes in are waited for; what goes out of the two column-split layers is not, nor the inputs
    gathered again for their weight gradients."""
    scenario = of(tp=4, sequence_parallel=sequence_parallel, stack={"async_tp": True})
    kinds = ("all_gather", "reduce_scatter") if sequence_parallel else ("all_reduce",)
    assert overlaps(scenario, layer_forward) == Counter({(kind, "none"): 2 for kind in kinds})
    outgoing = {(kind, "next"): 2 for kind in kinds}
    incoming = {("all_gather", "none"): 2} if sequence_parallel else {}
    assert overlaps(scenario, layer_backward) == Counter({**outgoing, **incoming})


def test_a_checked_collective_costs_the_host_its_members():
    plain, checked = (simulate(of(tp=4, stack={"collective_check": c})).result for c in (0.0, 1e-3))
    count = sum(use.count for use in checked.transfers if use.category == "tp")
    assert checked.step_time - plain.step_time == pytest.approx(count * 4 * 1e-3, rel=0.05), "all else is far shorter"


def test_a_handover_lengthens_each_collective_that_is_waited_for():
    """tp = 4 and nothing hidden: a millisecond more for each, and none for messages between two stages."""
    plain, late = (simulate(of(tp=4, stack={"handover": seconds, "async_tp": False})).result for seconds in (0.0, 1e-3))
    count = sum(use.count for use in late.transfers if use.category == "tp")
    assert late.step_time - plain.step_time == pytest.approx(count * 1e-3, rel=0.02), "all else stays"
    times = [simulate(of(pp=2, stack={"handover": seconds})).result.step_time for seconds in (0.0, 1e-3)]
    count = 2  # the norm, and the gradients of the embedding that both ends hold
    assert times[1] - times[0] == pytest.approx(count * 1e-3, rel=0.01)


def test_blocking_launches_put_launch_and_kernel_one_after_the_other():
    """On one GPU, with launches of 1 ms: kernels take what they took, and each waits a launch more."""
    host = replace(BASE.cluster.host, launch=1e-3)
    times = {}
    for blocking in (False, True):
        scenario = of(stack={"blocking_launches": blocking, "launch_factor": 1.0})
        step = simulate(replace(scenario, cluster=replace(scenario.cluster, host=host)))
        kernels = [op for op in spans_of(step.timeline) if step.timeline.ops[step.timeline.spans.op[op]].kernels]
        spans = [step.timeline.ops[step.timeline.spans.op[i]] for i in kernels]
        times[blocking] = step.result.step_time, sum(op.duration + op.latency for op in spans), len(spans)
    total, busy, count = times[True]
    assert total == pytest.approx(busy + sum(1 for _ in range(count)) * 1e-3, rel=0.02)
    assert total > times[False][0]


@pytest.mark.parametrize(("dp", "zero", "copies"), [(1, 0, 0), (4, 0, 2), (4, 1, 2), (4, 2, 0)])
def test_a_reducer_holds_its_buckets(dp, zero, copies):
    held = dict(build(of(dp=dp, zero=zero, stack={"reducer_buckets": True})).programs[0].resident_gpu)
    assert held.get("gradients.buckets", 0.0) == pytest.approx(copies * held["parameters"] / 2)


def test_gathered_inputs_stay_where_a_stack_keeps_them():
    scenario = of(tp=4, sequence_parallel=True, stack={"tp_buffers": 2})
    held = dict(build(scenario).programs[0].resident_gpu)
    assert held["activations.gathered"] == 2 * scenario.batch.micro * scenario.batch.sequence * 256 * 2


def test_a_flat_gather_holds_all_parameters_and_a_part_once_more():
    result = simulate(of(dp=4, zero=1, stack={"flat_gather": True})).result
    (use,) = [one for one in result.memory if one.where == "gpu"]
    flat = use.by_owner["parameters.flat"]
    assert flat.max() == pytest.approx(1.25 * use.by_owner["parameters"].max(), rel=1e-3)
    assert flat[-1] == 0.0


def test_a_step_by_tensors_launches_five_kernels_each():
    """Norm, clipping, copy and zeroing for each tensor, and one Adam."""
    scenario = of(stack={"tensorwise_step": True})
    program = build(scenario).programs[0]
    names = Counter(op.name for op in program.blocks[-1].ops if op.name.startswith("optimizer."))
    tensors = names["optimizer.grad_norm"]
    assert tensors > 4 * 6
    each = {"grad_norm", "grad_clip", "param_copy", "zero_grad"}
    assert names == Counter({**{f"optimizer.{name}": tensors for name in each}, "optimizer.adam": 1})


def test_a_host_that_waits_for_messages_does_not_launch_ahead():
    """Launches of 1 ms bind: 4 microbatches through 4 stages take nearly 7 turns of a stage's launches, not 4."""
    host = replace(BASE.cluster.host, launch=1e-3)
    times = {}
    for waits in (False, True):
        scenario = data_parallel(1, base=BASE, accumulation=4)
        scenario = replace(
            scenario, layout=replace(scenario.layout, pp=4), recompute="none",
            cluster=replace(scenario.cluster, host=host), stack=replace(scenario.stack, p2p_waits=waits),
        )  # fmt: skip
        times[waits] = simulate(scenario).result.step_time
    assert times[True] > 1.3 * times[False]
