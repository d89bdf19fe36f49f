"""The door: what each block of a resolved scenario document may hold, key by key.

Owns the names, types, units and one-value limits of keys, as Pydantic models that forbid unknown keys; their fields
are those of ``types`` (a test holds the two together). A key left out is ``None`` here where ``build`` derives it.
Rules that span keys are in ``checks``.
"""

from __future__ import annotations

from typing import Any, Literal

from sim.spec.block import Block
from sim.spec.block import defaults as _or
from sim.spec.block import listed as _listed
from sim.spec.block import says as _says
from sim.spec.network_blocks import CollectivesFile, FabricFile, NicFile, VariationFile
from sim.spec.placement import Placement
from sim.spec.quantities import (
    Alignment,
    Bytes,
    BytesOrZero,
    BytesPerS,
    BytesPerSOrZero,
    Count,
    CountOrZero,
    Elements,
    Factor,
    FlopsPerS,
    FlopsPerSOrZero,
    Fraction,
    FractionOrZero,
    Seconds,
    SecondsOrZero,
    Sustained,
    ZeroStage,
)
from sim.spec.types import DType, Fp8Recipe, RecomputeModule

Compute = Literal["fp16", "bf16", "fp32", "tf32"]
Stored = Literal["fp32", "fp16", "bf16"]


class ModelFile(Block):
    """A transformer's shape."""

    name: str = _says("name shown in results")
    kind: Literal["decoder", "encoder"] = _says("decoder: causal attention; encoder: full attention")
    layers: Count = _says("transformer blocks")
    hidden: Count = _says("hidden size H")
    heads: Count = _says("attention heads")
    kv_heads: Count | None = _or(None, "key and value heads; default: heads")
    head_dim: Count | None = _or(None, "width of a head; default: hidden / heads")
    ffn: Count | None = _or(None, "inner width of the MLP; default: 4 * hidden")
    vocab: Count = _says("rows of the embedding table, padding included")
    gated_mlp: bool = _or(False, "three MLP matrices (SwiGLU) instead of two")
    activation: Literal["gelu", "silu", "relu"] = _or("gelu", "activation of the MLP")
    norm: Literal["layernorm", "rmsnorm"] = _or("layernorm", "normalisation layer")
    post_norm: bool = _or(False, "BERT's order: norm after the residual")
    positions: Literal["learned", "rotary", "none"] = _or("learned", "how positions enter")
    max_positions: CountOrZero = _or(0, "rows of the learned position table; 0 without one")
    token_types: CountOrZero = _or(0, "rows of BERT's segment table")
    embedding_norm: bool = _or(False, "norm after the embeddings")
    tied_embeddings: bool = _or(True, "the output layer shares the embedding table")
    qkv_bias: bool = _or(True, "bias of the query, key and value layers")
    out_bias: bool = _or(True, "bias of the attention output layer")
    mlp_bias: bool = _or(True, "bias of the MLP layers")
    pooler: bool = _or(False, "BERT's H x H layer on the first token")
    mlm_head: bool = _or(False, "BERT's H x H transform, norm and vocabulary bias before the decoder")
    dropout: FractionOrZero = _or(0.0, "dropout probability")
    experts: CountOrZero = _or(0, "routed experts of a layer; 0: every layer is dense")
    top_k: CountOrZero = _or(0, "routed experts that each token visits")
    moe_ffn: CountOrZero = _or(0, "inner width of one expert")
    shared_experts: CountOrZero = _or(0, "experts that every token visits, each moe_ffn wide")
    first_dense_layers: CountOrZero = _or(0, "dense layers before the first with experts")
    router_bias: bool = _or(False, "one number an expert that balances their load")
    top_k_nodes: CountOrZero = _or(0, "a token's experts are on at most so many nodes; 0: on any")
    attention: Literal["mha", "mla"] = _or("mha", "multi-head (grouped or not), or DeepSeek's latent attention")
    q_lora_rank: CountOrZero = _or(0, "mla: rank of the queries; 0: projected directly")
    kv_lora_rank: CountOrZero = _or(0, "mla: rank of keys and values")
    nope_head_dim: CountOrZero = _or(0, "mla: unrotated width of a head")
    rope_head_dim: CountOrZero = _or(0, "mla: rotated width of a head")
    v_head_dim: CountOrZero = _or(0, "mla: width of a head's values")
    qk_norm: bool = _or(False, "a norm over each head of queries and keys")
    sliding_window: CountOrZero = _or(0, "keys that a token sees, itself among them; 0: all before it")
    full_every: CountOrZero = _or(0, "every so many-th layer sees all keys in spite of the window; 0: none does")
    mtp_layers: CountOrZero = _or(0, "modules of a layer each that predict one token more (MTP)")
    activation_clamp: bool = _or(False, "a gated MLP limits both inputs of its activation")
    attention_sinks: bool = _or(False, "one learned logit a head in the softmax")
    source: str = _or("", "where the shape is published")


