"""What a software stack adds to the work, hides of it, and holds in memory: against counts made by hand."""

from collections import Counter
from dataclasses import replace

import pytest

from scenarios import data_parallel, spans_of
from sim.api import simulate
from sim.spec.load import load
from sim.workload.build import build
from sim.workload.kernels import Shape, layer_backward, layer_forward
from sim.workload.kernels_core import math_core
from sim.workload.ops import Collective
from sim.workload.stash import layer_stash

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


def kernels_of(step):
    """Seconds alone of each op that takes any, in the order in which they were launched."""
    ops = [step.timeline.ops[step.timeline.spans.op[span]] for span in spans_of(step.timeline)]
    return [op.duration + op.latency for op in ops if op.duration + op.latency > 0.0]


@pytest.mark.parametrize("launch", [1e-6, 8e-6, 1e-3])
def test_a_queue_of_two_takes_the_longer_of_each_launch_and_kernel(launch):
    """One kernel runs, the next is launched meanwhile: the sum over kernels of the longer of the two, whether the host,
    the GPU or each in turn is the slower. A queue of one is a launch that blocks, a long one the longer of the sums."""
    host, times = replace(BASE.cluster.host, launch=launch), {}
    cases = {1: {"launch_queue": 1}, 2: {"launch_queue": 2}, 9: {}, 0: {"blocking_launches": True}}
    for case, stack in cases.items():
        scenario = of(stack={"launch_factor": 1.0, **stack})
        step = simulate(replace(scenario, cluster=replace(scenario.cluster, host=host)))
        times[case], busy = step.result.step_time, kernels_of(step)
    assert times[0] == pytest.approx(times[1], rel=1e-9)
    assert times[1] == pytest.approx(sum(launch + kernel for kernel in busy), rel=1e-9)
    assert times[2] == pytest.approx(sum(max(launch, kernel) for kernel in busy), rel=0.02), "the step's begin and end"
    assert times[9] <= times[2] <= times[1]
    assert times[9] == pytest.approx(max(len(busy) * launch, sum(busy)), rel=0.06)


def test_kept_gradients_are_added_to_from_the_first_microbatch_on():
    """A kernel a tensor and microbatch, and one that zeroes them all; tensors that become the buffer spare a first."""
    counts = {}
    for keeps in (False, True):
        program = build(of(accumulation=3, stack={"keeps_grads": keeps, "fused_accumulate": False})).programs[0]
        names = Counter(op.name for action in program.actions for op in program.blocks[action.block].ops)
        counts[keeps] = names["gradient.accumulate"], names["optimizer.zero_grad"]
    (once, no), (always, zeroed) = counts[False], counts[True]
    assert once * 3 == always * 2 > 0
    assert (no, zeroed) == (0, 1)


@pytest.mark.parametrize(("micro", "tp", "fused"), [(1, 1, True), (1, 2, False), (2, 2, True), (3, 2, False)])
def test_a_fused_softmax_refuses_heads_that_its_blocks_do_not_divide(micro, tp, fused):
    """Four heads over tp, times sequences. Else to fp32, scale, fill, softmax, back: 16-bit scores are read and written
    once, fp32 ones four times each, and both the fp32 softmax and the 16-bit one are kept."""
    math = {"attention": "math", "fused_softmax": True, "softmax_heads": 4}
    scenario = of(tp=tp, stack=math)
    shape = Shape(
        model=scenario.model, micro=micro, sequence=256, stack=scenario.stack, precision=scenario.precision,
        layout=scenario.layout,
    )  # fmt: skip
    passes = [k for k in math_core(shape) if k.kind != "gemm" and "dropout" not in k.name]
    if fused:
        assert [k.name for k in passes] == ["attention.scale_mask_softmax"]
        return
    scores, mask = micro * 4 // tp * 256 * 256, 256 * 256
    assert len(passes) == 5
    assert sum(k.bytes_read + k.bytes_written for k in passes) == scores * (2 * 2 + 8 * 4) + mask
    whole = Shape(
        model=scenario.model, micro=4, sequence=256, stack=scenario.stack, precision=scenario.precision,
        layout=scenario.layout,
    )  # fmt: skip
    per = [layer_stash(s)["activations.attention"] / s.micro for s in (shape, whole)]
    both = 2 * (2 if scenario.model.dropout else 1)
    assert per[0] - per[1] == 4 // tp * 256 * 256 * (4 + 2 - both)


@pytest.mark.parametrize(("dp", "zero", "copies"), [(1, 0, 0), (4, 0, 2), (4, 1, 2), (4, 2, 0)])
def test_a_reducer_holds_its_buckets(dp, zero, copies):
    held = dict(build(of(dp=dp, zero=zero, stack={"reducer_buckets": True})).programs[0].resident_gpu)
    assert held.get("gradients.buckets", 0.0) == pytest.approx(copies * held["parameters"] / 2)


def placeholders(scenario):
    (program,) = build(scenario).programs
    return dict(program.resident_gpu).get("gradients.placeholders", 0.0)


HOLDS = {"weight_placeholders": True, "fused_accumulate": True}


@pytest.mark.parametrize("tp", [1, 4])
def test_a_placeholder_stays_for_each_shape_of_weight(tp):
    """QKV, out, up, down once for all layers, in the type of the weights; none where products add nothing."""
    scenario = of(tp=tp, stack=HOLDS)
    model, h = scenario.model, 256
    weights = 3 * h * h + h * h + 2 * h * 1024 + (h * 1024 if model.gated_mlp else 0)
    assert placeholders(scenario) == weights / tp * 2
    assert placeholders(of(tp=tp, stack={**HOLDS, "fused_accumulate": False})) == 0.0
    assert placeholders(of(dp=4, zero=2, stack=HOLDS)) == 0.0, "gradients are tensors of their own"
    longer = replace(scenario, model=replace(model, layers=8))
    assert placeholders(longer) == placeholders(scenario)


def test_all_experts_share_the_placeholder_of_one():
    scenario = of(stack=HOLDS)
    sizes = {
        experts: placeholders(replace(scenario, model=replace(scenario.model, experts=experts, top_k=2, moe_ffn=512)))
        for experts in (4, 16)
    }
    up = 2 if scenario.model.gated_mlp else 1
    assert sizes[4] == sizes[16] == 2 * (4 * 256 * 256 + (up + 1) * 256 * 512)


def test_the_output_matrix_has_a_placeholder_while_it_is_differentiated():
    """With a large vocabulary the step's peak is there, higher by a 16-bit table."""
    scenario = of(tp=4)
    scenario = replace(scenario, model=replace(scenario.model, vocab=2**17))
    peaks = []
    for on in (False, True):
        stack = replace(scenario.stack, fused_accumulate=True, weight_placeholders=on, fused_cross_entropy=True)
        stack = replace(stack, library_loss=False)
        held = replace(scenario, stack=stack)
        (use,) = [one for one in simulate(held).result.memory if one.where == "gpu"]
        peaks.append(use.peak - use.at_peak.get("gradients.placeholders", 0.0))
    assert peaks[1] - peaks[0] == pytest.approx(2**17 * 256 / 4 * 2, rel=0.02)


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
