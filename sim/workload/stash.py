"""Bytes of activations: what forward keeps for backward, and what is alive only for a moment.

Owns sizes by owner, consistent with ``kernels``: a tensor is kept if a backward kernel reads it, once, by whoever
saved it first. Must not know when anything is freed (the program says so), nor weights, gradients or states.

For a 16-bit GPT layer with dropout and a fused softmax the sum is Korthikanti et al. 2022, equation 1:
``s b h (34 + 5 a s / h)``. As they do, it leaves out what is O(tokens): the norms' row statistics. The flash kernel's
row sums are counted. Not counted: dropout generator states, what an allocator rounds up, and narrow copies of weights.

Inputs of linear layers are kept narrow where the recipe casts both directions in forward (``saved_input``); a tensor
that something else reads as well (the context under flash attention, the router's input) is then kept in both forms.
"""

from __future__ import annotations

from sim.workload.context import context_workspace
from sim.workload.kernels_again import again_by_products
from sim.workload.kernels_edges import loss_bytes
from sim.workload.kernels_latent import latent_widths
from sim.workload.kernels_linear import saved_input
from sim.workload.kernels_mlp import clamped, scripted_gelu
from sim.workload.kernels_moe import expert_shape, sent_rows, shared_shape
from sim.workload.kernels_norm import eager_rmsnorm
from sim.workload.kernels_shape import FP32, INDEX_BYTES, MASK_BYTES, Shape
from sim.workload.model import is_moe


def layer_stash(shape: Shape, layer: int = 0, *, selective: bool = False) -> dict[str, float]:
    """Bytes that one layer's forward keeps on this rank, by owner: attention, MLP, norms, dropout masks.

    ``selective``: without what the core of attention keeps, 5 a s^2 b bytes over the tensor-parallel ranks; or, where
    the stack says so, only what ``kernels_again`` does not make again: the layer's input, queries, values, context and
    its row sums, every second product.
    """
    if selective and again_by_products(shape, layer):
        between = shape.between
        rows = shape.head_batch * shape.local_sequence * FP32
        return {
            "activations.attention": shape.act(shape.q_width + shape.value_width + shape.context_width) + rows,
            "activations.mlp": shape.act(shape.ffn) + between.act(shape.hidden) * (2 if shape.tp > 1 else 1),
            "activations.norm": _norm(between),
            "activations.masks": _masks(shape, selective=False),
        }
    return {
        "activations.attention": _attention(shape, selective),
        "activations.mlp": _moe(shape) if is_moe(shape.model, layer) else _mlp(shape),
        "activations.norm": 2 * _norm(shape.between),
        "activations.masks": _masks(shape, selective),
    }


def module_stash(shape: Shape, module: str, layer: int = 0) -> dict[str, float]:
    """Bytes that a layer's forward does not keep, by owner, where ``module`` runs again (``kernels_again.MODULES``)."""
    experts, here = is_moe(shape.model, layer), shape.between
    attention = mlp = 0.0
    if module == "core_attn":
        attention = _core(shape)
    elif module == "mla_up_proj":
        attention = _heads(shape)
    elif module == "layernorm":
        attention = saved_input(here, shape.hidden)
        mlp = here.act(shape.hidden) if experts else attention
    elif module == "mlp" and not experts:
        mlp = _inner(shape)
    elif module == "moe_act" and experts:
        one = expert_shape(shape)
        mlp = _inner(one) - one.act(one.up_width)
    elif module == "moe" and experts:
        mlp = _moe(shape) - here.act(shape.hidden)
    elif module == "shared_experts" and experts:
        mlp = _inner(shared_shape(shape))
    return {"activations.attention": attention, "activations.mlp": mlp}


def _core(shape: Shape) -> float:
    """What attention's core keeps beside queries, keys, values and the context: row sums, or its s x s matrices."""
    if shape.flash:
        return float(shape.head_batch * shape.local_sequence * FP32)
    if shape.softmax == "wide":  # the fp32 softmax, and what the next product reads
        return float(shape.scores * (max(FP32, shape.elem) + shape.elem))
    return float(shape.scores * shape.elem * (2 if shape.dropout else 1))


def _heads(shape: Shape) -> float:
    """Queries, keys and values; batched products read one k and v a query head."""
    keys, values = shape.kv_width, shape.value_width
    if not shape.flash:
        keys, values = shape.q_width, shape.context_width
    return shape.act(shape.q_width + keys + values)


