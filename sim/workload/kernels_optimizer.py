"""The kernels between backward and the next forward: gradient buffers, norm, clip, Adam.

All take a number of parameters (a shard's, if sharded), not a model. Must not know who holds them, nor the CPU's
Adam. A multi-tensor kernel counts as one launch; the unfused chain runs once for every tensor.
"""

from __future__ import annotations

from sim.spec.types import DTYPE_BYTES, PrecisionSpec, StackSpec
from sim.workload.kernels_shape import FP32, Kernels, memory_pass
from sim.workload.ops import Kernel
from sim.workload.recipes import RECIPES


def _optimizer_pass(name: str, read: float, written: float, fused: bool = False) -> Kernel:
    return memory_pass(name, read, written, fused=fused, kind="optimizer")


def state_bytes(precision: PrecisionSpec) -> int:
    """Bytes of each of Adam's tensors (parameter, m, v): fp32 with master weights, else the type of the weights."""
    return FP32 if precision.master else precision.param_bytes


def accumulate_grads(params: float, precision: PrecisionSpec, tensors: int = 1, *, first: bool = False) -> Kernels:
    """Add the gradients of ``params`` parameters into the gradient buffer, one kernel for each of ``tensors`` tensors.

    Nothing happens for the ``first`` microbatch if gradients are stored in the type they are computed in: the new
    tensor becomes the buffer. A wider buffer is added to from the first one on, as Megatron-LM's ``main_grad`` is.
    """
    new, stored = precision.param_bytes, DTYPE_BYTES[precision.grads]
    if not params or (first and new == stored):
        return ()
    one = params / tensors
    kernel = memory_pass(
        "gradient.accumulate", one * (new + stored), one * stored,
        fused=True, role="weight_grad", dtype=precision.grads,
    )  # fmt: skip
    return (kernel,) * tensors


def zero_grad(params: float, grad_bytes: int) -> Kernels:
    """Fill the gradient buffer with zeros. For stacks that keep the buffer; dropping the tensors launches nothing."""
    return (_optimizer_pass("optimizer.zero_grad", 0, params * grad_bytes, fused=True),)


def grad_norm(params: float, grad_bytes: int, tensors: int = 1) -> Kernels:
    """Sum of squares of all gradients, one read; it finds overflows as well. One kernel, or one for each tensor."""
    size = params * grad_bytes / tensors
    return (_optimizer_pass("optimizer.grad_norm", size, FP32, fused=True),) * tensors


def grad_clip(params: float, grad_bytes: int, tensors: int = 1) -> Kernels:
    """Multiply all gradients in place: loss scale undone and clipping, in one pass, or in one for each tensor."""
    size = params * grad_bytes / tensors
    return (_optimizer_pass("optimizer.grad_clip", size, size, fused=True),) * tensors


def copy_and_zero(params: float, precision: PrecisionSpec, tensors: int) -> Kernels:
    """Master weights into the 16-bit parameters and zeros into the gradients, a kernel each for every tensor."""
    one, grad = params / tensors, DTYPE_BYTES[precision.grads]
    zero = _optimizer_pass("optimizer.zero_grad", 0, one * grad, fused=True)
    if not (precision.master and precision.param_bytes < FP32):
        return (zero,) * tensors
    copy = _optimizer_pass("optimizer.param_copy", one * FP32, one * precision.param_bytes, fused=True)
    return (copy, zero) * tensors


def cast_weights(params: int, precision: PrecisionSpec, stack: StackSpec) -> Kernels:
    """Once a step: weights in the recipe's form, along both directions; their transposes alone if they arrive so."""
    recipe = RECIPES[precision.fp8]
    if not params:
        return ()
    if stack.narrow_param_gather and recipe.dtype == "fp8":
        return (_optimizer_pass("optimizer.transpose_weights", params * recipe.weight, params * recipe.weight, True),)
    read = float(params * precision.param_bytes)
    cast = _optimizer_pass("optimizer.cast_weights", read, 2 * params * recipe.weight, True)
    return (_optimizer_pass("optimizer.weights_amax", read, FP32, True), cast) if recipe.amax else (cast,)


def optimizer_step(params: float, precision: PrecisionSpec, stack: StackSpec, tensors: int = 1) -> Kernels:
    """Adam on ``params`` parameters in ``tensors`` tensors.

    Fused: one kernel reads parameter, m, v, gradient and writes parameter, m, v and, with master weights under 16-bit
    compute, the 16-bit copy: 4+4+4+g read and 4+4+4+2 written a parameter. Unfused: ``torch.optim.Adam``'s loop (m:
    decay, add; v: decay, add square; root, add epsilon, divide and add), after a cast of 16-bit gradients to fp32 and
    before a cast of the parameters back.
    """
    state, grad = state_bytes(precision), DTYPE_BYTES[precision.grads]
    copy = precision.param_bytes if precision.master and precision.param_bytes < FP32 else 0
    if stack.fused_optimizer:
        written = params * (3 * state + (0 if stack.tensorwise_step else copy))  # else copied by ``copy_and_zero``
        read = params * (3 * state + grad)
        return (_optimizer_pass("optimizer.adam", read, written, fused=True),)
    one = params / tensors
    chain = [
        ("m_decay", state, state), ("m_add", 2 * state, state), ("v_decay", state, state), ("v_add", 2 * state, state),
        ("root", state, state), ("epsilon", state, state), ("update", 3 * state, state),
    ]  # fmt: skip
    if grad != state:
        chain.insert(0, ("grad_cast", grad, state))
    if copy:
        chain.append(("param_cast", state, copy))
    passes = tuple(_optimizer_pass(f"optimizer.{name}", one * read, one * written) for name, read, written in chain)
    return passes * tensors
