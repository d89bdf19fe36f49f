"""The kernels before the first layer and after the last: token lookup, final norm, logits, loss.

The loss covers every position, for an encoder too (its masked positions are not picked out first). The unfused
cross entropy is the vocabulary-parallel one of Megatron-LM (``mpu/cross_entropy.py``): seven passes or so over tokens x
vocabulary; the fused one reads the logits once forward and turns them into their gradient backward. Not modelled: the
two-way next-sentence classifier behind BERT's pooler (2 H multiplications a sequence).
"""

from __future__ import annotations

from sim.workload.kernels_linear import linear_backward, linear_forward
from sim.workload.kernels_norm import norm_backward, norm_forward
from sim.workload.kernels_shape import (
    FP32,
    INDEX_BYTES,
    Items,
    Kernels,
    Shape,
    bias_add,
    bias_grad,
    dense_pass,
    dropout_backward,
    dropout_forward,
    gemm,
    grad_pass,
    memory_pass,
)
from sim.workload.ops import Collective, Kernel, Quality
from sim.workload.regions import lookup_backward, lookup_forward, loss_exchange, region_backward, region_forward


def _tables(shape: Shape) -> tuple[tuple[str, int], ...]:
    """Lookup tables and their rows."""
    model, out = shape.model, [("tokens", shape.vocab)]
    if model.positions == "learned":
        out.append(("positions", model.max_positions))
    if model.token_types:
        out.append(("token_types", model.token_types))
    return tuple(out)


def lookup_table(shape: Shape) -> Items:
    """Look up the tokens, and sum the rows of ranks that have parts of the vocabulary."""
    return (_looked_up(shape, "tokens"), *lookup_forward(shape))


def _looked_up(here: Shape, name: str) -> Kernel:
    one = here.act(here.hidden)
    read = one + here.tokens * INDEX_BYTES
    return memory_pass(f"embedding.{name}", read, one, kind="embedding", dtype=here.precision.compute)


def lookup_table_backward(shape: Shape) -> Items:
    """The table's gradient is zeroed whole, then rows are added to it."""
    return (*lookup_backward(shape), *_scattered(shape, "tokens", shape.vocab))


def _scattered(shape: Shape, name: str, rows: int) -> Kernels:
    one, dtype = shape.act(shape.hidden), shape.precision.compute
    table, read = float(rows * shape.hidden * shape.elem), one + shape.tokens * INDEX_BYTES
    return (
        memory_pass(f"embedding.{name}.zero", 0, table, role="weight_grad", dtype=dtype),
        memory_pass(f"embedding.{name}.scatter", read, one, kind="embedding", role="weight_grad", dtype=dtype),
    )


def embedding_forward(shape: Shape) -> Items:
    """Look up each table and add it to the sum, then norm and dropout where the model has them.

    The vocabulary is in parts over tensor-parallel ranks: their rows are summed as soon as they are looked up.
    """
    out: list[Kernel | Collective] = [*lookup_table(shape)]
    between = shape.between
    for name, _ in _tables(shape)[1:]:
        out.append(_looked_up(between, name))
        out.append(dense_pass(between, f"embedding.{name}.add", shape.hidden, (2, 1)))
    if shape.model.embedding_norm:
        out.extend(norm_forward(between, "embedding.norm"))
    if shape.dropout:
        out.append(dropout_forward(between, "embedding", between.tokens * shape.hidden))
    return tuple(out)


