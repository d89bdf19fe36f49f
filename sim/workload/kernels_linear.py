"""A linear layer: its three products, grouped over experts or not, and the casts that a narrow recipe puts before them.

Owns sizes and bytes of these kernels. Must not know which layer of the model it is.
"""

from __future__ import annotations

from msgspec.structs import replace

from sim.spec.types import DTYPE_BYTES
from sim.workload.kernels_shape import FP32, Kernels, Role, Shape, memory_pass
from sim.workload.ops import Kernel

Parts = tuple[tuple[str, int], ...]
"""Names of linear layers that have one input, and their output widths."""


def linear_forward(shape: Shape, name: str, inputs: int, outputs: int, *, enters: bool = False) -> Kernels:
    """Y = X W^T over all tokens; input and weight are cast first where products are narrow.

    ``enters``: X comes from a norm and over a region's border: the norm may write the narrow X, and where that is what
    is gathered, only this rank's part of it is cast here. Weights that are cast once a step cost nothing here.
    """
    recipe = shape.recipe
    product = _product(shape, name, (inputs, outputs), "forward")
    if recipe is None:
        return (product,)
    copies = 2 if recipe.keeps else 1
    x, w, _ = _elements(shape, inputs, outputs)
    if enters and recipe.from_norm:
        cast: Kernels = ()
    else:
        mine = x // _parts(shape, enters)
        cast = _cast(shape, f"{name}.cast_input", mine, copies * recipe.operand, "forward")
    weight = _cast(shape, f"{name}.cast_weight", w, copies * recipe.weight, "forward")
    return (*cast, *(weight if shape.stack.weight_casts == "each" else ()), product)


def linear_backward(shape: Shape, name: str, inputs: int, outputs: int, *, leaves: bool = False) -> Kernels:
    """The input gradient dY W, then the weight gradient dY^T X, in autograd's order, each after its casts.

    ``leaves``: Y crosses a region's border, so dY is gathered there; where in narrow form, a rank casts its part.
    """
    size = (inputs, outputs)
    inner = _product(shape, f"{name}.input_grad", size, "input_grad")
    weight = _product(shape, f"{name}.weight_grad", size, "weight_grad")
    recipe = shape.recipe
    if recipe is None:
        return inner, weight
    x, w, y = _elements(shape, inputs, outputs)
    if recipe.keeps:
        mine = y // _parts(shape, leaves)
        return (*_cast(shape, f"{name}.cast_grad", mine, 2 * recipe.operand, "input_grad"), inner, weight)
    return (
        *_cast(shape, f"{name}.cast_grad", y, recipe.operand, "input_grad"),
        *_cast(shape, f"{name}.cast_weight_columns", w, recipe.weight, "input_grad"),
        inner,
        *_cast(shape, f"{name}.cast_grad_columns", y, recipe.operand, "weight_grad", strided=True),
        *_cast(shape, f"{name}.cast_input_columns", x, recipe.operand, "weight_grad", strided=True),
        weight,
    )


def parts_forward(shape: Shape, name: str, inputs: int, parts: Parts, *, enters: bool = False) -> Kernels:
    """Linear layers of one input: one product called ``name``, or one a part where the framework keeps them apart.

    The input is cast once.
    """
    if not shape.stack.separate_products:
        return linear_forward(shape, name, inputs, sum(outputs for _, outputs in parts), enters=enters)
    made = [linear_forward(shape, part, inputs, outputs, enters=enters) for part, outputs in parts]
    return (*made[0], *(kernel for rest in made[1:] for kernel in rest if ".cast_input" not in kernel.name))


def parts_backward(shape: Shape, name: str, inputs: int, parts: Parts) -> Kernels:
    """Their gradients, last part first; an input gradient is added, as it is written, to those of the parts before."""
    if not shape.stack.separate_products:
        return linear_backward(shape, name, inputs, sum(outputs for _, outputs in parts))
    made: list[Kernel] = []
    for number, (part, outputs) in enumerate(reversed(parts)):
        for kernel in linear_backward(shape, part, inputs, outputs):
            if number and ".cast_input" in kernel.name:
                continue
            adds = number and kernel.kind == "gemm" and kernel.role == "input_grad"
            made.append(replace(kernel, bytes_read=kernel.bytes_read + kernel.bytes_written) if adds else kernel)
    return tuple(made)


def saved_input(shape: Shape, width: float) -> float:
    """Bytes that a linear layer keeps of its input of ``width`` elements a token.

    Recipes that cast both directions in forward keep the narrow copy that the weight gradient reads; the others keep
    the 16-bit tensor.
    """
    recipe = shape.recipe
    if recipe is None or not recipe.keeps:
        return shape.act(width)
    return float(shape.tokens * width * recipe.operand)


def _parts(shape: Shape, border: bool) -> int:
    """Ranks over which what a cast at a region's border reads is split."""
    return shape.tp if border and shape.narrow_gather else 1


def _groups(shape: Shape) -> int:
    return max(1, shape.local_experts)


def _elements(shape: Shape, inputs: int, outputs: int) -> tuple[int, int, int]:
    """Elements of input, weights and output."""
    return shape.tokens * inputs, _groups(shape) * inputs * outputs, shape.tokens * outputs


def _product(shape: Shape, name: str, size: tuple[int, int], role: Role) -> Kernel:
    """2 x rows x inputs x outputs FLOPs whatever the role; every tensor is read or written once.

    A weight gradient that adds to the gradient buffer reads and writes that instead of writing a tensor of its own.
    """
    inputs, outputs = size
    rows = -(-shape.tokens // _groups(shape))
    x, w, y = _elements(shape, inputs, outputs)
    m, n, k, read, written = {
        "forward": (rows, outputs, inputs, (x, w), y),
        "input_grad": (rows, inputs, outputs, (y, w), x),
        "weight_grad": (outputs, inputs, rows, (y + x, 0), w),
    }[role]
    recipe = shape.recipe
    operand, weight = (recipe.operand, recipe.weight) if recipe else (shape.elem, shape.elem)
    buffer = DTYPE_BYTES[shape.precision.grads] if role == "weight_grad" and shape.adds_gradients else 0
    return Kernel(
        name=name, kind="gemm", flops=2.0 * shape.tokens * inputs * outputs,
        bytes_read=float(read[0] * operand + read[1] * weight + w * buffer),
        bytes_written=float(written * (buffer or shape.elem)),
        m=m, n=n, k=k, batch=_groups(shape), dtype=recipe.dtype if recipe else shape.precision.compute, role=role,
        grouped=shape.local_experts > 0, scaling=recipe.scaling if recipe else "",
    )  # fmt: skip


def _cast(shape: Shape, name: str, elements: int, written: float, role: Role, *, strided: bool = False) -> Kernels:
    """One pass that reads 16 bits and writes ``written`` bytes an element, after one for the largest value.

    ``strided``: scales hold along columns, down which the largest values are sought before the cast.
    """
    dtype, read = shape.precision.compute, float(elements * shape.elem)
    if strided:
        return (memory_pass(name, 2 * read, elements * written, quality="strided", role=role, dtype=dtype),)
    cast = memory_pass(name, read, elements * written, fused=True, role=role, dtype=dtype)
    if shape.recipe and shape.recipe.amax:
        return (memory_pass(f"{name}.amax", read, FP32, fused=True, role=role, dtype=dtype), cast)
    return (cast,)
