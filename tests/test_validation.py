"""Against published logs. Tolerances are the project's own targets, stated beside the source; not what the code prints.

Source of all three: screenshots of training logs in DeepSpeed's tutorials "ZeRO-Offload" and "Zero Redundancy
Optimizer" (2020), as quoted in the project's issue: step 25.7-26.8 s (forward 6.1-6.4, backward 11.8-12.6, optimizer
7.6-8.0); GPT-2 1.5B on 8 V100, ZeRO-1, 0.62-0.69 s; GPT-2 10B on 32 V100, ZeRO-2, 4.56-4.64 s.
"""

import pytest

from sim.api import run

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