def _attention(shape: Shape, selective: bool) -> float:
    """Input of the QKV product, q, k, v, the softmax (and its dropped-out copy) or row sums, the context.

    With sequence parallelism a rank keeps its part of the region's input, and gathers it again in backward.
    """
    kept = _projections(shape) + _heads(shape) + saved_input(shape, shape.context_width)
    if shape.flash:
        both = shape.act(shape.context_width) if _narrow(shape) else 0.0
        return kept + both + _core(shape)
    return kept if selective else kept + _core(shape)


def _narrow(shape: Shape) -> bool:
    """Whether linear layers keep a copy of their input that only they can read."""
    return shape.recipe is not None and shape.recipe.keeps


def _projections(shape: Shape) -> float:
    """Inputs of whatever makes q, k and v: of the products, and of norms between them (latents, heads)."""
    between, model = shape.between, shape.model
    kept = saved_input(between, shape.hidden)
    if model.qk_norm:
        kept += _norm_input(shape, shape.q_width) + _norm_input(shape, shape.kv_width)
    if shape.latent:
        kv = latent_widths(shape)[1]
        kept += _norm_input(between, model.kv_lora_rank) + between.act(kv - model.kv_lora_rank)
        kept += saved_input(between, model.kv_lora_rank)
        if model.q_lora_rank:
            kept += _norm_input(between, model.q_lora_rank) + saved_input(between, model.q_lora_rank)
    return kept


def _moe(shape: Shape) -> float:
    """Input of the router, scores, dispatched rows with what experts keep of them, rows that came back, shared experts.

    The rows that came back are kept for the gradient of their scores.
    """
    here, one = shape.between, expert_shape(shape)
    kept = here.act(shape.hidden) + here.tokens * shape.model.experts * FP32
    kept += saved_input(one, shape.hidden) + _inner(one) + sent_rows(shape) * shape.hidden * shape.elem
    if shape.model.shared_experts:
        narrow = saved_input(here, shape.hidden) if _narrow(shape) else 0.0
        kept += narrow + _inner(shared_shape(shape))
    return kept


def _mlp(shape: Shape) -> float:
    """Input of the first product, input of the activation, input of the second product.

    ReLU's backward reads its output, which is kept anyway (unless the second product keeps it narrow). The unfused
    forms keep one more: SwiGLU the activated gate, scripted GELU its tanh (2 x 4h bytes a token that the 34 s b h do
    not have). Limits of the activation's inputs, in passes of their own, keep what they limit.
    """
    return saved_input(shape.between, shape.hidden) + _inner(shape)


def _inner(shape: Shape) -> float:
    """What the MLP keeps behind its first product."""
    model = shape.model
    kept = saved_input(shape, shape.ffn)
    if model.activation != "relu" or model.gated_mlp:
        kept += shape.act(shape.up_width)
    elif _narrow(shape):
        kept += shape.act(shape.ffn)
    if clamped(shape):
        kept += shape.act(shape.up_width)
    if scripted_gelu(shape) or (model.gated_mlp and not shape.stack.fused_bias_activation):
        kept += shape.act(shape.ffn)
    return kept


def _norm(shape: Shape) -> float:
    return _norm_input(shape, shape.hidden)


def _norm_input(shape: Shape, width: int) -> float:
    """Input of a norm; the eager RMSNorm keeps it in fp32, and the normalised rows before the weight."""
    one = shape.act(width)
    return shape.tokens * width * FP32 + one if eager_rmsnorm(shape) else one


def _masks(shape: Shape, selective: bool) -> float:
    """Bytes of dropout masks: two of hidden width, and one of the s x s matrices unless attention is one kernel."""
    if not shape.dropout:
        return 0.0
    scores = 0 if shape.flash or selective else shape.scores
    return float((2 * shape.between.tokens * shape.hidden + scores) * MASK_BYTES)


def layer_input(shape: Shape) -> float:
    """Bytes of a layer's input: all that full recompute keeps of the layer."""
    return shape.between.act(shape.hidden)


