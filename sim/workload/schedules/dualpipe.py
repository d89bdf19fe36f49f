"""DualPipe (DeepSeek-V3, 2024): two copies of the model in opposite directions, forwards overlapped with backwards.

Rank r holds stage r of direction 0 and stage p - 1 - r of direction 1, and the ranks r and p - 1 - r live mirrored
lives. What follows speaks of a rank's *near* direction, in which it comes early, and its *far* direction.

DualPipeV is the near half of it: of 2p mirrored ranks the first p, with a microbatch that turns round on the last of
them and comes back as what was the other direction, so that one copy of the parameters is enough.
"""

from __future__ import annotations

from collections import deque

from sim.workload.schedules.refuse import refuse, require_sizes
from sim.workload.schedules.types import Order, Schedule, ScheduleAction, overlap

NEAR, FAR = 0, 1


def dualpipe(p: int, m: int, v: int = 1) -> Schedule:
    """DualPipe: the first m/2 microbatches flow in direction 0, the others in direction 1.

    Keeps p + 1 activations of a stage in flight and the parameters twice. By table 2 of the DeepSeek-V3 report the
    bubble is (p/2 - 1)(t_F&B + t_B - 3 t_W) with t_B - 3 t_W = t_I - 2 t_W. This order gives just that (on the ranks in
    the middle) where t_F = t_I >= t_W; elsewhere it lies between that and the same with t_F for t_I. The phases are
    those of the published code.

    Raises:
        ScenarioError: p or m odd, or fewer than 2p microbatches, which the phases need.
    """
    require_sizes("dualpipe", p, m, v, only=1)
    if p % 2:
        refuse("dualpipe", p, m, f"ranks are mirrored in pairs and p = {p} is odd; set p to {p + 1}, or use zb-v")
    if m % 2 or m < 2 * p:
        least = max(m + m % 2, 2 * p)
        rule = f"both directions take m/2 microbatches, at least p = {p} each"
        refuse("dualpipe", p, m, f"{rule}; set m to {least}, or use zb-v")
    orders = tuple(_Rank(r, p, m).order() for r in range(p))
    return Schedule(name="dualpipe", rank_of_stage=tuple(range(p)), microbatches=m, orders=orders, copies=2)


def dualpipev(p: int, m: int, v: int = 2) -> Schedule:
    """DualPipeV (the published code of DualPipe): rank r holds stages r and 2p - 1 - r, a V as in ZB-V.

    The order of each rank is that of DualPipe on 2p ranks with 2m microbatches, whose two halves are now the same ones:
    as near microbatch k goes on to rank p there, k turns round here. So the bubble is that of 2p ranks,
    (p - 1)(t_F&B + t_B - 3 t_W) with times of a stage, and 2p + 1 activations of a stage are in flight.

    Raises:
        ScenarioError: fewer than 2p microbatches, which the phases need.
    """
    require_sizes("dualpipev", p, m, v, only=2)
    if m < 2 * p:
        rule = f"the phases need at least 2p = {2 * p} microbatches"
        refuse("dualpipev", p, m, f"{rule}; set m to {2 * p}, or use zb-v")
    orders = tuple(_Rank(r, 2 * p, 2 * m, both=True).order() for r in range(p))
    home = (*range(p), *reversed(range(p)))
    return Schedule(name="dualpipev", rank_of_stage=home, microbatches=m, orders=orders)


class _Rank:
    """Writes the order of one rank: each direction takes its microbatches in turn.

    With ``both``, the microbatches of one direction are those of the other.
    """

    def __init__(self, rank: int, p: int, m: int, *, both: bool = False) -> None:
        self.half = m // 2
        self.depth = min(rank, p - 1 - rank)  # how far from the near end of the pipeline
        self.width = p // 2 - 1 - self.depth  # how far from the middle
        self.steady = self.half - p + self.depth + 1
        flipped = int(rank >= p // 2)
        stages = (rank, p - 1 - rank)
        self.stage = (stages[flipped], stages[1 - flipped])
        second = 0 if both else self.half
        self.first = (flipped * second, (1 - flipped) * second)  # microbatch numbers begin here
        self.forwards, self.backwards = [0, 0], [0, 0]
        self.pending: deque[ScheduleAction] = deque()  # weight gradients put off
        self.written: list[ScheduleAction] = []

    def order(self) -> Order:
        self._fill()
        self._steady()
        self._drain()
        return tuple(self.written)

    def _forward(self, side: int) -> ScheduleAction:
        self.forwards[side] += 1
        return ScheduleAction(self.stage[side], "F", self.first[side] + self.forwards[side] - 1)

    def _backward(self, side: int) -> ScheduleAction:
        self.backwards[side] += 1
        return ScheduleAction(self.stage[side], "B", self.first[side] + self.backwards[side] - 1)

    def _split(self, side: int) -> ScheduleAction:
        """Input gradients; the weight gradients wait their turn."""
        whole = self._backward(side)
        self.pending.append(whole._replace(kind="W"))
        return whole._replace(kind="I")

    def _both(self, forward: int, backward: int) -> ScheduleAction:
        return overlap(self._forward(forward), self._backward(backward))

    def _fill(self) -> None:
        """Forwards alone, then of both directions in turn, then far backwards begin."""
        add = self.written.append
        for _ in range(2 * self.width):
            add(self._forward(NEAR))
        for _ in range(self.depth + 1):
            add(self._forward(NEAR))
            add(self._forward(FAR))
        for _ in range(self.width):
            add(self._split(FAR))
            add(self.pending.popleft())
            add(self._forward(FAR))

    def _steady(self) -> None:
        """Near forward with far backward, far forward with near backward, until near forwards are done."""
        add = self.written.append
        for turn in range(self.steady):
            if turn == 0 and self.width == 0:
                # The middle ranks run these one after the other: the backward waits for nobody and would be held up.
                add(self._forward(NEAR))
                add(self._backward(FAR))
            else:
                add(self._both(NEAR, FAR))
            add(self._both(FAR, NEAR))
        for _ in range(self.width):
            add(self._backward(FAR))
            add(self._both(FAR, NEAR))

    def _drain(self) -> None:
        """Backwards of both directions, the second half of them split; then weight gradients fill the gaps."""
        add, turns = self.written.append, self.depth + 1
        for k in range(2 * turns):
            # Split from the middle on: 2 * (turns // 2) actions whole, one more where the depth is even.
            whole = k < 2 * (turns // 2) + (self.depth % 2 == 0)
            side = FAR if k % 2 == 0 else NEAR
            add(self._backward(side) if whole else self._split(side))
        for _ in range(self.width):
            add(self.pending.popleft())
            add(self._split(NEAR))
        self.written += self.pending