class GemmFile(Block):
    """Fitted GEMM speed: t = t0 + max(2mnk(1+am/m)(1+an/n)(1+ak/k) / (peak*e), bytes / (hbm*eb))."""

    peak: FlopsPerS = _says("dense peak")
    e: Fraction = _says("fraction of peak reached by large shapes")
    am: Elements = _says("elements of m at which half is lost")
    an: Elements = _says("elements of n at which half is lost")
    ak: Elements = _says("elements of k at which half is lost")
    t0: SecondsOrZero = _says("fixed time of a kernel")
    eb: Fraction = _says("fraction of hbm_bandwidth reached")
    deep: Elements = _or(0.0, "elements of k from which the rate drops; 0: it does not")
    deep_rate: Fraction = _or(1.0, "what it drops to")


class GemmTable(Block):
    """One fit for each dtype that the device computes in."""

    fp16: GemmFile | None = _or(None, "IEEE half precision")
    bf16: GemmFile | None = _or(None, "bfloat16")
    fp32: GemmFile | None = _or(None, "single precision")
    tf32: GemmFile | None = _or(None, "single precision stored, 19 bits in tensor cores")
    fp8_rows: GemmFile | None = _or(None, "fp8 with a scale a row (precision.fp8: rowwise); default: as fp8")
    fp8: GemmFile | None = _or(None, "8-bit operands, 16-bit result (precision.fp8)")
    fp4: GemmFile | None = _or(None, "4-bit operands, 16-bit result (precision.fp8: nvfp4)")


class FlashFile(Block):
    """Fused attention: rate = p_inf * s / (s + s0) / (1 + tail / w), s sequence length, w query blocks an SM has."""

    head_dim: Count = _says("width of a head")
    causal: bool = _says("causal mask")
    p_inf: FlopsPerS = _says("rate of long sequences")
    s0: Elements = _says("sequence length at half that rate")
    tail: Elements = _or(0.0, "blocks of 128 queries whose time passes at the end with SMs idle")
    backward: Factor | None = _or(None, "backward rate over p_inf; default: the device's flash_backward_ratio")
    backward_tail: Elements = _or(0.0, "tail of the backward kernel")


class FlashTable(Block):
    """Fits of each fused attention kernel that the device runs."""

    flash1: list[FlashFile] = _or([], "FlashAttention of 2022, and its Triton version")
    flash2: list[FlashFile] = _or([], "FlashAttention-2")
    flash3: list[FlashFile] = _or([], "FlashAttention-3")