def layer_workspace(shape: Shape, layer: int = 0) -> float:
    """Largest bytes alive for a moment in a layer's backward, beyond what forward kept and beside weight gradients.

    The gradient of the residual stream is alive throughout. Beside it, the largest of: the gradients before and after
    the activation; before and after the softmax (math); dq, dk, dv and their concatenation, with FlashAttention-2's and
    -3's fp32 accumulator of dq (flash). Recomputing forward needs no more: two s x s matrices at a time. Beside an
    expert's activation are the gradients of its rows on both sides of an exchange.
    """
    mlp = shape.act(shape.ffn + shape.up_width)
    if is_moe(shape.model, layer):
        one = expert_shape(shape)
        mlp = one.act(max(one.ffn + one.up_width, 2 * shape.hidden))
    if shape.flash:
        attention = 2 * shape.act(shape.q_width + shape.kv_width + shape.value_width)
        attention += shape.tokens * shape.q_width * FP32 + context_workspace(shape)
    else:
        attention = 2.0 * shape.scores * (FP32 if shape.softmax == "wide" else shape.elem)
    return shape.act(shape.hidden) + max(mlp, attention)


def embedding_stash(shape: Shape) -> dict[str, float]:
    """Bytes that the token lookup keeps: ids, the embedding norm's input, the dropout mask."""
    mask = shape.between.tokens * shape.hidden * MASK_BYTES if shape.dropout else 0
    return {
        "activations.embedding": float(shape.tokens * INDEX_BYTES),
        "activations.norm": _norm(shape.between) if shape.model.embedding_norm else 0.0,
        "activations.masks": float(mask),
    }


def join_stash(shape: Shape) -> dict[str, float]:
    """Bytes kept before the layer of a module that predicts one token more: inputs of two norms and the projection."""
    between = shape.between
    return {
        "activations.embedding": float(shape.tokens * INDEX_BYTES),
        "activations.norm": 2 * _norm(between),
        "activations.mlp": saved_input(between, 2 * shape.hidden),
    }


def head_stash(shape: Shape) -> dict[str, float]:
    """Bytes kept from the head's forward to its backward.

    ``activations.logits`` is the softmax (fp32 where logits are) in the unfused loss, the logits themselves in the
    fused one. ``activations.head`` is the input of the logits product and, with an MLM head, what its transform keeps.
    """
    one = shape.between.act(shape.hidden)
    logits, wide = loss_bytes(shape)
    norms = (0 if shape.model.post_norm else 1) + (1 if shape.model.mlm_head else 0)
    pooled = 2 * shape.micro * shape.hidden * shape.elem if shape.model.pooler else 0
    return {
        "activations.logits": logits if shape.stack.fused_cross_entropy else wide,
        "activations.head": (3 * one if shape.model.mlm_head else one) + pooled,
        "activations.norm": norms * _norm(shape.between),
    }


def head_backward_workspace(shape: Shape) -> float:
    """PyTorch's own loss: the gradients of the log-softmax and of its input at once, the latter then narrowed.

    Compiled: the gradient, which does not take the logits' place. With placeholders: that of the output matrix.
    """
    copies = 1 if shape.stack.fused_cross_entropy else 2
    loss = copies * loss_bytes(shape)[1] if shape.stack.library_loss else 0.0
    return max(loss, table_gradient(shape))


def table_gradient(shape: Shape) -> float:
    """Bytes of a gradient in the shape of the vocabulary's table (the embedding, the output matrix), made and dropped.

    A look-up's is dense and added to the buffer afterwards; an output matrix's is a placeholder. Counted where stacks
    have placeholders; where products do not add to the buffer, gradients in buckets or buffers are the larger part.
    """
    return float(shape.vocab * shape.hidden * shape.elem) if shape.placeholders else 0.0


def head_workspace(shape: Shape) -> float:
    """Largest bytes alive for a moment in the loss, beyond ``head_stash``.

    Unfused, when exp is taken: the logits, their fp32 version if there is one, and in code of 2020 the copy that the
    maximum was subtracted from; the softmax, later in the place of that copy, is in the stash. Fused: nothing, the
    gradient overwrites the logits.
    Metrics count nothing: they are taken of the logits alone, when backward has freed the rest.
    """
    if shape.stack.fused_cross_entropy:
        return 0.0
    logits, wide = loss_bytes(shape)
    copied = wide if shape.eager_layout and wide != logits else 0.0
    return logits + (wide if wide != logits else 0.0) + copied
