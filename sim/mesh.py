"""Where a rank sits: rank <-> (node, GPU).

Owns the placement of ranks on devices. Ranks fill a node before the next one begins, as launchers number them
(``torchrun``: global rank = node rank x processes per node + local rank).
"""

from __future__ import annotations


def place(rank: int, gpus_per_host: int) -> tuple[int, int]:
    """The (node, GPU of that node) of a rank.

    >>> place(9, 8)
    (1, 1)
    """
    return divmod(rank, gpus_per_host)


def ranks_per_socket(world: int, gpus_per_host: int, sockets: int) -> int:
    """The most ranks that share one CPU socket when ``world`` ranks fill nodes in order.

    >>> ranks_per_socket(1, 16, 2), ranks_per_socket(32, 16, 2)
    (1, 8)
    """
    on_node = min(world, gpus_per_host)
    return min(on_node, -(-gpus_per_host // sockets))
