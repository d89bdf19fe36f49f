"""Models, stacks and precisions that the workload tests share, written out here so that no data file can move them."""

from __future__ import annotations

from dataclasses import replace

from sim.spec.types import ModelSpec, PrecisionSpec, StackSpec
from sim.workload.kernels import Shape


def gpt(layers: int, hidden: int, heads: int, *, vocab: int = 50257, positions: int = 1024, **more) -> ModelSpec:
    """GPT-2's and GPT-3's plan: LayerNorm, GELU, biases everywhere, learned positions, tied output."""
    plan = {
        "name": "gpt", "kind": "decoder", "layers": layers, "hidden": hidden, "heads": heads, "kv_heads": heads,
        "head_dim": hidden // heads, "ffn": 4 * hidden, "vocab": vocab, "max_positions": positions, "dropout": 0.1,
    }  # fmt: skip
    return ModelSpec(**(plan | more))


def llama(  # noqa: PLR0917
    layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab: int, **more
) -> ModelSpec:
    """Llama's plan: RMSNorm, SwiGLU, rotary positions, no bias, untied output."""
    plan = {
        "name": "llama", "kind": "decoder", "layers": layers, "hidden": hidden, "heads": heads, "kv_heads": kv_heads,
        "head_dim": hidden // heads, "ffn": ffn, "vocab": vocab, "gated_mlp": True, "activation": "silu",
        "norm": "rmsnorm", "positions": "rotary", "tied_embeddings": False, "qkv_bias": False, "out_bias": False,
        "mlp_bias": False,
    }  # fmt: skip
    return ModelSpec(**(plan | more))


def bert(layers: int, hidden: int, heads: int, **more) -> ModelSpec:
    """BERT's plan: post-norm, three tables under one norm, pooler."""
    plan = {
        "kind": "encoder", "vocab": 30522, "positions": 512, "post_norm": True, "token_types": 2,
        "embedding_norm": True, "pooler": True,
    }  # fmt: skip
    extra = plan | more
    return replace(gpt(layers, hidden, heads, vocab=extra.pop("vocab"), positions=extra.pop("positions")), **extra)


STACK_2020 = StackSpec(
    name="2020", attention="math", fused_softmax=False, fused_bias_activation=False, fused_bias_dropout_add=False,
    fused_norm=True, fused_rope=False, fused_cross_entropy=False, fused_optimizer=True, fp32_logits=True,
    launch_factor=1.0, overlap_grad_reduce=True, grad_bucket=1e9, gather_bucket=1e9, prefetch=1,
    grads={"fp16": "fp16"}, grad_comm={"fp16": "fp16"}, sustained={}, cpu_adam_fraction=0.5, copy_back="after",
    context=0.0, fragmentation=0.0,
)  # fmt: skip
STACK_2022 = replace(
    STACK_2020, name="2022", fused_softmax=True, fused_bias_activation=True, fused_bias_dropout_add=True
)
STACK_2024 = replace(STACK_2022, name="2024", attention="flash2", fused_rope=True, fused_cross_entropy=True)
STACK_2024 = replace(STACK_2024, fused_latent_rope=True)
STACK_EAGER = replace(STACK_2020, name="eager", fused_norm=False, fused_optimizer=False)
STACKS = (STACK_2020, STACK_2022, STACK_2024, STACK_EAGER)

FP16 = PrecisionSpec(compute="fp16", grads="fp16", grad_comm="fp16", master=True)
BF16 = PrecisionSpec(compute="bf16", grads="fp32", grad_comm="fp32", master=True)
FULL = PrecisionSpec(compute="fp32", grads="fp32", grad_comm="fp32", master=False)


def shape(model: ModelSpec, stack: StackSpec, *, micro: int = 2, sequence: int = 128, precision=FP16) -> Shape:
    return Shape(model=model, micro=micro, sequence=sequence, stack=stack, precision=precision)


TINY_GPT = gpt(2, 256, 4, vocab=1000)
TINY_LLAMA = llama(2, 256, 8, 2, 704, 1000)
TINY_BERT = bert(2, 256, 4, vocab=1000, mlm_head=True)


def moe(  # noqa: PLR0917
    layers: int, hidden: int, heads: int, kv_heads: int, experts: int, top_k: int, moe_ffn: int, vocab: int, **more
) -> ModelSpec:
    """Mixtral's plan: Llama's, with a router and experts in place of the MLP."""
    plan = {"name": "moe", "experts": experts, "top_k": top_k, "moe_ffn": moe_ffn} | more
    return llama(layers, hidden, heads, kv_heads, plan.pop("ffn", moe_ffn), vocab, **plan)


def deepseek(**more) -> ModelSpec:
    """DeepSeek-V2's and -V3's plan: latent attention, shared experts, dense layers first. Here in miniature."""
    plan = {
        "name": "deepseek", "shared_experts": 1, "first_dense_layers": 1, "ffn": 704, "attention": "mla",
        "q_lora_rank": 96, "kv_lora_rank": 64, "nope_head_dim": 32, "rope_head_dim": 16, "v_head_dim": 24,
    }  # fmt: skip
    extra = plan | more
    sizes = {"layers": 3, "hidden": 256, "heads": 8, "experts": 16, "top_k": 4, "moe_ffn": 128, "vocab": 1000}
    sizes = {key: extra.pop(key, size) for key, size in sizes.items()}
    return moe(kv_heads=sizes["heads"], **sizes, **extra)


TINY_MOE = moe(2, 256, 8, 2, 8, 2, 512, 1000)
TINY_DEEPSEEK = deepseek()
