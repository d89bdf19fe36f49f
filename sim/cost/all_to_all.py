"""All-to-all: every member sends a part of its buffer to every other, directly. Pure functions on a built ``Cluster``.

Owns who sends how much over which link. Inside a node each pair uses its own route; between nodes every member uses the
adapter that serves it, both ways (NCCL's grouped sends and receives).

With ``copies`` the rows of a buffer are copies of the same tokens for several experts. A token then crosses to each
node once, to the GPU at its sender's place there, which passes it on to those of its node that want it (DeepEP's
normal kernels; DeepSeek-V3 technical report, section 3.2.2). Experts are taken to be chosen evenly: of N nodes with
parts f of the members, a token with k copies visits a node with probability 1 - (1 - f)^k; with at most M nodes a
token, M (1 - (1 - 1/M)^k) of them in all. Sums on the way back cross the same links the other way round.

Between leaves of the fabric each message crosses the uplinks on its way; in a grid of nodes, links of its sender.

Limits. Messages have no overhead of their own; a network hop does not load PCIe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from msgspec.structs import replace

from sim.cluster.types import Cluster
from sim.cost.traffic import CollectiveCost, Member, by_copy_engines, by_node, cost_of, messages, need_network, pace_of
from sim.workload.ops import Collective


def all_to_all_demand(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Cost of ``work`` (``size``: the whole send buffer of one member, which keeps 1/n of it).

    Raises:
        InfeasibleError: members sit on several nodes and the cluster has no NICs.
    """
    if len(members) < 2:
        return cost_of({}, 0.0, cluster)
    nodes = by_node(members)
    need_network(nodes, cluster)
    pace = pace_of(nodes, cluster)
    loads, size = _Loads(cluster, once=work.copies > 0), work.size * messages(cluster).wire
    visits = _visits(replace(work, size=size), {node: len(gpus) / len(members) for node, gpus in nodes.items()})
    for node in nodes:
        loads.inside(node, nodes, size / len(members))
        if len(nodes) > 1:
            loads.between(node, nodes, visits)
            if work.copies:
                there = len(nodes[node])
                loads.inside(node, nodes, size * (len(members) - there) / len(members) / there)
    if cluster.leaves or cluster.pods:
        loads.over_spines(nodes, visits)
    pairs = [(a, b) for a in nodes for b in nodes] if cluster.grid is not None else list(pairwise(nodes))
    amounts = loads.amounts if work.copies else {n: a / _kept(n, cluster) for n, a in loads.amounts.items()}
    cost = cost_of(amounts, pace.message(pairs, cluster), cluster)
    return replace(cost, sm_load=0.0 if by_copy_engines(work.kind, nodes, cluster) else pace.sm_share * cost.duration)


def _kept(number: int, cluster: Cluster) -> float:
    """What a link keeps of its rate when many peers send to many: collective libraries lose some to incast."""
    kind, spec = cluster.resource(number).kind, cluster.node(number // cluster.per_node).spec
    if kind.startswith("nvlink") and spec.nvlink is not None:
        return spec.nvlink.all_to_all
    return spec.nics.all_to_all if kind.startswith("nic.") and spec.nics is not None else 1.0


def _visits(work: Collective, parts: dict[int, float]) -> dict[int, float]:
    """Bytes that a member sends to each node if it is on another, by node: rows, or tokens that go there at all."""
    if not work.copies:
        return {node: work.size * part for node, part in parts.items()}
    token = work.size / work.copies
    chance = {node: 1 - (1 - part) ** work.copies for node, part in parts.items()}
    most = work.most_nodes
    if 0 < most < len(parts):
        allowed = most * (1 - (1 - 1 / most) ** work.copies)
        scale = allowed / sum(chance.values())
        chance = {node: value * scale for node, value in chance.items()}
    return {node: token * value for node, value in chance.items()}


class _Loads:
    """Bytes on each resource of the cluster."""

    def __init__(self, cluster: Cluster, *, once: bool) -> None:
        self.cluster = cluster
        self.once = once
        self.amounts: dict[int, float] = {}

    def inside(self, node: int, nodes: Mapping[int, tuple[int, ...]], size: float) -> None:
        """Messages of ``size`` bytes between each pair of a node: read from HBM, cross the links, write to HBM."""
        places, peer = self.cluster.node(node).places, self.cluster.node(node).peer
        for i in nodes[node]:
            for j in nodes[node]:
                for local in (places[i].hbm, places[j].hbm, *peer[i][j]) if i != j else ():
                    self._add(node, local, size)

    def between(self, node: int, nodes: Mapping[int, tuple[int, ...]], visits: Mapping[int, float]) -> None:
        """What each member of a node sends to other nodes and, evenly with its neighbours, receives from them."""
        gpus, total = nodes[node], sum(len(gpus) for gpus in nodes.values())
        arriving = visits[node] * (total - len(gpus)) / len(gpus)
        sent = sum(size for other, size in visits.items() if other != node)
        for gpu in gpus:
            self._add(node, self.cluster.node(node).places[gpu].hbm, sent + arriving)
        if self.cluster.grid is not None:
            self._over_grid(node, nodes, visits)
            return
        for gpu in gpus:
            place = self.cluster.node(node).places[gpu]
            self._add(node, place.nic_tx, sent)
            self._add(node, place.nic_rx, arriving)

    def _over_grid(self, node: int, nodes: Mapping[int, tuple[int, ...]], visits: Mapping[int, float]) -> None:
        """Each message by the links of its sender, then inside the receiver's node."""
        for gpu in nodes[node]:
            for other in [n for n in nodes if n != node]:
                there = (gpu,) if self.once else nodes[other]
                for to in there:
                    for number, part in self.cluster.between((node, gpu), (other, to)):
                        self._at(number, visits[other] * part / len(there))

    def over_spines(self, nodes: Mapping[int, tuple[int, ...]], visits: Mapping[int, float]) -> None:
        """Uplinks of the leaves and pods that messages leave and enter; what goes once to a node stays on its rail.

        Members on one leaf and rail climb the same uplinks: bytes are added up from each such set to each other.
        """
        fabric = self.cluster.spec.fabric
        assert fabric is not None
        sets: dict[tuple[int, int], list[Member]] = {}
        for node, gpus in nodes.items():
            for gpu in gpus:
                rail = self.cluster.node(node).places[gpu].rail if fabric.rails else 0
                sets.setdefault((node // fabric.nodes_per_leaf, rail), []).append((node, gpu))
        arriving = {key: self._arriving(members, nodes, visits) for key, members in sets.items()}
        for here, senders in sets.items():
            for there, receivers in sets.items():
                crossed = self.cluster.crossing(senders[0], receivers[0])
                if not crossed or (self.once and here[1] != there[1]):
                    continue
                total = sum(arriving[there].values())
                sent = sum(total - arriving[there].get(node, 0.0) for node, _ in senders)
                for number in crossed:
                    self._at(number, sent)

    def _arriving(
        self, members: list[Member], nodes: Mapping[int, tuple[int, ...]], visits: Mapping[int, float]
    ) -> dict[int, float]:
        """Bytes that one sender elsewhere has for these members, by their node."""
        found: dict[int, float] = {}
        for node, _ in members:
            part = visits[node] / len(nodes[node])
            found[node] = visits[node] if self.once else found.get(node, 0.0) + part
        return found

    def _at(self, number: int, amount: float) -> None:
        self.amounts[number] = self.amounts.get(number, 0.0) + amount

    def _add(self, node: int, local: int, amount: float) -> None:
        self._at(self.cluster.at(node, local), amount)
