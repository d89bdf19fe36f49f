"""What lies between nodes, as the simulator sees it: adapters, switches, grids, faults, and how they are used.

Part of ``types``, through which other rooms read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class NicSpec:
    """Network adapters of a node: ``count`` of ``bandwidth`` bytes/s each way; ``efficiency`` of it is sustained.

    ``step_latency`` is a hop of a ring, ``tree_latency`` one of a tree (0: the same), ``fill`` what a chunk of a
    pipeline costs at a hop (s), all of the Simple protocol. ``all_to_all``: what an all-to-all keeps of
    ``bandwidth * efficiency``. ``through``: what rings and trees keep of it that pass several GPUs of the node on their
    way, and so leave from another GPU than they entered at.
    """

    count: int
    bandwidth: float
    efficiency: float
    step_latency: float
    tree_latency: float = 0.0
    fill: float = 0.0
    all_to_all: float = 1.0
    through: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DimensionSpec:
    """One dimension of a grid of nodes: ``size`` coordinates, joined by links of ``bandwidth`` bytes/s one way.

    ``ring``: a link each way to both neighbours (a torus has several rings); ``switch``: a port; ``full``: a link to
    every other coordinate. Every GPU has links of its own. ``latency`` is one hop (s), of a switch both.
    """

    kind: Literal["ring", "switch", "full"]
    size: int
    bandwidth: float
    latency: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FabricSpec:
    """Switches between nodes: leaves of ``nodes_per_leaf`` neighbouring nodes under spines; or a grid of nodes.

    A leaf's uplinks carry what its adapters do, over ``oversubscription``. With ``rails`` adapter k of each of those
    nodes is on a leaf of its own (rail-optimised); otherwise all adapters of a node are on one. ``reduction``: switches
    add what passes (SHARP). ``leaves_per_pod`` neighbouring leaves have a spine of their own (0: one spine joins all);
    pods meet in a core, to which each carries what its leaves' uplinks do, over ``core_oversubscription``.
    ``dimensions`` (no leaves then): the nodes are a grid, the first dimension varies fastest.
    """

    nodes_per_leaf: int = 0
    oversubscription: float = 1.0
    rails: bool = False
    reduction: bool = False
    leaves_per_pod: int = 0
    core_oversubscription: float = 1.0
    dimensions: tuple[DimensionSpec, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectivesSpec:
    """Which algorithm and protocol exchanges use; ``auto``: the fastest of those that NCCL would consider.

    ``copy_engines``: what needs no sums inside a node (all-gather, all-to-all) is copied by them and takes no SM time.
    """

    all_reduce: str = "auto"
    all_gather: str = "auto"
    reduce_scatter: str = "auto"
    all_to_all: str = "auto"
    protocol: Literal["auto", "simple", "ll128", "ll"] = "auto"
    copy_engines: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class VariationSpec:
    """One part of one node that runs at ``speed`` times its usual rate, or is not there (0): a fault.

    ``part``: ``gpu`` (SM clock), ``hbm``, ``nvlink``, ``pcie`` of GPU ``index``; ``nic`` number ``index`` (a GPU's,
    where it has several); ``dram`` or ``cores`` of socket ``index``; ``links`` of GPU ``index`` in fabric.dimensions;
    ``uplink``, those of rail ``index`` (0 without rails) of leaf ``node``; ``core``, those (0) of pod ``node``.
    """

    node: int
    part: Literal["gpu", "hbm", "nvlink", "pcie", "nic", "dram", "cores", "links", "uplink", "core"]
    index: int
    speed: float
