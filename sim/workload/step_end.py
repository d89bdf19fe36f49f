"""The end of a step: norm and overflow check, the optimizer on the GPU or the CPU, parameters back in place.

Owns the optimizer block. ZeRO-Offload's order (ZeRO-Offload paper, section 4; DeepSpeed's ``step``): all gradients
are on the host, their norm is known, the CPU unscales and clips them, CPU Adam runs on DRAM and cores, the 16-bit
parameters return over the link, ranks gather each other's part.
"""

from __future__ import annotations

import math

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload import grads, kernels
from sim.workload.block import BlockBuilder
from sim.workload.host_step import HostStep, last_compute
from sim.workload.ops import Block, Collective
from sim.workload.policy import policies_for
from sim.workload.shares import Held


def shard(scenario: Scenario, held: Held, stage: int = 1) -> int:
    """Parameters of the rank's part once ZeRO ``stage`` shards what it holds (all of them below that stage)."""
    if scenario.layout.zero < stage:
        return held.params
    return sum(math.ceil(policy.params(held) / policy.ranks) for policy in policies_for(scenario))


def optimizer_block(scenario: Scenario, held: Held, *, shared_embedding: float = 0.0) -> Block:
    """The block that ends a step, for a rank that holds these parameters and updates its shard.

    ``shared_embedding``: bytes of the tied embedding's gradient that first and last stage exchange first.
    """
    block = BlockBuilder("optimizer")
    share = shard(scenario, held)
    _wait_for_gradients(block, scenario, held)
    if shared_embedding:
        work = Collective(kind="all_reduce", axis="embedding", size=shared_embedding)
        tied = block.side("all-reduce tied embedding", work, "pp", "O", "pp", deps=(len(block.ops) - 1,))
        block.marker("tied embedding summed", "O", deps=(tied,))
    tensors = _tensors(scenario, held)
    _norm(block, scenario, share, tensors if scenario.stack.tensorwise_step else 1)
    on_host = scenario.offload.optimizer != "none"
    after = _host_step(block, scenario, share) if on_host else _gpu_step(block, scenario, share, tensors)
    if 1 <= scenario.layout.zero < 3 and not scenario.layout.overlap_param_gather:
        _gather_parameters(block, scenario, held, after)
    if scenario.precision.fp8 != "none" and scenario.stack.weight_casts == "once":
        block.kernels(kernels.cast_weights(held.narrow, scenario.precision, scenario.stack), "O")
    return block.block()


def _wait_for_gradients(block: BlockBuilder, scenario: Scenario, held: Held) -> None:
    """A stage may hold none of one part: its first layers may all be dense."""
    policies = [policy for policy in policies_for(scenario) if policy.params(held)]
    waits = [grads.REDUCED] if any(policy.kind for policy in policies) else []
    if scenario.offload.update != "speculative":  # which checks later what has arrived
        waits += [grads.ON_HOST] if any(policy.offload != "none" for policy in policies) else []
    block.marker("gradients complete", "O", waits=waits)


def _norm(block: BlockBuilder, scenario: Scenario, share: int, tensors: int) -> None:
    """Gradient norm and overflow check, in one kernel or one for each tensor: the host reads the result, so it waits.

    The sum of squares is one number over all ranks that hold different parts: over the axes that shard (Megatron's
    and FSDP's ``clip_grad_norm``), one small all-reduce each.
    """
    precision, layout = scenario.precision, scenario.layout
    mine = share - _host_share(scenario, share)
    if mine:
        _, last = block.kernels(kernels.grad_norm(mine, DTYPE_BYTES[precision.grads], tensors), "O")
    else:  # norms of the parts were taken on the GPU before each left it: only their sum is formed here
        last = block.marker("sum of norms", "O")
    axes = [
        *((p.axis, "dp", layout.zero >= 1 and p.ranks > 1) for p in policies_for(scenario)),
        ("tp", "tp", layout.tp > 1),
        ("ep", "ep", layout.ep > 1),
        ("pp", "pp", layout.pp > 1),
    ]
    for axis, category, several in axes:
        if several:
            work = Collective(kind="all_reduce", axis=axis, size=4.0)
            last = block.side(f"all-reduce norm {axis}", work, category, "O", category, deps=(last,))
    last = block.marker("read norm", "O", deps=(last,))
    block.edit(last, sync=True)


