"""The end of a step: norm and overflow check, the optimizer on the GPU or the CPU, parameters back in place.

Owns the optimizer block. ZeRO-Offload's order (ZeRO-Offload paper, section 4; DeepSpeed's ``step``): all gradients
are on the host, their norm is known, the CPU unscales and clips them, CPU Adam runs on DRAM and cores, the 16-bit
parameters return over the link, ranks gather each other's part.
"""

from __future__ import annotations

import math

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload import grads, kernels
from sim.workload.block import COMPUTE, BlockBuilder
from sim.workload.ops import Block, Collective, Copy, HostWork, Op
from sim.workload.shares import Held

ADAM_BYTES = 28.0  # fp32 p, m, v, g read and p, m, v written (DeepSpeedCPUAdam)
ADAM_FLOPS = 14.0  # multiplications, additions, one square root and one division a parameter, counted in Adam's update
UNSCALE_BYTES = 8.0  # fp32 gradients read and written
TILE = 128 * 2**20  # parameters a tile (DeepSpeed cpu_adam: TILE), when copy-back overlaps the update


def shard(scenario: Scenario, held: Held, stage: int = 1) -> int:
    """Parameters of the rank's part once ZeRO ``stage`` shards what it holds (all of them below that stage)."""
    if scenario.layout.zero < stage:
        return held.params
    return sum(math.ceil(policy.params(held) / policy.ranks) for policy in grads.policies_for(scenario))


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
    _norm(block, scenario, share)
    after = (
        _cpu_step(block, scenario, share) if scenario.offload.optimizer == "cpu" else _gpu_step(block, scenario, share)
    )
    if 1 <= scenario.layout.zero < 3:
        _gather_parameters(block, scenario, held, after)
    return block.block()


def _wait_for_gradients(block: BlockBuilder, scenario: Scenario, held: Held) -> None:
    """A stage may hold none of one part: its first layers may all be dense."""
    policies = [policy for policy in grads.policies_for(scenario) if policy.params(held)]
    waits = [grads.REDUCED] if any(policy.kind for policy in policies) else []
    waits += [grads.ON_HOST] if any(policy.offload for policy in policies) else []
    block.marker("gradients complete", "O", waits=waits)


def _norm(block: BlockBuilder, scenario: Scenario, share: int) -> None:
    """Gradient norm and overflow check: the host reads the result, so it waits for it.

    The sum of squares is one number over all ranks that hold different parts: over the axes that shard (Megatron's
    and FSDP's ``clip_grad_norm``), one small all-reduce each.
    """
    precision, layout = scenario.precision, scenario.layout
    if scenario.offload.optimizer == "none":
        _, last = block.kernels(kernels.grad_norm(share, DTYPE_BYTES[precision.grads]), "O")
    else:  # norms of the parts were taken on the GPU before each left it: only their sum is formed here
        last = block.marker("sum of norms", "O")
    axes = [
        *((p.axis, "dp", layout.zero >= 1 and p.ranks > 1) for p in grads.policies_for(scenario)),
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


def _gpu_step(block: BlockBuilder, scenario: Scenario, share: int) -> int:
    clip = kernels.grad_clip(share, DTYPE_BYTES[scenario.precision.grads])
    block.kernels(clip, "O")
    _, last = block.kernels(kernels.optimizer_step(share, scenario.precision, scenario.stack), "O")
    return last


def _cpu_step(block: BlockBuilder, scenario: Scenario, share: int) -> int:
    """Unscale, CPU Adam, copy back: one after the other, or Adam and copy tile by tile."""
    unscale = HostWork(kind="stream", params=float(share), size=UNSCALE_BYTES * share, flops=float(share))
    _host(block, "unscale and clip gradients", unscale)
    tiled = scenario.stack.copy_back == "tiled"
    tiles = max(1, math.ceil(share / TILE)) if tiled else 1
    part = share / tiles
    copies = []
    for tile in range(tiles):
        adam = HostWork(kind="adam", params=part, size=ADAM_BYTES * part, flops=ADAM_FLOPS * part)
        done = _host(block, f"CPU Adam {tile + 1}/{tiles}", adam)
        size = part * scenario.precision.param_bytes
        copy = Copy(direction="h2d", size=size, pinned=scenario.offload.pinned)
        copies.append(block.side(f"parameters to GPU {tile + 1}/{tiles}", copy, "h2d", "O", "h2d", deps=(done,)))
    return block.marker("parameters updated", "O", deps=(copies[-1],))


def _host(block: BlockBuilder, name: str, work: HostWork) -> int:
    """Work that the training process does itself: its host thread issues nothing meanwhile."""
    return block.add(
        Op(name=name, work=work, stream="cpu", phase="O", category="cpu_adam", deps=_last_compute(block), sync=True)
    )


def _last_compute(block: BlockBuilder) -> tuple[int, ...]:
    return tuple([i for i, op in enumerate(block.ops) if op.stream == COMPUTE][-1:])


def _gather_parameters(block: BlockBuilder, scenario: Scenario, held: Held, after: int) -> None:
    """ZeRO 1 and 2: every rank gathers the parameters that the others updated, bucket by bucket."""
    begin = len(block.ops)
    for policy in grads.policies_for(scenario):
        total = float(policy.params(held) * scenario.precision.param_bytes) if policy.ranks > 1 else 0.0
        buckets = math.ceil(total / scenario.layout.gather_bucket)
        what = "experts" if policy.experts else "parameters"
        for number in range(buckets):
            work = Collective(kind="all_gather", axis=policy.axis, size=total / buckets)
            name = f"all-gather {what} {number + 1}/{buckets}"
            after = block.side(name, work, "gather", "O", "param_gather", deps=(after,))
    if len(block.ops) > begin:
        block.marker("parameters gathered", "O", deps=(after,))