class DeviceFile(Block):
    """One GPU: capacities and fitted kernel rates."""

    name: str = _says("name that stacks refer to in sustained")
    memory: Bytes = _says("device memory")
    hbm_bandwidth: BytesPerS = _says("peak memory bandwidth")
    sms: Count = _says("streaming multiprocessors")
    gemm: GemmTable = _says("fitted GEMM speeds by dtype")
    grouped: GemmTable = _or(GemmTable(), "fitted speeds of products of many experts in one launch, by dtype")
    flash: FlashTable = _or(FlashTable(), "fitted fused attention by kernel")
    flash_backward_ratio: Factor = _or(0.8, "rate of the backward attention kernel over the forward one")
    gemm_alignment: Alignment = _or(16.0, "bytes that a GEMM dimension must be a multiple of for full speed")
    unaligned_flops_per_s: FlopsPerSOrZero = _or(0.0, "rate of a 16-bit GEMM that breaks the alignment")
    unaligned_batched_flops_per_s: FlopsPerSOrZero = _or(0.0, "of many such products in one launch; 0: the same")
    wgrad_factor: Factor = _or(1.0, "time of a weight-gradient GEMM over the same forward GEMM")
    fused_fraction: Fraction = _or(0.8, "share of hbm_bandwidth that fused memory-bound kernels sustain")
    naive_fraction: Fraction = _or(0.45, "share of hbm_bandwidth that element-wise passes sustain")
    rearrange_fraction: FractionOrZero = _or(
        0.0, "share of hbm_bandwidth of kernels that only put rows or slices elsewhere; 0: as naive_fraction"
    )
    kernel_floor: SecondsOrZero = _or(2e-6, "shortest kernel")


class HostFile(Block):
    """The CPU side of a node."""

    name: str = _says("processor")
    sockets: Count = _says("CPU sockets (NUMA nodes that GPUs hang from)")
    cores_per_socket: Count = _says("cores of a socket")
    dram: Bytes = _says("memory of the node")
    dram_bandwidth: BytesPerS = _says("memory bandwidth of ONE socket, as STREAM measures it")
    core_bandwidth: BytesPerS = _says("memory bandwidth of ONE core alone")
    socket_link: BytesPerSOrZero = _says("one direction between two sockets; 0 B/s with one socket")
    launch: Seconds = _says("host time of one kernel launch in eager code")
    binding: Literal["local", "remote", "spread"] = _or(
        "local", "where a process works: on the socket of its GPU, on the next one, or on all of them"
    )
    boards: Count = _or(1, "trays that sockets are spread over; only those of one tray are linked")


class HostLinkFile(Block):
    """The link between a GPU and its host; rates of pinned memory, as measured."""

    kind: Literal["pcie", "c2c"] = _says("PCIe, or chip to chip")
    h2d: BytesPerS = _says("host to device")
    d2h: BytesPerS = _says("device to host")
    duplex: BytesPerS = _says("both directions together")
    pageable: BytesPerS = _says("from or to memory that is not pinned")
    latency: SecondsOrZero = _says("fixed time of a copy")
    gpus_per_uplink: Count = _or(1, "GPUs that share one switch uplink")
    uplink: BytesPerSOrZero = _or(0.0, "one direction of that uplink; 0 B/s: no switch")


class NvlinkFile(Block):
    """GPU to GPU inside a node, per GPU and direction."""

    kind: Literal["switch", "mesh", "full"] = _says(
        "switch: any pair at full rate; mesh: point-to-point links; full: each pair has a link of its own"
    )
    bandwidth: BytesPerS = _says("one direction of one GPU")
    efficiency: Fraction = _says("what collectives sustain of it")
    base_latency: SecondsOrZero = _says("start of a collective")
    step_latency: SecondsOrZero = _says("one hop of a collective, Simple protocol")
    in_switch: FractionOrZero = _or(0.0, "part of the sustained rate that in-switch reduction (NVLS) keeps; 0: none")
    in_switch_latency: SecondsOrZero = _or(0.0, "the two passes of an in-switch reduction")
    in_switch_fill: SecondsOrZero = _or(0.0, "cost of a chunk in the pipeline of an in-switch reduction")
    all_to_all: Fraction = _or(1.0, "part of the sustained rate that an all-to-all keeps")
    board: CountOrZero = _or(0, "GPUs that it joins, where that is a part of the node; 0: all")
    bridge: BytesPerSOrZero = _or(0.0, "board: one direction between two, over all PCIe and socket links together")


class NvmeFile(Block):
    """The NVMe set of a node, all drives together."""

    read: BytesPerS = _says("read rate")
    write: BytesPerS = _says("write rate")
    capacity: Bytes = _says("capacity")