def embedding_backward(shape: Shape, again: int = 0) -> Items:
    """Dropout and norm back; each table's gradient is zeroed whole, then rows are added to it.

    A tied table has a second gradient, from the logits product, and so has one that is looked up ``again`` on this
    rank: autograd adds each in one more pass. What the trainer measures with the microbatch's logits follows.
    """
    out: list[Kernel | Collective] = []
    dtype, between = shape.precision.compute, shape.between
    if shape.dropout:
        out.append(dropout_backward(between, "embedding", between.tokens * shape.hidden))
    if shape.model.embedding_norm:
        out.extend(norm_backward(between, "embedding.norm"))
    out.extend(lookup_backward(shape))
    for name, rows in reversed(_tables(shape)):
        out.extend(_scattered(shape, name, rows))
    table = float(shape.vocab * shape.hidden * shape.elem)
    joined = memory_pass("embedding.tied_sum", 2 * table, table, role="weight_grad", dtype=dtype)
    out.extend([joined] * (shape.model.tied_embeddings + again))
    return (*out, *_metrics(shape))


def head_forward(shape: Shape) -> Items:
    """Final norm, pooler, MLM transform, logits product (and its bias), loss."""
    shape, out = shape.unquantised, list[Kernel]()
    h = shape.hidden
    before = () if shape.model.post_norm else norm_forward(shape.between, "head.norm")
    if shape.model.pooler:
        rows = float(shape.micro * h * shape.elem)
        out.append(gemm(shape, "head.pooler", (shape.micro, h, h)))
        out.append(memory_pass("head.pooler.tanh", rows, rows, dtype=shape.precision.compute))
    if shape.model.mlm_head:
        out.extend(linear_forward(shape, "head.transform", h, h))
        out.append(bias_add(shape, "head.transform", h))
        out.append(dense_pass(shape, "head.transform.gelu", h, (1, 1)))
        out.extend(norm_forward(shape, "head.transform_norm"))
    out.extend(linear_forward(shape, "head.logits", h, shape.vocab))
    if shape.model.mlm_head:
        out.append(bias_add(shape, "head.logits", shape.vocab))
    gathered = region_forward(shape, tuple(out))[: len(out) + 1] if shape.layout.sequence_parallel else tuple(out)
    return (*before, *gathered, *loss_forward(shape), *loss_exchange(shape))


def head_backward(shape: Shape) -> Items:
    """The loss's gradient, then the reverse of ``head_forward``."""
    shape = shape.unquantised
    h, out = shape.hidden, [*loss_backward(shape)]
    if shape.model.mlm_head:
        out.append(bias_grad(shape, "head.logits", shape.vocab))
    out.extend(linear_backward(shape, "head.logits", h, shape.vocab))
    if shape.model.mlm_head:
        out.extend(norm_backward(shape, "head.transform_norm"))
        out.append(grad_pass(shape, "head.transform.gelu_grad", h, (2, 1)))
        out.append(bias_grad(shape, "head.transform", h))
        out.extend(linear_backward(shape, "head.transform", h, h))
    if shape.model.pooler:
        rows = float(shape.micro * h * shape.elem)
        dtype = shape.precision.compute
        out.append(memory_pass("head.pooler.tanh_grad", 2 * rows, rows, role="input_grad", dtype=dtype))
        out.append(memory_pass("head.pooler.bias_grad", rows, h * shape.elem, role="weight_grad", dtype=dtype))
        out.append(gemm(shape, "head.pooler.input_grad", (shape.micro, h, h), role="input_grad"))
        out.append(gemm(shape, "head.pooler.weight_grad", (h, h, shape.micro), role="weight_grad"))
    after = () if shape.model.post_norm else norm_backward(shape.between, "head.norm")
    items = region_backward(shape, tuple(out))
    if shape.tp > 1 and shape.layout.sequence_parallel:
        items = items[1:]  # the loss's gradient is whole already
    return (*items, *after)


def loss_cast(shape: Shape) -> bool:
    """Whether the logits are copied to fp32 before the loss; the fused loss widens them in registers."""
    return shape.stack.fp32_logits and shape.elem < FP32 and not shape.stack.fused_cross_entropy


def loss_bytes(shape: Shape) -> tuple[float, float]:
    """Bytes of the logits as computed, and as the loss works on them."""
    count = float(shape.tokens * shape.vocab)
    return count * shape.elem, count * (FP32 if loss_cast(shape) else shape.elem)


