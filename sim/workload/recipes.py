"""Narrow products: how each fp8 or fp4 recipe makes the operands of a linear layer, and in which form it keeps them.

Owns bytes of elements and scales, and the passes over memory that a recipe adds around the three products of a linear
layer. Accumulation and results stay 16 bits wide; so do attention, norms, the router and the head. Must not know the
order of a layer.

- ``tensorwise``: current scaling (Transformer Engine ``Float8CurrentScaling``): one pass finds the largest value, one
  casts and writes the operand and its transpose, for Hopper's fp8 products want both operands contiguous along k.
- ``delayed``: Transformer Engine ``DelayedScaling``: the scale comes from largest values of earlier steps, so one pass
  casts, and a norm writes the narrow operand itself; backward makes the transpose.
- ``rowwise``: torchao ``rowwise``: the largest value of a row is found in the casting kernel; a scale holds along one
  direction only, so backward casts again from 16-bit tensors along the other.
- ``blockwise``: DeepSeek-V3 (section 3.3.2): tiles of 1 x 128 for activations and gradients, 128 x 128 for weights,
  fp32 scales; one pass writes the tiles along both directions (Transformer Engine ``Float8BlockScaling``).
- ``mxfp8``: OCP MX: blocks of 1 x 32 with one-byte scales, both directions in one pass.
- ``nvfp4``: fp4 in blocks of 1 x 16 with one-byte scales (a weight's are equal in 16 rows) under an fp32 one a tensor,
  which takes a pass of its own; the Hadamard transform and the stochastic rounding are inside the cast.

Weights are cast once a microbatch, or once a step where the stack keeps the cast (``StackSpec.weight_casts``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.spec.types import Fp8Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Bytes of one ``element``, and of scales for each element of an activation and of a weight.

    ``amax``: a pass of its own finds the largest value. ``keeps``: one cast in forward writes both directions, and the
    narrow copy is what backward reads; otherwise backward casts again from the 16-bit tensor. ``from_norm``: a norm
    writes the operand of the product after it. ``scaling``: ``rows`` where that takes another kernel than cuBLAS has.
    """

    dtype: str
    element: float
    scale: float
    weight_scale: float
    amax: bool
    keeps: bool
    from_norm: bool = False
    scaling: str = ""

    @property
    def operand(self) -> float:
        """Bytes of an element of an activation or gradient, scales included."""
        return self.element + self.scale

    @property
    def weight(self) -> float:
        """Bytes of an element of a weight, scales included."""
        return self.element + self.weight_scale


RECIPES: Mapping[Fp8Recipe, Recipe] = {
    "delayed": Recipe(
        dtype="fp8", element=1.0, scale=0.0, weight_scale=0.0, amax=False, keeps=True, from_norm=True
    ),
    "tensorwise": Recipe(dtype="fp8", element=1.0, scale=0.0, weight_scale=0.0, amax=True, keeps=True),
    "rowwise": Recipe(dtype="fp8", element=1.0, scale=0.0, weight_scale=0.0, amax=False, keeps=False, scaling="rows"),
    "blockwise": Recipe(dtype="fp8", element=1.0, scale=4 / 128, weight_scale=4 / 128**2, amax=False, keeps=True),
    "mxfp8": Recipe(dtype="fp8", element=1.0, scale=1 / 32, weight_scale=1 / 32, amax=False, keeps=True),
    "nvfp4": Recipe(dtype="fp4", element=0.5, scale=1 / 16, weight_scale=1 / 16, amax=True, keeps=True),
}
"""Every recipe. A scale a tensor or a row is too few bytes to count."""