class ClusterFile(Block):
    """Nodes behind a fabric, equal ones first, then others; a node is a cluster with nodes: 1."""

    name: str = _says("name shown in results")
    nodes: Count = _or(1, "nodes")
    gpus_per_host: Count = _says("GPUs of a node")
    device: DeviceFile = _says("the GPU")
    host: HostFile = _says("the CPU side of a node")
    host_link: HostLinkFile = _says("the link between a GPU and its host")
    nvlink: NvlinkFile | None = _or(None, "GPU to GPU inside a node; null: over PCIe")
    nics: NicFile | None = _or(None, "network adapters; null: a lone node")
    nvme: NvmeFile | None = _or(None, "drives; null: none")
    p2p: bool = _or(True, "GPUs reach each other over PCIe without a copy in host memory")
    sm_share: FractionOrZero = _or(0.0, "part of a GPU's SM time that a running collective takes")
    variations: tuple[VariationFile, ...] | None = _listed("parts of single nodes that are slower or missing")
    others: tuple[NodeGroupFile, ...] | None = _listed("further nodes, of other types, numbered after the first ones")
    fabric: FabricFile | None = _or(None, "switches between nodes; null: they do not block")
    collectives: CollectivesFile | None = _or(None, "algorithms and protocol; null: as NCCL would choose")
    source: str = _or("", "where the numbers are from")


class NodeGroupFile(Block):
    """Nodes of one type in a cluster beside its first ones."""

    count: Count = _or(1, "nodes")
    node: ClusterFile = _says("shipped name, path, or mapping: one node")


ClusterFile.model_rebuild()  # it names a class that comes after it


class LayoutFile(Block):
    """Sizes of the mesh axes, ZeRO stage, and how gradients and parameters move; what is unset the stack decides."""

    dp: Count = _or(1, "data-parallel ranks")
    tp: Count = _or(1, "tensor-parallel ranks")
    pp: Count = _or(1, "pipeline ranks")
    cp: Count = _or(1, "context-parallel ranks: each has a part of every sequence")
    ep: Count = _or(1, "expert-parallel ranks among those of tp, cp and dp; divides their product")
    zero: ZeroStage = _or(0, "ZeRO stage; 3 shards parameters as FSDP does")
    grad_bucket: Bytes | None = _or(None, "bytes of whole gradient per reduction; default: the stack's")
    gather_bucket: Bytes | None = _or(None, "bytes of whole parameters per gather; default: the stack's")
    overlap_grad_reduce: bool | None = _or(None, "reduce gradients while backward runs; default: the stack's")
    overlap_param_gather: bool | None = _or(
        None, "zero 1, 2: gather updated parameters under the next forward; default: false, at the end of the step"
    )
    prefetch: CountOrZero | None = _or(None, "zero 3: layers that are gathered ahead; default: the stack's")
    live_parameters: Count | None = _or(None, "zero 3: most gathered parameters at a time; default: no limit")
    persistence_threshold: CountOrZero | None = _or(
        None, "zero 3: tensors of at most so many parameters stay gathered; default: 0"
    )
    reshard_after_forward: bool | None = _or(None, "zero 3: free gathered layers after forward; default: true")
    order: tuple[Literal["tp", "cp", "dp", "pp"], ...] | None = _listed(
        "mesh axes, innermost (neighbouring ranks) first; default: tp, cp, dp, pp"
    )
    dp_replicate: Count | None = _or(None, "HSDP: groups that hold copies of the shards; divides dp * cp")
    sequence_parallel: bool | None = _or(None, "tp: split tokens over its ranks between attention and MLP")
    tp_overlap: bool | None = _or(None, "tp: run its collectives under the neighbouring GEMM (async-TP)")
    cp_kind: Literal["ring", "all_gather", "all_to_all"] | None = _or(
        None, "cp: pass keys and values round a ring, gather them, or exchange tokens for heads (Ulysses)"
    )
    schedule: Literal["gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "dualpipev"] | None = _or(
        None, "pp: order of actions; default 1f1b"
    )
    schedule_file: str | None = _or(
        None, "pp: an order of actions of your own: a CSV file as torch pipelining writes it, relative to this file"
    )
    virtual_stages: Count | None = _or(
        None, "pp: stages that each rank holds (schedule: interleaved, or 2 for zb-v and dualpipev)"
    )
    stage_layers: tuple[CountOrZero, ...] | None = _listed("pp: layers of each virtual stage; default: even")
    p2p_overlap: bool | None = _or(None, "pp: messages travel while the rank computes; default: true")
    scatter_gather: bool | None = _or(
        None, "pp with tp: send 1/tp from each rank, gather on arrival; default: the stack's"
    )
    capacity_factor: Factor | None = _or(None, "experts: rows of an expert over the mean; default: dropless")
    expert_imbalance: Factor | None = _or(None, "experts: rows of the busiest rank over the mean; default 1.0")
    expert_dispatch: Literal["all_to_all", "once_per_node"] | None = _or(
        None, "experts: one copy an expert, or one a node that is passed on inside (DeepEP); default all_to_all"
    )
    expert_overlap: bool | None = _or(
        None, "experts: a forward and a backward run together, exchanges of one under the other; default: false"
    )
    placement: Placement = _or(
        "packed",
        "which device each rank has: packed (node after node), scattered (a node each in turn), a list of devices and "
        "ranges such as [0-3, 8-11], counted node by node, or the path of a file that holds such a list",
    )