def loss_forward(shape: Shape) -> Kernels:
    """Cross entropy: one pass if fused; else (cast,) maximum, subtract, target lookup, exp, sum, divide, log.

    Code of 2020 copies the logits first. PyTorch's own: (cast,) log-softmax, and a look-up too small to count.
    Transformer Engine's fused loss takes the sum of the softmax, then puts the gradient in the logits' place, which
    backward scales; each block goes along a row of the vocabulary.
    """
    logits, wide = loss_bytes(shape)
    row, dtype = float(shape.tokens * FP32), shape.precision.compute
    if shape.stack.library_loss and not shape.stack.fused_cross_entropy:
        cast = (memory_pass("loss.to_fp32", logits, wide, dtype=dtype),) if loss_cast(shape) else ()
        return (*cast, memory_pass("loss.log_softmax", wide, wide, dtype=dtype))
    if shape.stack.fused_cross_entropy and shape.stack.loss_gradient_ahead:
        names = (("loss.softmax_sum", logits, row), ("loss.cross_entropy", logits + row, logits))
        return tuple(memory_pass(name, r, w, quality="strided", dtype=dtype) for name, r, w in names)
    if shape.stack.fused_cross_entropy:
        return (memory_pass("loss.cross_entropy", logits, row, fused=True, dtype=dtype),)
    chain = [
        ("max", wide, row), ("subtract", wide + row, wide), ("target", row, row),
        ("exp", wide, wide), ("sum", wide, row), ("log", 2 * row, row), ("divide", wide + row, wide),
    ]  # fmt: skip
    if shape.eager_layout:
        chain.insert(0, ("copy", wide, wide))
    if loss_cast(shape):
        chain.insert(0, ("to_fp32", logits, wide))
    return tuple(memory_pass(f"loss.{name}", read, written, dtype=dtype) for name, read, written in chain)


def _metrics(shape: Shape) -> Kernels:
    """Cross entropies that the trainer takes of the same logits for its metrics: to fp32, logarithm of the softmax.

    It does so after backward, when the rest of a microbatch is freed, so that they need no memory at its peak.
    """
    logits, row = float(shape.tokens * shape.vocab), float(shape.tokens * FP32)
    wide, dtype = logits * FP32, shape.precision.compute
    chain = [("to_fp32", logits * shape.elem, wide), ("log_softmax", wide, wide), ("target", row, row)]
    passes = tuple(memory_pass(f"metric.{name}", read, written, dtype=dtype) for name, read, written in chain)
    return passes * shape.stack.metric_losses


def loss_backward(shape: Shape) -> Kernels:
    """The saved softmax minus one at the target, times the loss's gradient (, cast back); one pass if fused."""
    logits, wide = loss_bytes(shape)
    row, dtype = float(shape.tokens * FP32), shape.precision.compute
    if shape.stack.library_loss and not shape.stack.fused_cross_entropy:
        passes = [("likelihood_grad", 0.0, wide), ("log_softmax_grad", 2 * wide, wide)]
        passes += [("from_fp32", wide, logits)] if loss_cast(shape) else []
        return tuple(memory_pass(f"loss.{n}", r, w, role="input_grad", dtype=dtype) for n, r, w in passes)
    if shape.stack.fused_cross_entropy:
        quality: Quality = "strided" if shape.stack.loss_gradient_ahead else "fused"
        name = "loss.cross_entropy_grad"
        return (memory_pass(name, logits + row, logits, quality=quality, role="input_grad", dtype=dtype),)
    chain = [("target_grad", 2 * row, row), ("scale_grad", wide + row, wide)]
    if loss_cast(shape):
        chain.append(("from_fp32", wide, logits))
    return tuple(
        memory_pass(f"loss.{name}", read, written, role="input_grad", dtype=dtype) for name, read, written in chain
    )
