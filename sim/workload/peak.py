"""The memory that a program needs, found by walking it in issue order: no time, no simulation.

What ``stepline check`` shows. Ops take and give back as if each ended before the next began; the simulated peak differs
only where copies or collectives hold a buffer longer, or gathers run further ahead, than that.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.workload.ops import RankProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Largest sum of bytes in one place, and who held it then, largest first."""

    size: float
    by_owner: dict[str, float]


def peak(program: RankProgram, where: str) -> Peak:
    """Peak of ``where`` (gpu, host, nvme) over the whole step."""
    resident = {"gpu": program.resident_gpu, "host": program.resident_host, "nvme": program.resident_nvme}
    held = dict(resident[where])
    total = sum(held.values())
    best, owners = total, dict(held)
    for action in program.actions:
        for op in program.blocks[action.block].ops:
            for at in ("start", "end"):
                for effect in op.memory:
                    if effect.at == at and effect.where == where:
                        held[effect.owner] = held.get(effect.owner, 0.0) + effect.size
                        total += effect.size
                if total > best:
                    best, owners = total, dict(held)
    ranked = sorted(owners.items(), key=lambda item: (-item[1], item[0]))
    return Peak(size=best, by_owner={owner: size for owner, size in ranked if size > 0.5})
