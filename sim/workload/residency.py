"""What a rank holds all through the step: parameters, gradients, optimizer states, the framework itself.

Bytes by owner, on the GPU, in host memory and on drives. With mixed-precision Adam a parameter costs 2 + 2 + 12 bytes
(ZeRO paper, section 3.1: fp16 parameter, fp16 gradient, fp32 master, momentum, variance); ZeRO 1, 2, 3 divide 12, 2 and
2 of them by the ranks that shard.
"""

from __future__ import annotations

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload.host_step import STATE_BYTES, SUB_GROUP
from sim.workload.policy import sharded_master
from sim.workload.recipes import RECIPES
from sim.workload.shares import Held
from sim.workload.step_end import shard
from sim.workload.units import shape_of

MOMENTS = 8.0  # fp32 momentum and variance
MASTER = 4.0  # fp32 copy of a 16-bit parameter


def state_bytes(scenario: Scenario, held: Held) -> dict[str, float]:
    """Bytes of one rank's parameters, gradients and optimizer states, wherever they live."""
    precision = scenario.precision
    flat = sharded_master(scenario)  # whose gradients are of its type
    own = precision.master and not flat
    grad_bytes = DTYPE_BYTES["fp32" if flat else precision.grads]
    return {
        "parameters": shard(scenario, held, 3) * _param_bytes(scenario),
        "gradients": shard(scenario, held, 2) * grad_bytes,
        "optimizer states": shard(scenario, held, 1) * (MOMENTS + (MASTER if own else 0.0)),
    }


def _param_bytes(scenario: Scenario) -> float:
    return MASTER if sharded_master(scenario) else float(scenario.precision.param_bytes)


def on_gpu(scenario: Scenario, held: Held) -> tuple[tuple[str, float], ...]:
    """(owner, bytes) on the GPU before the step begins. Offloaded owners are absent, shares of them are there."""
    states, offload = state_bytes(scenario, held), scenario.offload
    here = 1.0 - (offload.ratio if offload.optimizer != "none" else 0.0)
    owned = {"parameters": _parameters(scenario, held)}
    if offload.gradients == "none" or offload.accumulate == "gpu":
        owned["gradients.shard" if scenario.layout.zero >= 2 else "gradients"] = states["gradients"]
    elif here:
        owned["gradients.shard"] = states["gradients"] * here
    if here:
        owned["optimizer states"] = states["optimizer states"] * here
    owned |= _buffers(scenario, held)
    if narrow := _narrow_copies(scenario, held):
        owned["parameters.narrow"] = narrow
    owned["framework"] = scenario.stack.context
    return tuple(owned.items())


def _buffers(scenario: Scenario, held: Held) -> dict[str, float]:
    """What the software keeps allocated beside the states: the reducer's buckets, inputs of regions, workspaces.

    PyTorch's DistributedDataParallel reduces gradients in buckets of the compute type that it allocates once; a stack
    that adds gradients up elsewhere (in fp32) holds both. Transformer Engine, whose products add to the buffer, returns
    to autograd a tensor of the weight's type and shape, one for all weights of a shape.
    """
    layout, batch, width = scenario.layout, scenario.batch, DTYPE_BYTES[scenario.precision.compute]
    found = {"workspace": scenario.stack.workspace}
    if scenario.stack.reducer_buckets and layout.dp * layout.cp > 1 and layout.zero < 2:
        found["gradients.buckets"] = float(held.params * width)
    if shape_of(scenario).placeholders:
        found["gradients.placeholders"] = float(sum(size for _, size in held.matrices) * width)
    if layout.tp > 1 and layout.sequence_parallel:
        whole = batch.micro * batch.sequence / layout.cp * scenario.model.hidden * width
        found["activations.gathered"] = scenario.stack.tp_buffers * whole
    return {owner: size for owner, size in found.items() if size}


def _narrow_copies(scenario: Scenario, held: Held) -> float:
    """Weights in the recipe's form along both directions, kept from one microbatch to the next beside the 16-bit ones.

    Where parameters are stored in that form, both copies of one byte take what the 16 bits took.
    """
    recipe, stack = scenario.precision.fp8, scenario.stack
    if recipe == "none" or stack.weight_casts == "each" or scenario.layout.zero == 3:
        return 0.0
    if stack.narrow_param_gather and recipe != "nvfp4":
        return 0.0
    return 2 * held.narrow * RECIPES[recipe].weight


def _parameters(scenario: Scenario, held: Held) -> float:
    """Bytes of parameters on the GPU: of the shard, or of the small tensors that stay gathered."""
    width = _param_bytes(scenario)
    if scenario.layout.zero < 3:
        return float(held.params * width)
    return (held.small + (0 if scenario.offload.parameters != "none" else shard(scenario, held, 3))) * width


def on_host(scenario: Scenario, held: Held) -> tuple[tuple[str, float], ...]:
    """(owner, bytes) of this rank in host memory: 14 bytes a parameter and the 2 of the copy being sent back.

    ZeRO-Offload paper, section 3.2: fp32 states and 16-bit gradients on the CPU; the pinned staging buffer is the
    fp16 copy. States on drives leave their sub-groups' buffers. A delayed update keeps the gradients of two steps.
    """
    offload = scenario.offload
    if offload.optimizer == "none":
        return ()
    share = shard(scenario, held) * offload.ratio
    states = state_bytes(scenario, held)["optimizer states"] * offload.ratio
    owned = {"optimizer states": states}
    if offload.optimizer == "nvme":
        group = min(share, offload.sub_group or SUB_GROUP)
        owned = {"optimizer states.buffers": min(states, offload.buffers * group * STATE_BYTES)}
    width = DTYPE_BYTES["fp32" if offload.casts == "gpu" else scenario.precision.grads]
    owned["gradients"] = share * width * (2 if offload.update == "delayed" else 1)
    if offload.parameters == "cpu":
        owned["parameters"] = state_bytes(scenario, held)["parameters"]
    elif offload.parameters == "none":
        owned["parameters.staging"] = share * scenario.precision.param_bytes
    return tuple(owned.items())


def on_drives(scenario: Scenario, held: Held) -> tuple[tuple[str, float], ...]:
    """(owner, bytes) of this rank on its node's drives."""
    states, owned = state_bytes(scenario, held), {}
    if scenario.offload.optimizer == "nvme":
        owned["optimizer states"] = states["optimizer states"] * scenario.offload.ratio
    if scenario.offload.parameters == "nvme":
        owned["parameters"] = states["parameters"]
    return tuple(owned.items())
