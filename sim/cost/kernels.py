"""How long one kernel takes on one device, alone.

Owns the formulas of design §4 for GEMM, fused attention and memory-bound kernels; the numbers in them are fits that
belong to the device (``DeviceSpec``) and, for ``sustained``, to a software stack on that device. Knows no rank and no
queue.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sim.errors import InfeasibleError
from sim.spec.types import OPERAND_BYTES, DeviceSpec, FlashFit
from sim.workload.ops import Kernel

TILE = 128
"""Queries, and keys, of a block of fused attention (FlashAttention-2 and -3: 64 to 128 by 64 to 176)."""


class KernelCost(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds alone, and what sets them: arithmetic (``sm``) or memory (``hbm``)."""

    duration: float
    bound_by: Literal["sm", "hbm"]


def kernel_cost(
    kernel: Kernel, device: DeviceSpec, attention: str, sustained: float, *, vectorised: bool = False
) -> KernelCost:
    """Time of ``kernel`` alone on ``device``.

    ``attention`` names the fused attention kernel of the software stack; ``sustained`` is the fraction of the fitted
    (short-burst) speed that a long run keeps, because clocks and power drop. It slows whatever keeps the SMs busy:
    GEMM, attention, and naive passes, which stay well below memory bandwidth; a fused pass is held by HBM, whose
    clock stays. ``vectorised``: the stack's naive passes are as fast as fused ones.

    Raises:
        InfeasibleError: an unaligned product on a device that gives no rate for it.
    """
    if kernel.kind == "gemm":
        return _gemm(kernel, device, sustained)
    if kernel.kind == "attention":
        return _flash(kernel, device, attention, sustained)
    fused = kernel.quality == "fused" or (vectorised and kernel.quality == "naive")
    slow = (kernel.quality == "rearranged" and device.rearrange_fraction) or device.naive_fraction
    fraction = device.fused_fraction if fused else slow * sustained
    moved = _moved(kernel) / (device.hbm_bandwidth * fraction)
    return KernelCost(duration=device.kernel_floor + moved, bound_by="hbm")


def _moved(kernel: Kernel) -> float:
    return kernel.bytes_read + kernel.bytes_written


def _gemm(kernel: Kernel, device: DeviceSpec, sustained: float) -> KernelCost:
    """``t0 + max(2mnk(1+am/m)(1+an/n)(1+ak/k) / (peak e), bytes / (hbm eb))``: fits of published GEMM timings.

    Rows (m) are the dimension that grows with the batch; a product in pieces has fewer in each. Products of many
    experts have fits of their own (``DeviceSpec.grouped``): with few rows an expert, each waits for its weights.
    A dimension that breaks the alignment of the tensor cores drops the product to ``unaligned_flops_per_s`` (SwiGLU
    alignment search, ml-engineering: x0.68 on H100; cuBLAS of CUDA 10 uses no tensor cores at all).
    """
    serial = kernel.grouped and kernel.dtype in device.grouped
    fits = device.grouped if serial else device.gemm
    fit = fits.get(f"{kernel.dtype}_{kernel.scaling}", fits[kernel.dtype])
    shape = (1 + fit.am * kernel.pieces / kernel.m) * (1 + fit.an / kernel.n) * (1 + fit.ak / kernel.k)
    rate = fit.peak * fit.e * sustained
    if fit.deep and kernel.k >= fit.deep:
        rate *= fit.deep_rate
    if not _aligned(kernel, device):
        rate = min(rate, _unaligned(kernel, device))
    compute = kernel.flops * shape / rate
    if kernel.role == "weight_grad":
        compute *= device.wgrad_factor
    memory = _moved(kernel) / (device.hbm_bandwidth * fit.eb)
    both = compute + memory if serial else max(compute, memory)
    return KernelCost(duration=fit.t0 + both, bound_by="sm" if compute >= memory else "hbm")


def _aligned(kernel: Kernel, device: DeviceSpec) -> bool:
    """Whether rows of all operands begin on tensor-core boundaries. fp32 runs on vector units: any shape will do.

    So it will for the rows of many experts, whose number is a mean and which are no operand's inner dimension.
    """
    if kernel.dtype == "fp32" or kernel.grouped:
        return True
    step = max(1, int(device.gemm_alignment / OPERAND_BYTES[kernel.dtype]))
    return kernel.n % step == 0 and kernel.k % step == 0 and kernel.m % step == 0


def _unaligned(kernel: Kernel, device: DeviceSpec) -> float:
    """The rate of products that break the alignment; some devices were never measured there."""
    if device.unaligned_flops_per_s <= 0.0:
        size = f"{kernel.m} x {kernel.n} x {kernel.k} in {kernel.dtype}"
        msg = (
            f'device "{device.name}": product {kernel.name} ({size}) breaks the alignment of {device.gemm_alignment} '
            "bytes and the device gives no rate for that; give unaligned_flops_per_s, or choose sizes that keep it"
        )
        raise InfeasibleError(msg)
    several = kernel.batch > 1 and not kernel.grouped
    return (several and device.unaligned_batched_flops_per_s) or device.unaligned_flops_per_s


def _flash(kernel: Kernel, device: DeviceSpec, attention: str, sustained: float) -> KernelCost:
    """``flops / (p_inf s / (s + s0)) (1 + tail / w)``: fits of published sweeps over sequence length and heads.

    A block of queries is the unit that SMs take (w of them each): its causal work differs by position, and the last
    ones run while other SMs idle. A sliding window is worked on in tiles of ``TILE`` keys, of which one more is touched
    than the window holds. Short windows leave the bytes as the bound.
    """
    fit = _fitting(device.flash[attention], kernel)
    blocks = max(1.0, kernel.batch * kernel.n / TILE) / device.sms  # at least one in all
    forward = kernel.role == "forward"
    ratio = 1.0 if forward else fit.backward or device.flash_backward_ratio
    seen = min(kernel.window, kernel.m) if kernel.window else kernel.m
    waste = (seen + TILE) / seen if kernel.window else 1.0
    tail = (fit.tail if forward else fit.backward_tail) * seen / kernel.m
    rate = fit.p_inf * ratio * sustained * kernel.m / (kernel.m + fit.s0) / (1 + tail / blocks)
    compute, memory = kernel.flops * waste / rate, _moved(kernel) / (device.hbm_bandwidth * device.fused_fraction)
    bound: Literal["sm", "hbm"] = "sm" if compute >= memory else "hbm"
    return KernelCost(duration=device.kernel_floor + max(compute, memory), bound_by=bound)


def _fitting(fits: tuple[FlashFit, ...], kernel: Kernel) -> FlashFit:
    """The fit of this mask with the smallest head dimension that holds the kernel's: kernels pad heads up."""
    return min(
        (fit for fit in fits if fit.causal == kernel.causal and fit.head_dim >= kernel.k), key=lambda fit: fit.head_dim
    )
