"""The memory that a program needs, found by walking it in issue order: no time, no simulation.

What ``stepline check`` shows. Ops take and give back as if each ended before the next began; the simulated peak differs
only where copies or collectives hold a buffer longer, or gathers run further ahead, than that.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.workload.ops import Block, RankProgram


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
    changes = [_changes(block, where) for block in program.blocks]
    for action in program.actions:
        for moment in changes[action.block]:
            for owner, size in moment:
                held[owner] = held.get(owner, 0.0) + size
                total += size
            if total > best:
                best, owners = total, dict(held)
    ranked = sorted(owners.items(), key=lambda item: (-item[1], item[0]))
    return Peak(size=best, by_owner={owner: size for owner, size in ranked if size > 0.5})


def _changes(block: Block, where: str) -> list[list[tuple[str, float]]]:
    """(Owner, bytes) of each moment at which anything changes there: the start of an op, or its end."""
    moments = (
        [(effect.owner, effect.size) for effect in op.memory if (effect.at, effect.where) == (at, where)]
        for op in block.ops
        for at in ("start", "end")
    )
    return [moment for moment in moments if moment]
