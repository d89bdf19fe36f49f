"""A software stack as the simulator sees it; ``sim.spec.types`` hands it on.

Owns the words for what frameworks do differently. Must not know a device, a model or a layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DType = Literal["fp32", "tf32", "fp16", "bf16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StackSpec:
    """A named software stack: which kernels it launches, what it overlaps, what the host spends.

    ``launch_factor`` scales the host's launch time (1 eager, below it for compiled code or CUDA graphs);
    ``sustained`` maps a device name to the fraction of fitted GEMM speed that long runs of this stack keep
    (clocks, power), one documented number a device; ``cpu_adam_fraction`` is the share of STREAM bandwidth that
    its CPU Adam reaches at 28 bytes a parameter; ``copy_back`` says whether updated parameters return to the GPU
    after the CPU step, tile by tile within it, or by sub-groups that the host first casts in a pass of its own.

    ``fused_accumulate``: the product of a weight gradient adds to the gradient buffer as it writes (Megatron-LM's
    gradient_accumulation_fusion). ``weight_placeholders``: autograd then gets a tensor that nobody reads for each
    weight: of linear layers one a shape, kept for good, of the output matrix one a backward (Transformer Engine).
    ``p2p_waits``: the host waits for each message between stages (Megatron-LM synchronises after it).
    ``scatter_gather``: it goes in parts, one a tensor-parallel rank, unless the layout says. ``tensorwise_step``: norm,
    clipping, copies of master weights and zeroing take a kernel for each tensor. ``async_tp``: in backward the input
    gradient is exchanged beside the weight gradient's product, and a sequence-parallel input gathered again beside the
    input gradient's (Megatron-LM from the end of 2021). ``collective_check``: seconds of the host before each
    collective for each member, where the framework first sees that all call the same (TORCH_DISTRIBUTED_DEBUG=DETAIL).
    ``handover``: seconds that a collective among kernels takes beyond what it takes alone: from stream to stream by
    events and back, and members that come late. ``blocking_launches``: the host waits for each kernel
    (CUDA_LAUNCH_BLOCKING=1). ``launch_queue``: launched kernels, the running one among them, that it may be ahead by
    (the driver's queue holds 1024; what follows each kernel holds the host closer). ``keeps_grads``: gradients of the
    type they are computed in are zeroed once a step and added to from the first microbatch on. ``softmax_heads``: heads
    (times sequences) that a block of the fused softmax takes; a number that they do not divide runs as fp32 passes
    (Megatron-LM's ``is_kernel_available``). ``reducer_buckets``: DistributedDataParallel holds its buckets beside the
    gradients. ``flat_gather``: updated parameters are gathered through a flat copy. ``tp_buffers``: buffers of a whole
    region's input, kept for good.
    """

    name: str
    attention: Literal["math", "flash1", "flash2", "flash3"]
    fused_softmax: bool
    fused_bias_activation: bool
    fused_bias_dropout_add: bool
    fused_norm: bool
    fused_rope: bool
    fused_cross_entropy: bool
    fused_optimizer: bool
    fp32_logits: bool
    launch_factor: float
    overlap_grad_reduce: bool
    grad_bucket: float
    gather_bucket: float
    prefetch: int
    grads: Mapping[str, DType]  # compute dtype -> stored gradient dtype
    grad_comm: Mapping[str, DType]  # compute dtype -> dtype on the wire
    sustained: Mapping[str, float]
    cpu_adam_fraction: float
    copy_back: Literal["after", "tiled", "cast"]
    context: float  # bytes that the driver, the framework and the communication library keep on each GPU
    fragmentation: float  # allocator bytes reserved above those asked for, as a fraction of activations
    vectorised: bool = False  # element-wise passes move memory as fast as fused kernels (PyTorch since 1.5)
    fused_accumulate: bool = False
    weight_placeholders: bool = False
    p2p_waits: bool = False
    scatter_gather: bool = False
    keeps_grads: bool = False
    launch_queue: int = 1024
    softmax_heads: int = 1
    tensorwise_step: bool = False
    async_tp: bool = False
    collective_check: float = 0.0
    handover: float = 0.0
    blocking_launches: bool = False
    reducer_buckets: bool = False
    flat_gather: bool = False
    tp_buffers: int = 0
    workspace: float = 0.0  # bytes of library workspaces that the framework's own allocator holds
    selective: Literal["core", "products"] = "core"  # what selective recompute does again: see workload.kernels_again
    separate_products: bool = False  # queries, keys, values, gate and up are not merged into two products
    library_loss: bool = False  # the unfused loss is PyTorch's log_softmax and nll_loss
    metric_losses: int = 0  # cross entropies that the trainer takes of each microbatch's logits for its metrics
    context_parts: bool = False  # cp: gathers keys of every query head, a kernel a part, eager merges (PyTorch)
    second_dimension: bool = False  # sequence-parallel exchanges are along the second dimension: copies (PyTorch)
    fused_clamp: bool = False  # the activation's kernel limits its inputs itself
    fused_experts: bool = False  # narrow: experts' products do biases, activation, scores and casts between them
    fused_latent_rope: bool = False  # latent attention rotates and joins parts of heads in one kernel each way
    loss_gradient_ahead: bool = False  # the fused loss makes the gradient of the logits in forward
    fused_linear_bias: bool = False  # the product of a linear layer adds its bias (cuBLASLt's epilogue)
    scripted_gelu: bool = True  # unfused GELU is Megatron-LM's scripted tanh form, which keeps its tanh
    recompute_stops: bool = False  # full recompute leaves out what backward does not need (PyTorch since 2.1)
    zero3_copies: Literal["none", "flat", "per_parameter"] = "none"  # FSDP's and FSDP2's passes beside collectives
    sharded_master: bool = False  # zero 3: the shards are the fp32 master weights
    weight_casts: Literal["each", "once"] = "each"
    narrow_param_gather: bool = False
    narrow_tp_gather: bool = False
    source: str = ""