class BatchFile(Block):
    """Sequences a step: size = micro * accumulation * dp; one of the three may be left out."""

    size: Count | None = _or(None, "sequences of a step, all ranks together")
    micro: Count | None = _or(None, "sequences of one forward pass of one rank")
    accumulation: Count | None = _or(None, "forward and backward passes before an optimizer step")
    sequence: Count = _says("tokens of a sequence")


class PrecisionFile(Block):
    """Types of numbers; the one word fp16, bf16, fp32 or tf32 stands for {compute: it}."""

    compute: Compute = _says("what GEMMs run in")
    grads: Stored | None = _or(None, "gradients as stored; default: the stack's for this compute type")
    grad_comm: Stored | None = _or(None, "gradients on the wire; default: the stack's for this compute type")
    master: bool | None = _or(None, "keep fp32 master weights; default: true for fp16 and bf16")
    fp8: Fp8Recipe = _or("none", "narrow products of linear layers: how their operands are scaled")
    fp8_dispatch: bool = _or(False, "experts: tokens travel to them in the recipe's narrow form")


class OffloadFile(Block):
    """What lives outside the GPU; the word none stands for nothing."""

    optimizer: Literal["none", "cpu", "nvme"] = _or("none", "optimizer state, with its step on the CPU")
    gradients: Literal["none", "cpu"] = _or("none", "gradients; goes with the optimizer")
    parameters: Literal["none", "cpu", "nvme"] = _or("none", "zero 3: shards of parameters, fetched layer by layer")
    activations: Literal["none", "cpu"] = _or("none", "what forward keeps for backward: checkpoints, or everything")
    pinned: bool = _or(True, "copies use pinned host memory")
    ratio: Fraction | None = _or(None, "part of the parameters that the host updates, the GPU the rest; default: 1")
    update: Literal["after", "delayed", "speculative"] | None = _or(
        None, "when the host updates: after backward, under the next step, or bucket by bucket under backward"
    )
    accumulate: Literal["host", "gpu"] | None = _or(
        None, "where gradients of several microbatches are added: each moves to the host, or their sum; default: host"
    )
    casts: Literal["host", "gpu"] | None = _or(
        None, "who converts between 16 bits and fp32; gpu: the link carries fp32; default: host"
    )
    sub_group: Count | None = _or(None, "parameters that the optimizer takes at a time; default: the stack's tiles")
    threads: Count | None = _or(
        None, "cores that each rank's CPU work uses (OMP_NUM_THREADS); default: an equal part of its socket's"
    )
    buffers: Count | None = _or(None, "optimizer: nvme: sub-groups in host memory at a time; default: 4")
    activation_layers: Count | None = _or(None, "activations: cpu: of so many layers, the first ones; default: all")


