"""Kernel times against the roofline, published GEMM timings and the fits' own formulas."""

from dataclasses import replace

import pytest

from sim.cost.kernels import kernel_cost
from sim.spec.load import load
from sim.workload.ops import Kernel

V100 = load("zero-offload-10b-v100").scenario.cluster.device
A100 = load("quickstart").scenario.cluster.device


def gemm(m, n, k, dtype="fp16", role="forward"):
    bytes_ = 2.0
    return Kernel(
        name="g", kind="gemm", flops=2.0 * m * n * k, bytes_read=bytes_ * (m * k + k * n), bytes_written=bytes_ * m * n,
        m=m, n=n, k=k, dtype=dtype, role=role,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("m", "n", "k", "ms"),
    [(4096, 7000, 4096, 2.092), (4096, 7133, 4096, 2.199), (5124, 9124, 4096, 3.702), (2560, 7000, 2560, 0.884)],
)
def test_deepbench_on_v100(m, n, k, ms):
    """DeepBench, results/train/DeepBench_NV_V100.xlsx, fp16 in, mixed math: within 10 % (sizes rounded up to 8)."""
    aligned = gemm(-(-m // 8) * 8, -(-n // 8) * 8, k)
    assert kernel_cost(aligned, V100, "math", 1.0).duration == pytest.approx(ms * 1e-3, rel=0.10)


def test_roofline_knee():
    """A product with a short k is bound by its operands' bytes, a deep one by arithmetic; both as the formula says."""
    fit = A100.gemm["bf16"]
    thin, deep = gemm(8192, 8192, 16, "bf16"), gemm(8192, 8192, 8192, "bf16")
    low, high = kernel_cost(thin, A100, "flash2", 1.0), kernel_cost(deep, A100, "flash2", 1.0)
    assert (low.bound_by, high.bound_by) == ("hbm", "sm")
    assert low.duration == pytest.approx(
        fit.t0 + (thin.bytes_read + thin.bytes_written) / (A100.hbm_bandwidth * fit.eb)
    )
    loss = (1 + fit.am / 8192) * (1 + fit.an / 8192) * (1 + fit.ak / 8192)
    assert high.duration == pytest.approx(fit.t0 + deep.flops * loss / (fit.peak * fit.e))


def test_misaligned_dimensions_lose_the_tensor_cores():
    good, bad = gemm(1024, 1024, 104), gemm(1024, 1024, 100)
    assert kernel_cost(bad, V100, "math", 1.0).duration > 3 * kernel_cost(good, V100, "math", 1.0).duration


def test_weight_gradients_are_slower_where_measured():
    forward, weight = (
        kernel_cost(gemm(4096, 4096, 4096, "bf16", r), A100, "x", 1.0) for r in ("forward", "weight_grad")
    )
    fit = A100.gemm["bf16"]
    assert (weight.duration - fit.t0) / (forward.duration - fit.t0) == pytest.approx(A100.wgrad_factor)


def test_sustained_speed_slows_arithmetic_and_naive_passes_not_fused_ones():
    fused = Kernel(name="f", kind="elementwise", flops=0.0, bytes_read=1e9, bytes_written=1e9, quality="fused")
    naive = replace(fused, quality="naive")
    deep = gemm(8192, 8192, 8192)
    for kernel, factor in ((fused, 1.0), (naive, 2.0), (deep, 2.0)):
        fast, slow = (kernel_cost(kernel, V100, "math", s).duration for s in (1.0, 0.5))
        floor = V100.gemm["fp16"].t0 if kernel.kind == "gemm" else V100.kernel_floor
        assert (slow - floor) / (fast - floor) == pytest.approx(factor)


def test_flash_attention_at_a_published_point():
    """FlashAttention-2 on A100, head dim 128, causal, 16k tokens in all, s = 4096: 173 TFLOP/s forward + backward."""
    s, heads, sequences = 4096, 16, 4
    flops = 4 * s**2 * 128 * heads * sequences / 2
    one = Kernel(
        name="a", kind="attention", flops=flops, bytes_read=0.0, bytes_written=0.0, m=s, n=s, k=128,
        batch=heads * sequences, causal=True,
    )  # fmt: skip
    back = replace(one, flops=2.5 * flops, role="input_grad")
    seconds = sum(kernel_cost(k, A100, "flash2", 1.0).duration for k in (one, back))
    assert 3.5 * flops / seconds == pytest.approx(173e12, rel=0.05)


def test_a_head_between_two_fits_is_padded_up():
    one = Kernel(
        name="a", kind="attention", flops=1e12, bytes_read=0, bytes_written=0, m=4096, n=4096, k=96, causal=True
    )
    padded = replace(one, k=128)
    assert kernel_cost(one, A100, "flash2", 1.0) == kernel_cost(padded, A100, "flash2", 1.0)
