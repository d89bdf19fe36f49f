"""Against published logs. Tolerances are the project's own targets, stated beside the source; not what the code prints.

Source of all three: screenshots of training logs in DeepSpeed's tutorials "ZeRO-Offload" and "Zero Redundancy
Optimizer" (2020), as quoted in the project's issue: step 25.7-26.8 s (forward 6.1-6.4, backward 11.8-12.6, optimizer
7.6-8.0); GPT-2 1.5B on 8 V100, ZeRO-1, 0.62-0.69 s; GPT-2 10B on 32 V100, ZeRO-2, 4.56-4.64 s.
"""

import pytest

from sim.api import run
from sim.workload.model import params

pytestmark = pytest.mark.validation


def _middle(low, high):
    return (low + high) / 2


@pytest.fixture(scope="module")
def offload():
    return run("zero-offload-10b-v100").result


def test_zero_offload_step_within_ten_per_cent(offload):
    assert offload.step_time == pytest.approx(_middle(25.7, 26.8), rel=0.10)


@pytest.mark.parametrize(
    ("phase", "low", "high"), [("forward", 6.1, 6.4), ("backward", 11.8, 12.6), ("optimizer", 7.6, 8.0)]
)
def test_zero_offload_phases_within_fifteen_per_cent(offload, phase, low, high):
    assert offload.phases[phase] == pytest.approx(_middle(low, high), rel=0.15)


def test_zero_offload_large_batch_is_near_forty_tflops():
    """ZeRO-Offload paper: about 40 TFLOP/s a GPU for 10B at batch 512, between useful and executed FLOPs here."""
    result = run("zero-offload-10b-v100-b512").result
    peak = 125.0
    assert result.mfu * peak < 40 < result.hfu * peak
    assert (result.mfu + result.hfu) / 2 * peak == pytest.approx(40, rel=0.10)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("gpt2-1.5b-8xv100-zero1", 0.62, 0.69), ("gpt2-10b-32xv100-zero2", 4.56, 4.64)]
)
def test_the_other_logs_with_the_same_number(name, low, high):
    assert run(name).result.step_time == pytest.approx(_middle(low, high), rel=0.20)


def test_without_zero_the_1_5b_model_does_not_fit():
    """The ZeRO tutorial shows the out-of-memory error that ZeRO-1 cures."""
    assert not run("gpt2-1.5b-8xv100-zero1", ["layout.zero=0"]).result.fits


def test_zero_3_with_cpu_optimizer_on_sixteen_h100_within_fifteen_per_cent():
    """DeepCompile's eager ZeRO-3 offload, Llama 3 70B: 21.7, 23.7 and 23.7 s at 512, 1024, 2048 tokens."""
    found = {s: run("llama3-70b-16xh100-offload", [f"batch.sequence={s}"]).result for s in (512, 1024, 2048)}
    for sequence, seconds in ((512, 21.7), (1024, 23.72), (2048, 23.7)):
        assert found[sequence].step_time == pytest.approx(seconds, rel=0.15)
        assert next(iter(found[sequence].bound_by)) == "cores"
    assert found[2048].step_time / found[512].step_time < 1.1


V100_OFFLOAD = "zero-offload-10b-v100"
ALL_ON_HOST = ["layout={dp: 1, zero: 3}", "offload.parameters=cpu"]


def _tflops(sets):
    return run(V100_OFFLOAD, sets).result.hfu * 125.0


@pytest.mark.parametrize("gpus", [1, 16, 128])
def test_zero_offload_stays_above_thirty_tflops_a_gpu(gpus):
    """ZeRO-Offload paper: 10B at batch 512, more than 30 TFLOP/s a GPU from 1 to 128 V100 (DGX-2)."""
    nodes = [f"cluster={{extends: dgx-2-x2, nodes: {gpus // 16}, source: DGX-2}}"] if gpus > 16 else []
    batch = ["batch.size=512", "batch.accumulation=null", f"batch.micro={8 if gpus < 128 else 4}"]
    assert run(V100_OFFLOAD, [f"layout.dp={gpus}", *nodes, *batch]).result.mfu * 125.0 > 30


@pytest.mark.parametrize(
    ("layers", "micro", "sets", "published"),
    [
        (50, 24, ALL_ON_HOST, 48.3), (64, 24, ALL_ON_HOST, 47.0), (98, 20, ALL_ON_HOST, 45.8),
        (200, 12, ALL_ON_HOST, 43.3), (50, 10, [], 29.6), (64, 4, [], 20.1),
    ],
)  # fmt: skip
def test_zero_3_offload_against_zero_2_offload_on_one_v100(layers, micro, sets, published):
    """DeepSpeed's ZeRO-3 Offload post, 10, 13, 20 and 40B with the parameters on the CPU, 10 and 13B without.

    It does not state batches: the largest that fits here, since that is what parameters on the CPU are for.
    """
    assert _tflops([f"model.layers={layers}", f"batch.micro={micro}", *sets]) == pytest.approx(published, rel=0.20)


def test_the_superchip_schedule_doubles_the_speed():
    """SuperOffload: faster Adam, casts on the GPU, speculative updates, retained buckets; 2.06 times together.

    Its ablation does not state the model; each of the four steps must gain, and all of them 2.06 within 20 %.
    """
    steps = [[], ["stack.cpu_adam_fraction=0.76"], ["offload.casts=gpu"]]
    steps += [["offload.update=speculative", "layout.grad_bucket=64 MB"], ["offload.ratio=0.8"]]
    so_far = [[one for step in steps[: i + 1] for one in step] for i in range(len(steps))]
    seconds = [run("zero-offload-10b-gh200", sets).result.step_time for sets in so_far]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] / seconds[-1] == pytest.approx(2.06, rel=0.20)


@pytest.mark.parametrize(
    ("fraction", "table"), [(0.6, (0.098, 0.198, 0.393, 0.769)), (0.76, (0.082, 0.16, 0.316, 0.608))]
)
def test_cpu_adam_on_grace_within_ten_per_cent(fraction, table):
    """Seconds of 1, 2, 4 and 8 billion parameters: CPU-Adam of DeepSpeed and GraceAdam (SuperOffload post)."""
    for billions, published in zip((1, 2, 4, 8), table, strict=True):
        sets = [f"stack.cpu_adam_fraction={fraction}", "stack.copy_back=after", f"model.layers={5 * billions}"]
        step = run("zero-offload-10b-gh200", sets)
        (adam,) = [op for op in step.timeline.ops if op.kind == "adam"]
        parameters = params(step.scenario.model)
        assert adam.duration / parameters == pytest.approx(published / (billions * 1e9), rel=0.10)


def test_cpu_adam_on_a_dgx_2_with_all_of_its_cores():
    """ZeRO-Offload paper, CPU-Adam on a DGX-2 (recalled): 0.22, 0.51, 1.03, 2.41 and 2.57 s for 1, 2, 4, 8 and 10B.

    One process on both sockets, at the stack's 0.6 of STREAM; the 8B point lies a fifth above the line of the others.
    """
    found = []
    for billions, published in zip((1, 2, 4, 8, 10), (0.22, 0.51, 1.03, 2.41, 2.57), strict=True):
        sets = ["cluster.host.binding=spread", f"model.layers={5 * billions}"]
        step = run(V100_OFFLOAD, sets)
        (adam,) = [op for op in step.timeline.ops if op.kind == "adam"]
        found.append(adam.duration / params(step.scenario.model) * billions * 1e9 / published - 1)
    assert sorted(abs(e) for e in found)[2] < 0.10
    assert sum(abs(e) for e in found) / len(found) < 0.12
    assert max(abs(e) for e in found) < 0.23