Copies = Literal["none", "flat", "per_parameter"]
Again = Literal["core", "products"]
Back = Literal["after", "tiled", "cast"]


class GradTypes(Block):
    """Compute dtype to a gradient's dtype."""

    fp16: Stored | None = _or(None, "when computing in fp16")
    bf16: Stored | None = _or(None, "when computing in bf16")
    fp32: Stored | None = _or(None, "when computing in fp32")
    tf32: Stored | None = _or(None, "when computing in tf32")

    def table(self) -> dict[str, DType]:
        """Return the pairs that are set."""
        pairs: dict[str, DType | None] = {"fp16": self.fp16, "bf16": self.bf16, "fp32": self.fp32, "tf32": self.tf32}
        return {compute: dtype for compute, dtype in pairs.items() if dtype is not None}


class StackFile(Block):
    """A software stack: kernels, overlap, host time."""

    name: str = _says("name shown in results")
    attention: Literal["math", "flash1", "flash2", "flash3"] = _says("attention kernels; math is unfused")
    fused_softmax: bool = _says("scale, mask and softmax in one kernel (math attention)")
    fused_bias_activation: bool = _says("bias and activation in one kernel")
    fused_bias_dropout_add: bool = _says("bias, dropout and residual in one kernel")
    fused_norm: bool = _says("norm in one kernel")
    fused_rope: bool = _says("rotary positions in one kernel")
    fused_cross_entropy: bool = _says("loss in one kernel")
    fused_optimizer: bool = _says("optimizer step in a few large kernels")
    fp32_logits: bool = _says("logits are kept in fp32")
    launch_factor: Factor = _says("host time of a launch over that of eager code")
    overlap_grad_reduce: bool = _says("gradients are reduced while backward runs")
    grad_bucket: Bytes = _says("bytes of whole gradient per reduction")
    gather_bucket: Bytes = _says("bytes of whole parameters per gather")
    prefetch: CountOrZero = _says("zero 3: layers that are gathered ahead")
    grads: GradTypes = _says("compute dtype to stored gradient dtype")
    grad_comm: GradTypes = _says("compute dtype to gradient dtype on the wire")
    sustained: dict[str, Sustained] = _says("device name to the fraction of fitted GEMM speed that long runs keep")
    cpu_adam_fraction: Fraction = _says("share of STREAM bandwidth that CPU Adam reaches at 28 B a parameter")
    copy_back: Back = _says(
        "updated parameters return after the CPU step, by tiles, or by sub-groups that are cast first"
    )
    context: BytesOrZero = _says("bytes that driver, framework and communication library keep on a GPU")
    fragmentation: FractionOrZero = _says("allocator reserve, as a fraction of activations")
    vectorised: bool = _or(False, "element-wise passes sustain fused_fraction of bandwidth, not naive_fraction")
    fused_accumulate: bool = _or(False, "products of weight gradients add to the gradient buffer themselves")
    weight_placeholders: bool = _or(False, "fused_accumulate: one unread gradient of each weight's shape is kept")
    p2p_waits: bool = _or(False, "the host waits for each message that a stage receives")
    scatter_gather: bool = _or(False, "pp with tp: messages go in parts, one a rank, and are gathered on arrival")
    keeps_grads: bool = _or(False, "gradients are zeroed and stay: the first microbatch adds to them as others do")
    launch_queue: Count = _or(1024, "launched kernels, with the running one, that the host may be ahead by")
    softmax_heads: Count = _or(1, "heads that a block of the fused softmax takes; what they do not divide: fp32 passes")
    tensorwise_step: bool = _or(False, "norm, clipping, copies and zeroing take a kernel for each tensor")
    async_tp: bool = _or(False, "backward exchanges input gradients over tp beside the weight gradient's product")
    collective_check: SecondsOrZero = _or(0.0, "host time before a collective to see that a member called it, each")
    handover: SecondsOrZero = _or(0.0, "of a collective among kernels, beyond its own: events, members that come late")
    blocking_launches: bool = _or(False, "the host waits for each kernel before it launches the next")
    reducer_buckets: bool = _or(False, "data parallelism holds a second copy of gradients, in the compute type")
    flat_gather: bool = _or(False, "zero 1, 2: updated parameters are gathered into a buffer of all of them")
    tp_buffers: CountOrZero = _or(0, "sequence parallel: buffers for a region's whole input that stay allocated")
    workspace: BytesOrZero = _or(0.0, "bytes of library workspaces that the framework's allocator counts")
    selective: Again = _or("core", "recompute: selective runs attention's core, or all but it and every second product")
    separate_products: bool = _or(False, "queries, keys, values, gate and up are products of their own")
    library_loss: bool = _or(False, "the unfused loss is PyTorch's log-softmax and likelihood, not Megatron's passes")
    metric_losses: CountOrZero = _or(0, "unfused fp32 losses of the logits a microbatch, for the trainer's metrics")
    context_parts: bool = _or(False, "cp: keys of every query head, a kernel a part, merged in eager fp32 passes")
    second_dimension: bool = _or(False, "what sequence-parallel ranks exchange is copied into another order of tokens")
    fused_clamp: bool = _or(False, "model.activation_clamp: the activation's kernel limits its inputs itself")
    fused_experts: bool = _or(False, "narrow recipes: experts' products do what stands between them")
    fused_latent_rope: bool = _or(False, "latent attention: heads are rotated and joined in one kernel each way")
    loss_gradient_ahead: bool = _or(False, "the fused loss makes the gradient of the logits in forward")
    fused_linear_bias: bool = _or(False, "the product of a linear layer adds its bias")
    scripted_gelu: bool = _or(True, "unfused GELU is the scripted tanh form, which writes and keeps its tanh")
    recompute_stops: bool = _or(False, "recompute: full runs a layer up to the last tensor that backward needs")
    zero3_copies: Copies = _or(
        "none", "passes over whole gradients and parameters: none, FSDP's flat ones, FSDP2's copies"
    )
    sharded_master: bool = _or(False, "zero 3: the shards are the fp32 master weights, cast before each gather")
    weight_casts: Literal["each", "once"] = _or("each", "narrow recipes cast weights each microbatch, or once a step")
    narrow_param_gather: bool = _or(False, "narrow recipes: parameters are gathered over dp in the recipe's form")
    narrow_tp_gather: bool = _or(False, "narrow recipes: sequence-parallel gathers move the recipe's form")
    source: str = _or("", "where the numbers are from")


