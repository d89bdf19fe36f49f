"""The sizes that a rank's kernels work on, and the few kinds of kernel that everything is built of.

Owns ``Shape`` and the constructors of matrix products and memory passes. Knows bytes and FLOPs; must not know the
order of a layer (see ``kernels``), a rank or a device. Element-wise kernels count no FLOPs: memory bounds them, and
model FLOPs are those of matrix products. Widths are asked of the shape, never of the model: a shape is the share of one
tensor- and context-parallel rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sim.errors import Problem, ScenarioError
from sim.spec.types import DTYPE_BYTES, LayoutSpec, ModelSpec, PrecisionSpec, StackSpec
from sim.workload.model import (
    attended_pairs,
    attention_widths,
    head_dims,
    latent,
    mlp_in_width,
    value_width,
    window_of,
)
from sim.workload.ops import Collective, Kernel, KernelKind, Quality
from sim.workload.recipes import RECIPES, Recipe

Role = Literal["forward", "input_grad", "weight_grad"]
Kernels = tuple[Kernel, ...]
Items = tuple[Kernel | Collective, ...]
"""Kernels with the collectives between them, each in its place."""

ALONE = LayoutSpec()
"""One rank with everything."""

MASK_BYTES = 1  # PyTorch keeps a dropout mask as one byte an element
FP32 = 4
INDEX_BYTES = 8  # token ids are int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One microbatch of a model on one rank: ``micro`` sequences of ``sequence`` tokens.

    Inside ``local_experts`` experts the tokens at hand are ``rows`` that were sent to them (see ``kernels_moe``).
    Raises ScenarioError for fused attention in a 32-bit type, a kernel that does not exist.
    """

    model: ModelSpec
    micro: int
    sequence: int
    stack: StackSpec
    precision: PrecisionSpec
    layout: LayoutSpec = ALONE
    token_parts: int = 1  # ranks over which the tokens at hand are split (sequence parallelism)
    rows: int = 0  # tokens at hand where they are not the microbatch's
    local_experts: int = 0  # products of a linear layer in one grouped launch; 0: an ordinary product
    window: int = 0  # keys that a token of this layer sees; 0: all

    def __post_init__(self) -> None:
        if self.micro < 1 or self.sequence < 1:
            what = f"needs at least one sequence of one token, got {self.micro} of {self.sequence}"
            raise ScenarioError([Problem("", 0, 0, "batch", what)])
        if self.flash and self.elem != 2:
            what = (
                f"{self.stack.attention} attention does not exist in {self.precision.compute}; "
                "compute in fp16 or bf16, or choose a stack with math attention"
            )
            raise ScenarioError([Problem("", 0, 0, "precision.compute", what)])

    @property
    def tp(self) -> int:
        """Tensor-parallel ranks: widths inside attention and MLP are a part of the model's."""
        return self.layout.tp

    @property
    def between(self) -> Shape:
        """The shape between tensor-parallel regions: with sequence parallelism a part of the tokens, at full width."""
        return replace(self, token_parts=self.tp) if self.layout.sequence_parallel else self

    @property
    def tokens(self) -> int:
        """Tokens of the microbatch on this rank: those of its context-parallel part."""
        return self.rows or self.micro * self.local_sequence // self.token_parts

    @property
    def local_sequence(self) -> int:
        """Tokens of one sequence on this context-parallel rank."""
        return self.sequence // self.layout.cp

    @property
    def elem(self) -> int:
        """Bytes of one activation."""
        return DTYPE_BYTES[self.precision.compute]

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.model.hidden

    @property
    def q_width(self) -> int:
        """Width of the queries."""
        return attention_widths(self.model)[0] // self.tp

    @property
    def kv_width(self) -> int:
        """Width of the keys. With more ranks than key heads every rank holds one head."""
        return max(attention_widths(self.model)[1] // self.tp, head_dims(self.model)[0])

    @property
    def value_width(self) -> int:
        """Width of the values: as wide as the keys, but for latent attention."""
        return max(value_width(self.model) // self.tp, head_dims(self.model)[1])

    @property
    def context_width(self) -> int:
        """Width of the attention output before its projection."""
        return self.model.heads * head_dims(self.model)[1] // self.tp

    @property
    def head_dims(self) -> tuple[int, int]:
        """Dimensions of a head in the scores, and in the values."""
        return head_dims(self.model)

    @property
    def latent(self) -> bool:
        """Whether keys and values come from a low-rank latent (MLA)."""
        return latent(self.model)

    @property
    def recipe(self) -> Recipe | None:
        """How the operands of linear layers are made narrow; None where they are not."""
        return None if self.precision.fp8 == "none" else RECIPES[self.precision.fp8]

    @property
    def adds_gradients(self) -> bool:
        """Whether products of weight gradients add to the gradient buffer."""
        return self.stack.fused_accumulate

    @property
    def placeholders(self) -> bool:
        """Whether autograd gets tensors that nobody reads for weights whose gradients are added to a buffer kept whole.

        Where gradients are sharded as they come, they are tensors of their own.
        """
        return self.adds_gradients and self.stack.weight_placeholders and self.layout.zero < 2

    @property
    def narrow_gather(self) -> bool:
        """Whether what sequence-parallel ranks gather is in the recipe's form."""
        keeps = self.recipe is not None and self.recipe.keeps
        return keeps and self.stack.narrow_tp_gather and self.layout.sequence_parallel and self.tp > 1

    @property
    def unquantised(self) -> Shape:
        """The same with 16-bit products: for whatever recipes leave alone."""
        return replace(self, precision=replace(self.precision, fp8="none")) if self.recipe else self

    @property
    def qkv_width(self) -> int:
        """Output width of the fused QKV product: (heads + 2 kv_heads) head_dim."""
        return self.q_width + 2 * self.kv_width

    @property
    def up_width(self) -> int:
        """Output width of the first MLP product (gate and up in one)."""
        return mlp_in_width(self.model) // self.tp

    @property
    def ffn(self) -> int:
        """Input width of the second MLP product."""
        return self.model.ffn // self.tp

    @property
    def vocab(self) -> int:
        """Width of the logits: the vocabulary, padded to a multiple of the tensor-parallel ranks, in parts."""
        return -(-self.model.vocab // self.tp)

    @property
    def head_batch(self) -> int:
        """Independent attention problems: sequences x heads."""
        return self.micro * self.model.heads // self.tp

    @property
    def scores(self) -> int:
        """Elements of the attention matrix, sequences x heads x queries here x all keys."""
        return self.head_batch * self.local_sequence * self.sequence

    @property
    def pairs(self) -> float:
        """Twice the pairs of a query and a key it sees, of one causal sequence: s^2, or the band of a window."""
        return attended_pairs(self.sequence, self.window)

    def at(self, layer: int) -> Shape:
        """The same for one layer of the model, which may see a window of keys only."""
        window = window_of(self.model, layer)
        return self if window == self.window else replace(self, window=window)

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.model.kind == "decoder"

    @property
    def flash(self) -> bool:
        """Whether attention is one fused kernel."""
        return self.stack.attention != "math"

    @property
    def grouped(self) -> bool:
        """Whether several query heads share one key head."""
        return self.kv_width < self.q_width

    @property
    def softmax(self) -> Literal["fused", "wide", "eager"]:
        """One kernel; passes in fp32 where its blocks do not divide sequences x heads; or the passes of eager code."""
        if not self.stack.fused_softmax:
            return "eager"
        return "wide" if self.head_batch % self.stack.softmax_heads else "fused"

    @property
    def eager_layout(self) -> bool:
        """Whether attention works on [batch, heads, sequence, head_dim] copies, as code before fused softmax did.

        Megatron-LM changed to [sequence, batch, hidden] in the release that brought the fused softmax: from then on
        queries, keys and values are views that the batched product reads in place.
        """
        return not self.flash and not self.stack.fused_softmax

    @property
    def dropout(self) -> bool:
        """Whether there are dropout kernels at all."""
        return self.model.dropout > 0

    def act(self, width: float) -> float:
        """Bytes of an activation of ``width`` elements a token."""
        return float(self.tokens * width * self.elem)


def gemm(shape: Shape, name: str, mnk: tuple[int, int, int], batch: int = 1, role: Role = "forward") -> Kernel:
    """``batch`` products of (m x k)(k x n): 2mnk FLOPs each, both operands read once, the product written once."""
    m, n, k = mnk
    return Kernel(
        name=name, kind="gemm", flops=2.0 * m * n * k * batch,
        bytes_read=float((m * k + k * n) * batch * shape.elem), bytes_written=float(m * n * batch * shape.elem),
        m=m, n=n, k=k, batch=batch, dtype=shape.precision.compute, role=role,
    )  # fmt: skip


def memory_pass(
    name: str, read: float, written: float, *,
    fused: bool = False, quality: Quality | None = None, role: Role = "forward", kind: KernelKind = "elementwise",
    dtype: str = "fp32",
) -> Kernel:  # fmt: skip
    """One pass over memory: bytes read and written.

    ``fused`` tells a hand-fused kernel from one pass of a chain; others say their ``quality`` (see ``Kernel``).
    """
    return Kernel(
        name=name, kind=kind, flops=0.0, bytes_read=float(read), bytes_written=float(written),
        dtype=dtype, role=role, quality=quality or ("fused" if fused else "naive"),
    )  # fmt: skip


def dense_pass(shape: Shape, name: str, width: int, counts: tuple[int, int], fused: bool = False) -> Kernel:
    """A forward pass that reads ``counts[0]`` and writes ``counts[1]`` activations of one width."""
    one = shape.act(width)
    return memory_pass(name, counts[0] * one, counts[1] * one, fused=fused, dtype=shape.precision.compute)


def grad_pass(shape: Shape, name: str, width: int, counts: tuple[int, int], fused: bool = False) -> Kernel:
    """As ``dense_pass``, in backward, towards the inputs."""
    one = shape.act(width)
    return memory_pass(
        name, counts[0] * one, counts[1] * one, fused=fused, role="input_grad", dtype=shape.precision.compute
    )


def bias_add(shape: Shape, name: str, width: int) -> Kernel:
    """An in-place bias add after a product, a pass of its own."""
    one = shape.act(width)
    return memory_pass(f"{name}.bias", one + width * shape.elem, one, dtype=shape.precision.compute)


def bias_grad(shape: Shape, name: str, width: int, fused: bool = False) -> Kernel:
    """The gradient of a bias: the sum over tokens."""
    return memory_pass(
        f"{name}.bias_grad", shape.act(width), width * shape.elem,
        fused=fused, role="weight_grad", dtype=shape.precision.compute,
    )  # fmt: skip


def dropout_forward(shape: Shape, name: str, elements: float) -> Kernel:
    """Draw, scale and drop: reads and writes the elements, and writes a byte mask."""
    size = elements * shape.elem
    return memory_pass(f"{name}.dropout", size, size + elements * MASK_BYTES, dtype=shape.precision.compute)


def dropout_backward(shape: Shape, name: str, elements: float, fused: bool = False) -> Kernel:
    """The gradient times the mask and its scale."""
    size = elements * shape.elem
    return memory_pass(
        f"{name}.dropout_grad", size + elements * MASK_BYTES, size,
        fused=fused, role="input_grad", dtype=shape.precision.compute,
    )  # fmt: skip
