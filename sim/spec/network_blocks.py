"""The door of what lies between nodes: adapters, faults, switches and grids, and how exchanges use them.

Part of ``blocks``, by the same rules.
"""

from __future__ import annotations

from typing import Literal

from sim.spec.block import Block
from sim.spec.block import defaults as _or
from sim.spec.block import listed as _listed
from sim.spec.block import says as _says
from sim.spec.quantities import (
    BytesPerS,
    Count,
    CountOrAll,
    CountOrZero,
    Fraction,
    Oversubscription,
    SecondsOrZero,
    Speed,
)


class NicFile(Block):
    """Network adapters of a node."""

    count: Count = _says("adapters of a node")
    bandwidth: BytesPerS = _says("one direction of one adapter")
    efficiency: Fraction = _says("what collectives sustain of it")
    step_latency: SecondsOrZero = _says("one hop of a ring between nodes, Simple protocol")
    tree_latency: SecondsOrZero = _or(0.0, "one hop of a tree between nodes, Simple protocol; 0: step_latency")
    fill: SecondsOrZero = _or(0.0, "cost of a chunk in a pipeline between nodes, at a hop")
    all_to_all: Fraction = _or(1.0, "part of the sustained rate that an all-to-all keeps")
    through: Fraction = _or(1.0, "part of the sustained rate that rings and trees keep which pass several of its GPUs")


class VariationFile(Block):
    """One part of one node that is slower than the others, or missing."""

    node: CountOrAll = _says("node, counted from 0, or all; of an uplink: leaf, of a core: pod")
    part: Literal["gpu", "hbm", "nvlink", "pcie", "nic", "dram", "cores", "links", "uplink", "core"] = _says(
        "what is slower"
    )
    index: CountOrZero = _says("GPU, adapter or socket of the node, rail of the leaf, counted from 0")
    speed: Speed = _says("fraction of the usual rate; 0: the part is missing (nvlink and nic)")


class DimensionFile(Block):
    """One dimension of a grid of nodes; every GPU has links of its own in it."""

    kind: Literal["ring", "switch", "full"] = _says("links to both neighbours; a port; a link to every other one")
    size: Count = _says("coordinates")
    bandwidth: BytesPerS = _says("one direction of one link")
    latency: SecondsOrZero = _says("one hop of a collective, Simple protocol")


class FabricFile(Block):
    """Switches between nodes: leaves under a spine; or a grid of nodes."""

    nodes_per_leaf: CountOrZero = _or(0, "neighbouring nodes on a leaf; none in a grid")
    oversubscription: Oversubscription = _or(1.0, "what a leaf's adapters carry over what its uplinks do")
    rails: bool = _or(False, "adapter k of each node is on a leaf of its own (rail-optimised)")
    reduction: bool = _or(False, "switches add what passes (SHARP)")
    leaves_per_pod: CountOrZero = _or(0, "neighbouring leaves with a spine of their own; 0: one spine joins all")
    core_oversubscription: Oversubscription = _or(1.0, "what uplinks of a pod's leaves carry over what its own do")
    dimensions: tuple[DimensionFile, ...] | None = _listed("a grid, such as a torus of rings; first one varies fastest")


AllReduce = Literal[
    "auto", "ring", "tree", "direct", "halving_doubling", "hierarchical", "nvls", "nvls_tree", "sharp",
]  # fmt: skip
Gathering = Literal["auto", "ring", "direct", "halving_doubling", "hierarchical", "pat"]
Exchanging = Literal["auto", "direct", "ring", "hierarchical"]


class CollectivesFile(Block):
    """Which algorithm and protocol exchanges use; auto: the fastest that NCCL would consider."""

    all_reduce: AllReduce = _or("auto", "algorithm of all-reduces")
    all_gather: Gathering = _or("auto", "algorithm of all-gathers")
    reduce_scatter: Gathering = _or("auto", "algorithm of reduce-scatters")
    all_to_all: Exchanging = _or("auto", "algorithm of all-to-alls; auto: direct, in a grid also hierarchical")
    protocol: Literal["auto", "simple", "ll128", "ll"] = _or("auto", "how data and flags travel (NCCL's protocols)")
    copy_engines: bool = _or(False, "all-gathers and all-to-alls inside a node take no SMs: copy engines move them")