class PublishedFile(Block):
    """A published figure, to be shown beside ours."""

    figure: str = _says("name of the figure, such as step_time, mfu, parameters")
    value: Any = _says("its value: a quantity with its unit, a count, or a fraction")
    to: Any = _or(None, "upper end, where a range was published")
    by: str = _says("where it was published")
    note: str = _or("", "what a reader should know")


class ScenarioFile(Block):
    """All that a simulation needs: a model, on a cluster, laid out so, with this batch, by this software."""

    name: str = _says("name shown in results; default: the file's")
    description: str = _or("", "what the scenario is about")
    model: ModelFile = _says("shipped name, path, or mapping")
    cluster: ClusterFile = _says("shipped name, path, or mapping")
    layout: LayoutFile = _or(LayoutFile(), "mesh axes, ZeRO, buckets")
    batch: BatchFile = _says("sequences a step")
    precision: PrecisionFile = _says("one word (fp16, bf16, fp32, tf32) or a mapping")
    recompute: Literal["none", "selective", "full"] = _or(
        "none", "full: keep layer inputs only, run forward again in backward; selective: the core of attention only"
    )
    offload: OffloadFile = _or(OffloadFile(), "none, or a mapping")
    stack: StackFile = _says("shipped name, path, or mapping")
    recompute_modules: tuple[RecomputeModule, ...] | None = _listed(
        "selective: parts of each layer that run again; default: the core of attention, or what the stack says"
    )
    recompute_layers: CountOrZero | None = _or(None, "full: only so many layers of each virtual stage; default: all")
    published: tuple[PublishedFile, ...] | None = _listed("published figures of this step, shown beside ours")