def _tensors(scenario: Scenario, held: Held) -> int:
    """Tensors that are walked one by one: all, or of flat shards (FSDP) one in so many as there are ranks."""
    stack = scenario.stack
    if stack.fused_optimizer and not stack.tensorwise_step:
        return 1
    flat = stack.zero3_copies == "flat" and scenario.layout.zero == 3
    ranks = max(policy.ranks for policy in policies_for(scenario)) if flat else 1
    return max(1, math.ceil(held.tensors / ranks))  # a stage may hold nothing


def _gpu_step(block: BlockBuilder, scenario: Scenario, share: float, tensors: int = 1) -> int:
    tensorwise = tensors if scenario.stack.tensorwise_step else 1
    clip = kernels.grad_clip(share, DTYPE_BYTES[scenario.precision.grads], tensorwise)
    block.kernels(clip, "O")
    _, last = block.kernels(kernels.optimizer_step(share, scenario.precision, scenario.stack, tensors), "O")
    if scenario.stack.tensorwise_step:
        _, last = block.kernels(kernels.copy_and_zero(share, scenario.precision, tensors), "O")
    elif scenario.stack.keeps_grads:
        _, last = block.kernels(kernels.zero_grad(share, DTYPE_BYTES[scenario.precision.grads]), "O")
    return last


def _host_share(scenario: Scenario, share: int) -> float:
    """Parameters of a shard that the host updates."""
    return 0.0 if scenario.offload.optimizer == "none" else share * scenario.offload.ratio


def _host_step(block: BlockBuilder, scenario: Scenario, share: int) -> int:
    """What of the host's update stands between two steps, beside the GPU's own part: all of it, or what comes late.

    After: unscale, Adam, copies back. Delayed: the update ran under this step (``delayed_block``); its parameters go
    back now, for backward needed the old ones. Speculative: the last buckets.
    """
    update, mine = scenario.offload.update, _host_share(scenario, share)
    if mine < share:
        _gpu_step(block, scenario, share - mine)
    if update == "speculative":
        return block.marker("parameters updated", "O", waits=(grads.UPDATED,))
    host = HostStep(block, scenario)
    if update == "delayed":
        ready = block.marker("delayed update ended", "O", waits=(grads.UPDATED,))
        done = host.back(mine, (ready,), "1/1")
    else:
        unscaled = host.unscale(mine, last_compute(block))
        done = host.update(mine, (unscaled,))
    return block.marker("parameters updated", "O", deps=(done,))


def delayed_block(scenario: Scenario, held: Held) -> Block:
    """One-step delayed parameter update (ZeRO-Offload, section 5.2): the last step's gradients, under this step.

    A process of its own works on the CPU; nothing in this step waits for it before the parameters go back.
    """
    block = BlockBuilder("delayed update")
    host = HostStep(block, scenario, sync=False)
    mine = _host_share(scenario, shard(scenario, held))
    done = host.update(mine, (host.unscale(mine, ()),), back=False)
    block.edit(done, signals=(grads.UPDATED,))
    return block.block()


def _gather_parameters(block: BlockBuilder, scenario: Scenario, held: Held, after: int) -> None:
    """ZeRO 1 and 2: every rank gathers the parameters that the others updated, bucket by bucket."""
    begin = len(block.ops)
    for policy in policies_for(scenario):
        total = policy.gathered(held, scenario) if policy.ranks > 1 else 0.0
        buckets = math.ceil(total / scenario.layout.gather_bucket)
        what = "experts" if policy.experts else "parameters"
        for number in range(buckets):
            work = Collective(kind="all_gather", axis=policy.axis, size=total / buckets)
            name = f"all-gather {what} {number + 1}/{buckets}"
            after = block.side(name, work, "gather", "O", "param_gather", deps=(after,))
    if len(block.ops) > begin:
        if scenario.stack.flat_gather:
            _flat_buffer(block, scenario, held, (begin, after))
        block.marker("parameters gathered", "O", deps=(after,))


def _flat_buffer(block: BlockBuilder, scenario: Scenario, held: Held, ends: tuple[int, int]) -> None:
    """Collectives over lists of tensors go through a flat copy: of all parameters, and of this rank's part of them."""
    first, last = ends
    size = float((held.params + shard(scenario, held)) * scenario.precision.param_bytes)
    block.takes(first, "parameters.flat", size)
    block.frees(last, "parameters.flat", size)
