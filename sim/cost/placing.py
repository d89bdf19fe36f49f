"""Which GPU each rank has: the mesh's ranks on the cluster's devices.

Owns the step from ``layout.placement`` to (node, GPU of that node), and what follows from it for the CPU: how many
ranks share a socket. Everything in this room that asks where a rank sits asks here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import mesh
from sim.cluster.types import Cluster
from sim.cost.fold import Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placing:
    """``node``, its ``kind``, ``gpu`` (of that node) and ``sharing`` of each rank, all of shape (ranks,).

    ``sharing`` is how many ranks the fullest CPU socket of the rank's node serves (below one where a process has more
    than a socket): launchers give each rank of a node the same number of cores.
    """

    node: Ints
    gpu: Ints
    kind: Ints
    sharing: NDArray[np.float64]

    def at(self, rank: int) -> tuple[int, int]:
        """(Node, GPU of that node) of a rank."""
        return int(self.node[rank]), int(self.gpu[rank])


def placing(world: int, placement: str | Sequence[int], cluster: Cluster) -> Placing:
    """Place ``world`` ranks on ``cluster``, which has room for them (``spec`` has checked that)."""
    node, gpu = mesh.places(world, placement, cluster.gpus_of_node)
    kind = cluster.kind_of[node]
    socket = np.array([cluster.kinds[k].places[g].socket for k, g in zip(kind.tolist(), gpu.tolist(), strict=True)])
    served = np.zeros((cluster.nodes, 1 + int(socket.max(initial=0))), dtype=np.int64)
    np.add.at(served, (node, socket), 1)
    fullest = served.max(axis=1).astype(np.float64)
    for number, machine in enumerate(cluster.kinds):
        if machine.spec.host.binding == "spread":  # all ranks of a node on all of its sockets
            mine = cluster.kind_of[: cluster.nodes] == number
            fullest[mine] = served.sum(axis=1)[mine] / machine.spec.host.sockets
    return Placing(node=node, gpu=gpu, kind=kind, sharing=fullest[node])
