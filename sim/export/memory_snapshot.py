"""GPU memory as a snapshot of PyTorch's allocator, for ``python -m torch.cuda._memory_viz`` and pytorch.org/memory_viz.

Owns the turning of owners' bytes over time into blocks that are allocated and freed. The format is a pickle, which is
written here and read nowhere: ``{"segments": [], "device_traces": [[event, ...], ...]}``, a device a rank; an event is
``alloc``, ``free_requested`` or ``free_completed`` with address, size, stream, time in microseconds and frames. A frame
has the op that did it and the owner. What an owner gives back is taken from its oldest blocks; a block that is given
back in part is freed, and what is left of it allocated again.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sim.export.ranks import Lives
from sim.timeline.columns import OpRow, Timeline

PROTOCOL = 4
Event = dict[str, Any]
Change = tuple[float, int, str, int, str, int]
"""When (s), 0 for what ends before 1 for what begins, owner, bytes (+ or -), op, layer."""


def write_snapshot(timeline: Timeline, lives: Lives, out: Path) -> Path:
    """Write ``memory.pickle``: the GPU memory of each rank as a device of its own."""
    traces = {number: device_trace(timeline, number, spans) for number, spans in lives.spans.items()}
    snapshot = {"segments": [], "device_traces": [traces[lives.class_of[rank]] for rank in lives.ranks]}
    path = out / "memory.pickle"
    path.write_bytes(pickle.dumps(snapshot, protocol=PROTOCOL))
    return path


def device_trace(timeline: Timeline, number: int, spans: np.typing.NDArray[np.int64]) -> list[Event]:
    """Allocations and frees of one rank class on its GPU, in order of time."""
    blocks = _Blocks()
    for owner, size in timeline.rank_classes[number].resident_gpu:
        blocks.take(0.0, owner, round(size), "held before the step", -1)
    for time, _, owner, size, op, layer in sorted(_changes(timeline, spans), key=lambda row: row[:2]):
        if size > 0:
            blocks.take(time, owner, size, op, layer)
        else:
            blocks.give(time, owner, -size, op, layer)
    return blocks.events


def _changes(timeline: Timeline, chosen: np.typing.NDArray[np.int64]) -> Iterator[Change]:
    spans = timeline.spans
    moving = np.array([any(effect.where == "gpu" for effect in op.memory) for op in timeline.ops], dtype=bool)
    for span in chosen[moving[spans.op[chosen]]].tolist():
        op: OpRow = timeline.ops[int(spans.op[span])]
        for effect in op.memory:
            if effect.where == "gpu" and round(effect.size):
                time = float(spans.end[span] if effect.at_end else spans.start[span])
                yield time, int(effect.size > 0), effect.owner, round(effect.size), op.name, op.layer


class _Blocks:
    """What is allocated, by owner, oldest first. Addresses only grow: no two blocks ever had the same one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.held: dict[str, deque[tuple[int, int]]] = {}
        self.next = 1 << 20

    def take(self, time: float, owner: str, size: int, op: str, layer: int) -> None:
        self._event("alloc", time, self.next, size, self._frames(owner, op, layer))
        self.held.setdefault(owner, deque()).append((self.next, size))
        self.next += size

    def give(self, time: float, owner: str, size: int, op: str, layer: int) -> None:
        blocks = self.held.get(owner, deque())
        while size > 0 and blocks:
            address, held = blocks.popleft()
            frames = self._frames(owner, op, layer)
            self._event("free_requested", time, address, held, frames)
            self._event("free_completed", time, address, held, frames)
            if held > size:
                self._event("alloc", time, self.next, held - size, frames)
                blocks.appendleft((self.next, held - size))
                self.next += held - size
            size -= min(held, size)

    def _event(self, action: str, time: float, address: int, size: int, frames: list[Event]) -> None:
        self.events.append(
            {
                "action": action,
                "addr": address,
                "size": size,
                "stream": 0,
                "time_us": round(time * 1e6),
                "frames": frames,
            }
        )

    @staticmethod
    def _frames(owner: str, op: str, layer: int) -> list[Event]:
        where = f"layer {layer}" if layer >= 0 else "step"
        return [
            {"filename": owner, "line": 0, "name": op},
            {"filename": owner, "line": 0, "name": where},
        ]
