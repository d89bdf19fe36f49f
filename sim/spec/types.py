"""The scenario as the simulator sees it: frozen, keyword-only, in SI units.

Owns the words of a scenario file once units, names and overrides are resolved: seconds, bytes, bytes/s, FLOP,
FLOP/s as plain numbers. Every other room may read these types; none may change one. Nothing here reads a file
(see ``load``) or checks a rule that spans keys (see ``checks``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Part of these words: the aliases hand them on to other rooms.
from sim.spec.network import CollectivesSpec as CollectivesSpec  # noqa: PLC0414
from sim.spec.network import DimensionSpec as DimensionSpec  # noqa: PLC0414
from sim.spec.network import FabricSpec as FabricSpec  # noqa: PLC0414
from sim.spec.network import NicSpec as NicSpec  # noqa: PLC0414
from sim.spec.network import VariationSpec as VariationSpec  # noqa: PLC0414
from sim.spec.stack import DType as DType  # noqa: PLC0414
from sim.spec.stack import StackSpec as StackSpec  # noqa: PLC0414

Fp8Recipe = Literal["none", "delayed", "tensorwise", "rowwise", "blockwise", "mxfp8", "nvfp4"]
DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}
OPERAND_BYTES: Mapping[str, float] = {**DTYPE_BYTES, "fp8": 1.0, "fp4": 0.5}
"""Bytes of one operand of a matrix product; nothing is stored or computed in the narrow types outside of products."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A transformer: its shape, and nothing about how it is trained.

    ``ffn`` is the inner width of the MLP; ``gated_mlp`` means three matrices (SwiGLU), otherwise two.
    ``qkv_bias``, ``out_bias``, ``mlp_bias`` say which linear layers carry a bias. ``post_norm`` is BERT's order
    (norm after the residual), otherwise pre-norm with a final norm.
    """

    name: str
    kind: Literal["decoder", "encoder"]
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    gated_mlp: bool = False
    activation: Literal["gelu", "silu", "relu"] = "gelu"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    post_norm: bool = False
    positions: Literal["learned", "rotary", "none"] = "learned"
    max_positions: int = 0  # rows of the learned position table; 0 without one
    token_types: int = 0  # rows of BERT's segment table
    embedding_norm: bool = False
    tied_embeddings: bool = True
    qkv_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    pooler: bool = False  # BERT: one H x H layer on the first token
    mlm_head: bool = False  # BERT: H x H transform, norm, vocabulary bias before the (tied) decoder
    dropout: float = 0.0
    experts: int = 0  # routed experts of a mixture-of-experts layer; 0: every layer is dense
    top_k: int = 0  # routed experts that each token visits
    moe_ffn: int = 0  # inner width of one expert
    shared_experts: int = 0  # experts that every token visits, each moe_ffn wide
    first_dense_layers: int = 0  # layers before the first mixture-of-experts layer
    router_bias: bool = False  # one number an expert that balances their load (DeepSeek-V3)
    top_k_nodes: int = 0  # a token visits experts on at most so many nodes (device-limited routing); 0: on any
    attention: Literal["mha", "mla"] = "mha"  # multi-head (grouped or not), or DeepSeek's latent attention
    q_lora_rank: int = 0  # MLA: 0 means queries are projected directly
    kv_lora_rank: int = 0
    nope_head_dim: int = 0
    rope_head_dim: int = 0
    v_head_dim: int = 0
    qk_norm: bool = False  # a norm over each head of queries and keys
    sliding_window: int = 0  # keys that a token sees, itself among them; 0: all before it
    full_every: int = 0  # every so many-th layer sees all keys in spite of the window (GPT-OSS 2, Gemma 3 6); 0: none
    mtp_layers: int = 0  # modules that predict one token more each, of a layer each (DeepSeek-V3: 1)
    activation_clamp: bool = False  # a gated MLP limits what goes into its activation (GPT-OSS: to 7)
    attention_sinks: bool = False  # one learned logit a head in the softmax (GPT-OSS)
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GemmFit:
    """``t = t0 + max(2mnk(1+am/m)(1+an/n)(1+ak/k) / (peak*e), bytes / (hbm*eb))``, fitted per device and dtype.

    ``peak`` in FLOP/s (dense), ``t0`` in seconds, ``am, an, ak`` in elements, ``e`` and ``eb`` fractions. Products
    of at least ``deep`` in k (0: none) keep ``deep_rate`` of the rate.
    """

    peak: float
    e: float
    am: float
    an: float
    ak: float
    t0: float
    eb: float
    deep: float = 0.0
    deep_rate: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashFit:
    """Fused attention: ``flops_per_s = p_inf * s / (s + s0) / (1 + tail / w)`` (FlashAttention flop convention).

    s is the sequence length, w the blocks of 128 queries an SM has (sequences x heads x queries / 128 / SMs); ``tail``
    is how many blocks' time passes at the end with SMs idle. Backward runs at ``backward`` times the rate (0: the
    device's ``flash_backward_ratio``) and has its own tail. One fit per (head_dim, causal).
    """

    head_dim: int
    causal: bool
    p_inf: float
    s0: float
    tail: float = 0.0
    backward: float = 0.0
    backward_tail: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSpec:
    """One GPU: capacities and fitted kernel rates.

    ``grouped``: products of many experts in one launch, whose arithmetic and memory do not overlap: ``t = t0 +
    2mnk(...) / (peak*e) + bytes / (hbm*eb)``; a dtype that is not there costs as ``gemm`` says.
    ``unaligned_flops_per_s`` is what a 16-bit GEMM reaches when a dimension breaks ``gemm_alignment`` (bytes).
    ``fused_fraction`` and ``naive_fraction`` are the shares of ``hbm_bandwidth`` that memory-bound kernels sustain,
    ``rearrange_fraction`` that of kernels that only put rows or slices of rows elsewhere (0: as naive ones),
    ``kernel_floor`` their shortest duration (s).
    """

    name: str
    memory: float
    hbm_bandwidth: float
    sms: int
    gemm: Mapping[str, GemmFit]
    grouped: Mapping[str, GemmFit] = field(default_factory=dict)
    flash: Mapping[str, tuple[FlashFit, ...]] = field(default_factory=dict)
    flash_backward_ratio: float = 0.8  # rate of the backward kernel over the forward one
    gemm_alignment: int = 16
    unaligned_flops_per_s: float = 0.0
    unaligned_batched_flops_per_s: float = 0.0  # of many products in one launch; 0: as of one
    wgrad_factor: float = 1.0  # time of a weight-gradient GEMM over the same forward GEMM
    fused_fraction: float = 0.8
    naive_fraction: float = 0.45
    rearrange_fraction: float = 0.0
    kernel_floor: float = 2e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSpec:
    """The CPU side of a node. ``dram`` is bytes a node; ``dram_bandwidth`` is per socket, as STREAM measures it.

    ``socket_link`` is one direction between two sockets. ``launch`` is the host time of one kernel launch in
    eager code (s); the software stack scales it. ``boards`` are the trays that sockets are spread over: only sockets of
    one board are linked.
    """

    name: str
    sockets: int
    cores_per_socket: int
    dram: float
    dram_bandwidth: float
    core_bandwidth: float  # bytes/s that one core alone moves (STREAM, one thread)
    socket_link: float
    launch: float
    binding: Literal["local", "remote", "spread"] = "local"  # where a process works: on its GPU's socket, the next, all
    boards: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class HostLinkSpec:
    """The link between a GPU and its host: PCIe or chip-to-chip. Rates in bytes/s, pinned memory, as measured.

    ``duplex`` is what both directions reach together. ``gpus_per_uplink`` GPUs share one switch uplink of ``uplink``
    bytes/s each way (0: no switch, every GPU has its own root port).
    """

    kind: Literal["pcie", "c2c"]
    h2d: float
    d2h: float
    duplex: float
    pageable: float
    latency: float
    gpus_per_uplink: int = 1
    uplink: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NvlinkSpec:
    """GPU to GPU inside a node, per GPU and direction. ``efficiency`` is what collectives sustain of ``bandwidth``.

    ``kind``: ``switch`` (any pair at full rate), ``mesh`` (point-to-point links; rings as NCCL lays them), or ``full``
    (each pair has a link of its own, all of a GPU's together are ``bandwidth``; rings in every order use them all).
    ``step_latency`` is one hop of a collective (s), ``base_latency`` its start (s), both of the Simple protocol.
    ``in_switch``: what in-switch reduction (NVLS) keeps of ``bandwidth * efficiency`` (0: the switch cannot add);
    ``in_switch_latency`` and ``in_switch_fill`` (s): its two passes, and what each chunk of its pipeline costs.
    ``all_to_all``: what an all-to-all keeps of ``bandwidth * efficiency``. ``board``: GPUs that NVLink joins (0: all of
    the node); ``bridge``: bytes/s one way between two such boards, over all that joins them.
    """

    kind: Literal["switch", "mesh", "full"]
    bandwidth: float
    efficiency: float
    base_latency: float
    step_latency: float
    in_switch: float = 0.0
    in_switch_latency: float = 0.0
    in_switch_fill: float = 0.0
    all_to_all: float = 1.0
    board: int = 0
    bridge: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NvmeSpec:
    """The NVMe set of a node, all drives together: bytes/s read and written, bytes of capacity."""

    read: float
    write: float
    capacity: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSpec:
    """``nodes`` equal nodes behind a fabric (None: it does not block). GPUs spread evenly over sockets, NICs, uplinks.

    ``sm_share`` is the part of a GPU's SM time that a running collective kernel takes. ``variations`` make single parts
    of it slower.
    """

    name: str
    nodes: int
    gpus_per_host: int
    device: DeviceSpec
    host: HostSpec
    host_link: HostLinkSpec
    nvlink: NvlinkSpec | None = None
    nics: NicSpec | None = None
    nvme: NvmeSpec | None = None
    p2p: bool = True  # GPUs reach each other over PCIe without a copy in host memory
    sm_share: float = 0.0
    variations: tuple[VariationSpec, ...] = ()
    others: tuple[NodeGroupSpec, ...] = ()  # further nodes, of other types
    fabric: FabricSpec | None = None
    collectives: CollectivesSpec = field(default_factory=CollectivesSpec)
    source: str = ""

    @property
    def machines(self) -> tuple[ClusterSpec, ...]:
        """The types of node there are: this one, then the others in their order."""
        return (self, *(group.node for group in self.others))

    @property
    def machine_of_node(self) -> tuple[int, ...]:
        """Which of ``machines`` each node is."""
        counts = (self.nodes, *(group.count for group in self.others))
        return tuple(machine for machine, count in enumerate(counts) for _ in range(count))

    @property
    def gpus_of_node(self) -> tuple[int, ...]:
        """GPUs of each node."""
        return tuple(self.machines[machine].gpus_per_host for machine in self.machine_of_node)

    @property
    def gpus(self) -> int:
        """All GPUs of the cluster."""
        return sum(self.gpus_of_node)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGroupSpec:
    """``count`` nodes of one type that are in a cluster beside its first ``nodes``; numbered after those before."""

    count: int = 1
    node: ClusterSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleFile:
    """The user's own pipeline order: the name of the file in messages, and its text, which is data and never run.

    ``copies`` of the parameters follow from the text; whoever reads it fills them in.
    """

    name: str
    text: str
    copies: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutSpec:
    """Sizes of the mesh axes, ZeRO stage, and how gradients and parameters move.

    ``grad_bucket`` and ``gather_bucket`` are bytes of the whole (unsharded) tensor per collective;
    ``prefetch`` is how many layers ahead ZeRO-3 gathers; ``reshard_after_forward`` frees them in between.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    zero: Literal[0, 1, 2, 3] = 0
    grad_bucket: float = 0.0
    gather_bucket: float = 0.0
    overlap_grad_reduce: bool = True
    overlap_param_gather: bool = False  # zero 1, 2: gather updated parameters under the next forward
    prefetch: int = 1
    live_parameters: int = 0  # zero 3: gather no further ahead than so many gathered parameters; 0: no limit
    persistence_threshold: int = 0  # zero 3: tensors of at most so many parameters stay gathered
    reshard_after_forward: bool = True
    order: tuple[str, ...] = ("tp", "cp", "dp", "pp")  # mesh axes, innermost (adjacent ranks) first
    dp_replicate: int = 1  # HSDP: dp = dp_replicate x shard; parameters are sharded within, replicated across
    sequence_parallel: bool = False
    tp_overlap: bool = False  # TP collectives run under the GEMM they feed (async-TP, user buffers)
    cp_kind: Literal["ring", "all_gather", "all_to_all"] = "ring"
    schedule: str = "1f1b"
    schedule_file: ScheduleFile | None = None  # the user's own order, instead of a schedule by name
    virtual_stages: int = 1  # model chunks a pipeline rank holds (interleaving)
    stage_layers: tuple[int, ...] = ()  # layers of each virtual stage in model order; empty: even
    p2p_overlap: bool = True
    scatter_gather: bool = False  # p2p sends 1/tp of the activation from each TP rank, gathered on arrival
    capacity_factor: float = 0.0  # rows of an expert over the mean, padded or dropped to it; 0: dropless
    expert_imbalance: float = 1.0  # rows of the busiest expert-parallel rank over the mean
    expert_dispatch: Literal["all_to_all", "once_per_node"] = "all_to_all"
    expert_overlap: bool = False  # each backward runs together with the forward after it, under each other's exchanges
    placement: str | tuple[int, ...] = "packed"  # packed, scattered, or the device of each rank, counted node by node

    @property
    def world(self) -> int:
        """Number of ranks. Expert-parallel ranks are those of tp, cp and dp, grouped anew."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def expert_replicas(self) -> int:
        """Ranks of one pipeline stage that hold the same experts: whole on each, ``ep`` ranks hold all of them."""
        return self.dp * self.tp * self.cp // self.ep

    @property
    def copies(self) -> int:
        """Copies of the parameters that one pipeline holds: 2 where microbatches flow in both directions."""
        if self.schedule_file is not None:
            return self.schedule_file.copies
        return 2 if self.schedule == "dualpipe" and self.pp > 1 else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSpec:
    """Sequences a step: ``size = micro * accumulation * dp``, each of ``sequence`` tokens."""

    size: int
    micro: int
    accumulation: int
    sequence: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionSpec:
    """Types: what GEMMs run in, what gradients are stored and communicated in; ``master`` keeps fp32 weights."""

    compute: DType
    grads: DType
    grad_comm: DType
    master: bool
    fp8: Fp8Recipe = "none"  # what the layers' linear products run in; attention, router, head stay in ``compute``
    fp8_dispatch: bool = False  # tokens travel to experts (and gradients to where experts are) as the recipe keeps them

    @property
    def param_bytes(self) -> int:
        """Bytes of one parameter as the GPU computes with it."""
        return DTYPE_BYTES[self.compute]


@dataclass(frozen=True, kw_only=True, slots=True)
class OffloadSpec:
    """What lives outside the GPU. ZeRO-Offload is ``optimizer`` and ``gradients`` both ``cpu``.

    ``ratio`` of each rank's parameters are updated on the host, the rest on the GPU meanwhile (Twin-Flow, Megatron's
    fraction, SuperOffload's retained buckets): the host has those whose gradients come first. ``update``: ``after``
    backward; ``delayed``, under the next step (one step stale); ``speculative``, bucket by bucket under backward,
    checked later. ``accumulate``: where the gradients of several microbatches are added. ``casts``: who turns 16-bit
    gradients into fp32 and fp32 parameters back; on the GPU the link carries fp32. ``sub_group``: parameters that the
    optimizer takes at a time; ``buffers``: sub-groups in host memory at a time when their states live on NVMe.
    ``activation_layers``: only so many layers of the model, the first ones, have their activations on the host.
    """

    optimizer: Literal["none", "cpu", "nvme"] = "none"
    gradients: Literal["none", "cpu"] = "none"
    parameters: Literal["none", "cpu", "nvme"] = "none"
    activations: Literal["none", "cpu"] = "none"
    pinned: bool = True
    ratio: float = 1.0
    update: Literal["after", "delayed", "speculative"] = "after"
    accumulate: Literal["host", "gpu"] = "host"
    casts: Literal["host", "gpu"] = "host"
    sub_group: int = 0  # 0: what the stack does
    threads: int = 0  # cores that each rank's CPU work uses; 0: an equal part of its socket's
    buffers: int = 4
    activation_layers: int = 0  # 0: all


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedSpec:
    """A published figure of this step, in SI units: ``value``, or from there up ``to`` another (0: one value)."""

    figure: str
    value: float
    to: float = 0.0
    by: str
    note: str = ""


RecomputeModule = Literal["core_attn", "layernorm", "mla_up_proj", "mlp", "moe", "moe_act", "shared_experts"]
"""Parts of a layer that backward can run again alone (Megatron-Core's --recompute-modules)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """All that a simulation needs to know."""

    name: str
    description: str
    model: ModelSpec
    cluster: ClusterSpec
    layout: LayoutSpec
    batch: BatchSpec
    precision: PrecisionSpec
    recompute: Literal["none", "selective", "full"]
    offload: OffloadSpec
    stack: StackSpec
    recompute_modules: tuple[RecomputeModule, ...] = ()  # selective: what of a layer; (): what the stack says
    recompute_layers: int = -1  # full: layers of each virtual stage that are recomputed (the first ones); -1: all
    published: tuple[PublishedSpec, ...] = ()
