"""The optimizer on the host: CPU Adam by pieces, states that come from and go to drives, parameters back to the GPU.

Owns what an update of so many parameters costs and in which order its pieces run. ZeRO-Offload (Ren et al. 2021)
updates all at once or tile by tile; ZeRO-Infinity (Rajbhandari et al. 2021, section 5) reads the states of a sub-group
from NVMe while the one before it is updated and the one before that is written. When an update may begin is decided by
whoever calls (``step_end``, ``grads``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload.block import COMPUTE, BlockBuilder
from sim.workload.kernels_shape import memory_pass
from sim.workload.ops import Copy, HostWork, Op, Phase

ADAM_BYTES = 28.0  # fp32 p, m, v, g read and p, m, v written (DeepSpeedCPUAdam)
ADAM_FLOPS = 14.0  # multiplications, additions, one square root and one division a parameter, counted in Adam's update
CAST_BYTES = 6.0  # fp32 parameters read, 16-bit ones written
UNSCALE_BYTES = 8.0  # fp32 gradients read and written
TILE = 128 * 2**20  # parameters a tile (DeepSpeed cpu_adam: TILE), when copy-back overlaps the update
STATE_BYTES = 12.0  # fp32 p, m, v, as drives hold them
SUB_GROUP = 1_000_000_000  # parameters (DeepSpeed: sub_group_size)
WRITES = "nvme write"  # the stream of writes: reads and writes are in flight together


class HostStep:
    """Updates on the host, written into a block. ``sync``: the training process itself works, and waits."""

    def __init__(self, block: BlockBuilder, scenario: Scenario, phase: Phase = "O", *, sync: bool = True) -> None:
        self.block = block
        self.scenario = scenario
        self.phase: Phase = phase
        self.sync = sync
        self.reads: list[int] = []
        self.writes: list[int] = []

    def unscale(self, params: float, deps: Sequence[int]) -> int:
        """Divide gradients by the loss scale and clip them: one pass over fp32 gradients."""
        work = HostWork(kind="stream", params=params, size=UNSCALE_BYTES * params, flops=params)
        return self._host("unscale and clip gradients", work, deps)

    def pieces(self, params: float) -> list[float]:
        """Parameters of each piece: a sub-group, a tile where parameters go back tile by tile, or all at once."""
        offload, usual = self.scenario.offload, {"after": 0, "tiled": TILE, "cast": SUB_GROUP}
        size = offload.sub_group or (SUB_GROUP if offload.optimizer == "nvme" else usual[self.scenario.stack.copy_back])
        count = max(1, math.ceil(params / size)) if size else 1
        return [params / count] * count

    def update(self, params: float, deps: Sequence[int], *, back: bool = True) -> int:
        """Adam over ``params`` by pieces; with ``back`` each one's parameters return. The last op to wait for."""
        pieces = self.pieces(params)
        drives = self.scenario.offload.optimizer == "nvme"
        done = -1
        for number, part in enumerate(pieces):
            name = f"{number + 1}/{len(pieces)}"
            if drives:
                self._read_ahead(pieces, number, deps)
            before = (self.reads[number],) if drives else tuple(deps)
            adam = HostWork(kind="adam", params=part, size=ADAM_BYTES * part, flops=ADAM_FLOPS * part)
            done = self._host(f"CPU Adam {name}", adam, before)
            if drives:
                self.writes.append(self._drive(f"states to drives {name}", "nvme_write", STATE_BYTES * part, (done,)))
            if back:
                done = self.back(part, (done,), name)
        return self.block.marker("states on the drives", self.phase, deps=(done, *self.writes)) if drives else done

    def back(self, params: float, deps: Sequence[int], name: str) -> int:
        """Updated parameters to where the next forward looks for them: the GPU, host memory (nothing to do), drives.

        A framework whose Adam does not write the 16-bit copy itself casts in a pass of its own.
        """
        scenario, where = self.scenario, self.scenario.offload.parameters
        size = params * scenario.precision.param_bytes
        if scenario.stack.copy_back == "cast" and scenario.precision.master and scenario.offload.casts == "host":
            work = HostWork(kind="stream", params=params, size=CAST_BYTES * params, flops=params)
            deps = (self._host(f"cast parameters {name}", work, deps),)
        if where == "cpu":
            return deps[-1]
        if where == "nvme":
            return self._drive(f"parameters to drives {name}", "nvme_write", size, deps)
        wide = scenario.offload.casts == "gpu"
        copy = Copy(
            direction="h2d", size=params * DTYPE_BYTES["fp32"] if wide else size, pinned=scenario.offload.pinned
        )
        done = self.block.side(f"parameters to GPU {name}", copy, "h2d", self.phase, "h2d", deps=deps)
        if not wide:
            return done
        cast = memory_pass("cast parameters", 4.0 * params, size, fused=True)
        return self.block.side(cast.name, cast, "h2d", self.phase, "h2d", deps=(done,))

    def _read_ahead(self, pieces: Sequence[float], number: int, deps: Sequence[int]) -> None:
        """Reads that fit the buffers: the piece that is ``buffers`` before must have been written."""
        buffers = self.scenario.offload.buffers
        while len(self.reads) < min(len(pieces), number + buffers):
            nth = len(self.reads)
            if nth >= buffers and len(self.writes) <= nth - buffers:
                return
            free = (self.writes[nth - buffers],) if nth >= buffers else ()
            name = f"states from drives {nth + 1}/{len(pieces)}"
            self.reads.append(self._drive(name, "nvme_read", STATE_BYTES * pieces[nth], (*deps, *free)))

    def _drive(self, name: str, direction: str, size: float, deps: Sequence[int]) -> int:
        read = direction == "nvme_read"
        copy = Copy(direction="nvme_read" if read else "nvme_write", size=size)
        return self.block.side(name, copy, "nvme" if read else WRITES, self.phase, "nvme", deps=deps)

    def _host(self, name: str, work: HostWork, deps: Sequence[int]) -> int:
        return self.block.add(
            Op(
                name=name,
                work=work,
                stream="cpu",
                phase=self.phase,
                category="cpu_adam",
                deps=tuple(deps),
                sync=self.sync,
            )
        )


def last_compute(block: BlockBuilder) -> tuple[int, ...]:
    """The last op of the block's compute stream so far."""
    return tuple([i for i, op in enumerate(block.ops) if op.stream == COMPUTE][-1:])
