"""Small hand-made plans for engine tests: ops by name, resources of capacity one."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.plan import Plan, PlanOp, RankPlan
from sim.timeline.columns import OpRow, RankClassRow, ResourceRow


@dataclass
class PlanMaker:
    """Collects ops of a few ranks into a Plan; every op is one row of the table."""

    capacities: dict[str, float]
    ranks: int = 1
    streams: tuple[str, ...] = ("compute", "comm", "copy")
    group_sizes: tuple[int, ...] = ()
    launch_queue: int = 1024
    rows: list[OpRow] = field(default_factory=list)
    blocks: dict[int, list[PlanOp]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)

    def op(
        self, name, duration=0.0, loads=None, *, rank=0, stream="compute", latency=0.0, waits=(), signals=(), **more
    ):
        """Append an op; ``loads`` maps a resource name to its load at full speed."""
        names = list(self.capacities)
        pairs = tuple((names.index(r), share) for r, share in (loads or {}).items())
        demands = tuple((r, share * duration * self.capacities[names[r]]) for r, share in pairs)
        bound = max(pairs, key=lambda p: p[1])[0] if pairs else -1
        index = self.streams.index(stream)
        self.rows.append(
            OpRow(
                name=name, kind="none", category="forward", phase="F", rank_class=rank, stream=index, layer=-1,
                flops=0.0, size=0.0, latency=latency, duration=duration, bound_by=bound, demands=demands, memory=(),
            )
        )  # fmt: skip
        block = self.blocks.setdefault(rank, [])
        block.append(
            PlanOp(
                row=len(self.rows) - 1, stream=index, latency=latency, duration=duration, loads=pairs,
                waits=tuple(self._token(t) for t in waits), signals=tuple(self._token(t) for t in signals), **more,
            )
        )  # fmt: skip
        return len(block) - 1

    def _token(self, name):
        if name not in self.tokens:
            self.tokens.append(name)
        return self.tokens.index(name)

    def plan(self, repeat=1):
        """The plan, each rank's block done ``repeat`` times."""
        return Plan(
            ranks=tuple(
                RankPlan(
                    blocks=(tuple(self.blocks.get(r, ())),),
                    actions=tuple((0, mb) for mb in range(repeat)),
                    streams=len(self.streams),
                )
                for r in range(self.ranks)
            ),
            group_sizes=self.group_sizes,
            token_names=tuple(self.tokens),
            ops=tuple(self.rows),
            rank_classes=tuple(
                RankClassRow(
                    name=f"rank{r}", members=1, representative=r, device=f"n0.gpu{r}", resident_gpu=(), resident_host=()
                )
                for r in range(self.ranks)
            ),
            resources=tuple(
                ResourceRow(name=n, kind="x", capacity=c, unit="x/s", members=1) for n, c in self.capacities.items()
            ),
            stream_names=self.streams,
            launch_queue=self.launch_queue,
        )


def times(timeline):
    """Name -> (start, end) of each op's last span."""
    spans = timeline.spans
    return {
        timeline.ops[o].name: (float(s), float(e)) for o, s, e in zip(spans.op, spans.start, spans.end, strict=True)
    }
