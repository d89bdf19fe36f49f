"""WHAT HAPPENED: spans as columns, and the static tables they point into. Knows nothing of anybody.

A timeline is written once by the engine and read by everyone after it. Times are seconds from the start of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

# Why a span was not ready earlier (``Spans.cause``).
CAUSE_NONE = 0  # began with the step
CAUSE_DEPENDENCY = 1  # an op it depends on ended
CAUSE_STREAM = 2  # the op before it in its stream ended
CAUSE_LAUNCH = 3  # the host had not launched it yet
CAUSE_NAMES = ("none", "dependency", "stream", "launch")


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes taken (+) or given back (-) when an op starts or ends. ``where`` is ``gpu``, ``host`` or ``nvme``."""

    owner: str
    size: float
    at_end: bool
    where: str


class OpRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a span is a span of. ``demands`` pairs (resource index, amount asked of it by one member).

    ``bound_by`` is the resource that sets the op's duration when it runs alone (-1: none, e.g. a latency);
    ``kind`` is the work: gemm, attention, elementwise, embedding, optimizer, all_reduce, ..., h2d, d2h, adam, none.
    ``size`` is bytes: of memory traffic for a kernel, of the whole buffer for a collective, of a copy.
    """

    name: str
    kind: str
    category: str
    phase: str
    rank_class: int
    stream: int
    layer: int
    flops: float
    size: float
    latency: float
    duration: float
    bound_by: int
    demands: tuple[tuple[int, float], ...]
    memory: tuple[MemoryRow, ...]
    group_size: int = 1  # ranks of the process group, for a collective
    kernels: int = 1  # how many launched kernels this stands for
    reach: float = 0.0  # of several kernels: seconds from the first launch to the earliest end of the last
    parts: tuple[tuple[int, float], ...] = ()  # of several kernels: (resource, share of their duration that it sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankClassRow:
    """``members`` ranks represented by the rank ``representative``, which sits on ``device`` (a name such as n0.gpu3).

    ``stage`` is their pipeline rank: the same for all of them.

    ``resident_gpu``, ``resident_host`` and ``resident_nvme`` are (owner, bytes) held before the step begins.
    """

    name: str
    members: int
    representative: int
    device: str
    resident_gpu: tuple[tuple[str, float], ...]
    resident_host: tuple[tuple[str, float], ...]
    resident_nvme: tuple[tuple[str, float], ...] = ()
    stage: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRow:
    """A resource: ``kind`` (sm, hbm, nvlink, pcie, dram, cores, nic, ...), capacity per second in ``unit``."""

    name: str
    kind: str
    capacity: float
    unit: str
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """One entry a span, in order of end time. All arrays have shape (spans,).

    ``ready``: dependencies, stream and launch were done; ``start``: the activity began (a collective waits for its
    peers, and ``peer`` is the span of the last one to come; -1: it waited for nobody). ``cause_span``: the span that
    made it ready, or that the host waited for before the launch (-1: none). ``ready <= start <= end``.
    """

    op: NDArray[np.int32]
    action: NDArray[np.int32]
    microbatch: NDArray[np.int32]
    launched: NDArray[np.float64]
    ready: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    cause: NDArray[np.int8]
    cause_span: NDArray[np.int64]
    peer: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Contended:
    """How long spans ran below full speed because a resource was full: columns of one entry a span and resource.

    Iterates as (span, resource, seconds).
    """

    span: NDArray[np.int64]
    resource: NDArray[np.int64]
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.span)

    def __iter__(self) -> Iterator[tuple[int, int, float]]:
        return zip(self.span.tolist(), self.resource.tolist(), self.seconds.tolist(), strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The recorded step.

    ``events`` and ``solves`` are the engine's own counts, equal on every machine.
    """

    spans: Spans
    contended: Contended
    ops: tuple[OpRow, ...]
    rank_classes: tuple[RankClassRow, ...]
    resources: tuple[ResourceRow, ...]
    stream_names: tuple[str, ...]
    makespan: float
    events: int
    solves: int
