"""What a rank holds all through the step: parameters, gradients, optimizer states, the framework itself.

Bytes by owner, on the GPU and in host memory. With mixed-precision Adam a parameter costs 2 + 2 + 12 bytes (ZeRO
paper, section 3.1: fp16 parameter, fp16 gradient, fp32 master, momentum, variance); ZeRO 1, 2, 3 divide 12, 2 and 2 of
them by the ranks that shard.
"""

from __future__ import annotations

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload.shares import Held
from sim.workload.step_end import shard

MOMENTS = 8.0  # fp32 momentum and variance
MASTER = 4.0  # fp32 copy of a 16-bit parameter


def state_bytes(scenario: Scenario, held: Held) -> dict[str, float]:
    """Bytes of one rank's parameters, gradients and optimizer states, wherever they live."""
    precision = scenario.precision
    return {
        "parameters": shard(scenario, held, 3) * precision.param_bytes,
        "gradients": shard(scenario, held, 2) * DTYPE_BYTES[precision.grads],
        "optimizer states": shard(scenario, held, 1) * (MOMENTS + (MASTER if precision.master else 0.0)),
    }


def on_gpu(scenario: Scenario, held: Held) -> tuple[tuple[str, float], ...]:
    """(owner, bytes) on the GPU before the step begins. Offloaded owners are absent."""
    states = state_bytes(scenario, held)
    owned = {"parameters": states["parameters"]}
    if scenario.offload.gradients == "none":
        owned["gradients.shard" if scenario.layout.zero >= 2 else "gradients"] = states["gradients"]
    if scenario.offload.optimizer == "none":
        owned["optimizer states"] = states["optimizer states"]
    owned["framework"] = scenario.stack.context
    return tuple(owned.items())


def on_host(scenario: Scenario, held: Held) -> tuple[tuple[str, float], ...]:
    """(owner, bytes) of this rank in host memory: 14 bytes a parameter and the 2 of the copy being sent back.

    ZeRO-Offload paper, section 3.2: fp32 states and 16-bit gradients on the CPU; the pinned staging buffer is the
    fp16 copy.
    """
    if scenario.offload.optimizer == "none":
        return ()
    share = shard(scenario, held)
    return (
        ("optimizer states", state_bytes(scenario, held)["optimizer states"]),
        ("gradients", share * DTYPE_BYTES[scenario.precision.grads]),
        ("parameters.staging", share * scenario.precision.param_bytes),
    )
