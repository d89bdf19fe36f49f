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

ADAM_BYTES = 28.0  # fp32 p, m, v, g read and p, m, v written (DeepSpeedCPUAdam)
ADAM_FLOPS = 14.0  # multiplications, additions, one square root and one division a parameter, counted in Adam's update
UNSCALE_BYTES = 8.0  # fp32 gradients read and written
TILE = 128 * 2**20  # parameters a tile (DeepSpeed cpu_adam: TILE), when copy-back overlaps the update


def optimizer_block(scenario: Scenario, params: int) -> Block:
    """The block that ends a step, for a rank that updates ``params`` / dp parameters (all of them without ZeRO)."""
    block = BlockBuilder("optimizer")
    sharded = scenario.layout.zero >= 1
    share = math.ceil(params / scenario.layout.dp) if sharded else params
    _wait_for_gradients(block, scenario)
    _norm(block, scenario, share, sharded=sharded)
    after = (
        _cpu_step(block, scenario, share) if scenario.offload.optimizer == "cpu" else _gpu_step(block, scenario, share)
    )
    if sharded and scenario.layout.dp > 1 and scenario.layout.zero < 3:
        _gather_parameters(block, scenario, params, after)
    return block.block()


def _wait_for_gradients(block: BlockBuilder, scenario: Scenario) -> None:
    policy = grads.policy_for(scenario)
    waits = [grads.REDUCED] if policy.kind else []
    waits += [grads.ON_HOST] if policy.offload else []
    block.marker("gradients complete", "O", waits=waits)


def _norm(block: BlockBuilder, scenario: Scenario, share: int, *, sharded: bool) -> None:
    """Gradient norm and overflow check: the host reads the result, so it waits for it."""
    precision = scenario.precision
    if scenario.offload.optimizer == "none":
        _, last = block.kernels(kernels.grad_norm(share, DTYPE_BYTES[precision.grads]), "O")
    else:  # norms of the parts were taken on the GPU before each left it: only their sum is formed here
        last = block.marker("sum of norms", "O")
    if sharded and scenario.layout.dp > 1:
        work = Collective(kind="all_reduce", axis="dp", size=4.0)
        last = block.side("all-reduce norm", work, "dp", "O", "dp", deps=(last,))
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


def _gather_parameters(block: BlockBuilder, scenario: Scenario, params: int, after: int) -> None:
    """ZeRO 1 and 2: every rank gathers the parameters that the others updated, bucket by bucket."""
    total = float(params * scenario.precision.param_bytes)
    buckets = max(1, math.ceil(total / scenario.layout.gather_bucket))
    for number in range(buckets):
        work = Collective(kind="all_gather", axis="dp", size=total / buckets)
        name = f"all-gather parameters {number + 1}/{buckets}"
        after = block.side(name, work, "gather", "O", "param_gather", deps=(after,))
    block.marker("parameters gathered", "O", deps=(after,))
