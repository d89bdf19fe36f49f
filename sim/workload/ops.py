"""The program of a rank: ops, blocks, and the work each op stands for.

Owns the vocabulary in which the workload room says WHAT must happen. Knows sizes in bytes and FLOP and the
order of things; never a bandwidth, a latency or a device.

A rank's program is a sequence of *actions* (a block and the microbatch it is for). A *block* is a template, a tuple
of ops issued by the host in that order; it is written once and repeated for every microbatch. Inside a rank,
streams are in order, as CUDA streams are; an op also waits for ``deps`` (earlier ops of its block, by index) and for
``waits`` (names that an earlier op of this rank gave in ``signals``: the most recent one counts, as with CUDA events).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Phase = Literal["F", "B", "I", "W", "R", "O"]
"""Forward, backward, input gradient, weight gradient, recompute, optimizer."""

KernelKind = Literal["gemm", "attention", "elementwise", "embedding", "optimizer"]
Quality = Literal["fused", "naive", "strided", "rearranged"]


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU kernel, device-free: FLOPs, and bytes read from and written to memory.

    A ``gemm`` has ``batch`` products of (m x k)(k x n); ``role`` tells a weight gradient from the rest, ``scaling`` is
    ``rows`` where narrow operands have a scale a row. A ``grouped`` one is a single launch of ``batch`` products with
    different numbers of rows (experts): ``m`` is their mean (``k`` of a weight gradient), and ``flops`` counts all.
    ``pieces``: a product cut by rows, so that an exchange of its operand or result runs piece by piece beside it. An
    ``attention`` kernel is fused (flash) attention of ``n`` queries over ``m`` keys, of which each sees the last
    ``window`` (0: all), ``k`` = head_dim, ``batch`` = sequences x heads. Everything else is bound by memory:
    ``quality`` says whether it was written as one fused pass or as a chain of naive element-wise passes, of which this
    is one; ``strided``: it goes down the columns of what lies in rows, or along a long row in one block, which no
    vectorisation helps; ``rearranged``: it only puts rows or slices of rows elsewhere (tokens in the order of experts,
    the parts of heads beside each other).
    """

    name: str
    kind: KernelKind
    flops: float
    bytes_read: float
    bytes_written: float
    m: int = 0
    n: int = 0
    k: int = 0
    batch: int = 1
    dtype: str = "fp32"
    role: Literal["forward", "input_grad", "weight_grad"] = "forward"
    causal: bool = False
    window: int = 0
    quality: Quality = "fused"
    grouped: bool = False
    pieces: int = 1
    scaling: str = ""


class Collective(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange over the ranks of one process group.

    ``size`` in bytes: of all_reduce, all_gather, reduce_scatter and broadcast the WHOLE buffer (n times the shard); of
    send_recv (first member to second) and ring_step (every member to the next) one rank's message; of all_to_all one
    rank's whole send buffer, of which it keeps 1/n. ``overlap``: inside a block's chain of work it runs beside the
    ``next`` kernel or the ``previous`` one instead of between them. ``copies``: the rows of an all_to_all are so many
    copies of each token; one goes to a node and is passed on there, to ``most_nodes`` nodes at most (0: any number).
    """

    kind: Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast", "send_recv", "ring_step", "all_to_all"]
    axis: str
    size: float
    overlap: Literal["none", "next", "previous"] = "none"
    copies: int = 0
    most_nodes: int = 0


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes between a GPU and its host's memory, or between that and the drives."""

    direction: Literal["h2d", "d2h", "nvme_read", "nvme_write"]
    size: float
    pinned: bool = True


class HostWork(msgspec.Struct, frozen=True, kw_only=True):
    """Work of the CPU cores on DRAM: ``adam`` (28 bytes a parameter) or ``stream`` (scale, copy: ``size`` bytes)."""

    kind: Literal["adam", "stream"]
    params: float
    size: float  # bytes of DRAM traffic
    flops: float = 0.0


Place = Literal["gpu", "host", "nvme"]
Work = Kernel | Collective | Copy | HostWork


class MemoryEffect(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that an op takes (positive) or gives back (negative), by owner, when it starts or when it ends."""

    owner: str
    size: float
    at: Literal["start", "end"]
    where: Place = "gpu"


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a rank does. ``category`` is its line in the breakdown; ``sync``: the host waits until it has ended."""

    name: str
    work: Work | None
    stream: str
    phase: Phase
    category: str
    deps: tuple[int, ...] = ()
    waits: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    sync: bool = False
    memory: tuple[MemoryEffect, ...] = ()
    layer: int = -1


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A template of ops, issued in order."""

    name: str
    ops: tuple[Op, ...]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a block: ``block`` is its index in the program's blocks."""

    block: int
    microbatch: int


class RankProgram(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank does in a step, and what it holds before the step begins (owner -> bytes)."""

    name: str
    blocks: tuple[Block, ...]
    actions: tuple[Action, ...]
    resident_gpu: tuple[tuple[str, float], ...]
    resident_host: tuple[tuple[str, float], ...]
    resident_nvme: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The whole step: distinct programs, the program of each rank (ranks,), the process groups of each axis.

    ``groups[axis]`` (groups, members) lists the members of every group of that axis, in ring order. ``model_flops`` and
    ``hardware_flops`` count one step over all ranks, without and with recompute; ``tokens`` the tokens of a step.
    """

    programs: tuple[RankProgram, ...]
    program_of_rank: NDArray[np.int64]
    groups: dict[str, NDArray[np.int64]]
    tokens: int
    model_flops: float
    hardware_flops: float
