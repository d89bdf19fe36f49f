"""What if one thing were faster? The step simulated again with each of them 10 % faster, twice, and never binding.

Owns the table of things that can be faster and the asking; how a machine gets faster belongs to ``sim.spec.faster``.
A thing whose never binding changes nothing at all is not asked for less: that would change nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sim.api import Step
from sim.spec.types import Scenario
from sim.study.parallel import each
from sim.study.short import Way, time_of, way_for
from sim.study.why import WhatIf

FACTORS = (1.1, 2.0, 1e9)
"""10 % faster, twice as fast, and so fast that it never binds."""
NOTHING = 1e-9
"""Relative change that is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is faster, in words, and which kinds of resource (or reasons on the critical path) that is."""

    says: str
    kinds: tuple[str, ...]


AXES: Mapping[str, Axis] = {
    "sm": Axis(says="GPU arithmetic", kinds=("sm",)),
    "hbm": Axis(says="GPU memory bandwidth", kinds=("hbm",)),
    "nvlink": Axis(says="NVLink", kinds=("nvlink.tx", "nvlink.rx", "nvlink.to", "nvlink.bridge")),
    "network": Axis(
        says="links between nodes",
        kinds=(
            "nic.tx",
            "nic.rx",
            "leaf.up",
            "leaf.down",
            "grid.next",
            "grid.back",
            "grid.out",
            "grid.in",
            "grid.to",
        ),
    ),
    "host_link": Axis(
        says="link between GPU and host",
        kinds=("pcie.h2d", "pcie.d2h", "pcie.duplex", "uplink.in", "uplink.out"),
    ),
    "cpu": Axis(says="CPU and its memory bandwidth", kinds=("dram", "cores")),
    "socket_link": Axis(says="link between CPU sockets", kinds=("socket_link",)),
    "drives": Axis(says="drives", kinds=("nvme.read", "nvme.write", "nvme.busy")),
    "launch": Axis(says="kernel launches on the host", kinds=("host launch",)),
    "latency": Axis(says="latency of exchanges and copies", kinds=("latency",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    scenario: Scenario
    way: Way
    part: str
    by: float


def _answer(question: _Question) -> float:
    return time_of(question.scenario, question.way, question.part, question.by)


def what_if(
    step: Step, told: Callable[[int, int, str], None] | None = None, *, jobs: int = 2, axes: Sequence[str] = ()
) -> tuple[WhatIf, ...]:
    """One row for each thing that the step uses (or each of ``axes``), by what the fastest gains, largest first.

    ``told`` is called with (done, of, what).
    """
    way, base = way_for(step)
    names = list(axes) or used(step)
    jobs = jobs if len(step.timeline.spans.op) > 2000 else 1
    most = _asked(step.scenario, way, [(name, FACTORS[2]) for name in names], jobs, told)
    gaining = [name for name in names if abs(most[name, FACTORS[2]] / base - 1.0) > NOTHING]
    some = _asked(step.scenario, way, [(name, by) for name in gaining for by in FACTORS[:2]], jobs, told)
    rows = [
        WhatIf(
            resource=name,
            says=AXES[name].says,
            path=sum(step.result.bound_by.get(kind, 0.0) for kind in AXES[name].kinds),
            base=base,
            step_times=(some.get((name, FACTORS[0]), base), some.get((name, FACTORS[1]), base), most[name, FACTORS[2]]),
        )
        for name in names
    ]
    return tuple(sorted(rows, key=lambda row: (row.step_times[2], row.step_times[1], row.resource)))


def used(step: Step) -> list[str]:
    """Things that the step asks anything of, or that are on its critical path."""
    kinds = {row.name: row.kind for row in step.timeline.resources}
    present = {kinds[name] for name in step.result.utilisation} | set(step.result.bound_by)
    present |= {"latency"} if any(op.latency > 0.0 for op in step.timeline.ops) else set()
    return [name for name, axis in AXES.items() if present.intersection(axis.kinds)]


def _asked(
    scenario: Scenario, way: Way, asked: Sequence[tuple[str, float]], jobs: int,
    told: Callable[[int, int, str], None] | None,
) -> dict[tuple[str, float], float]:  # fmt: skip
    questions = [_Question(scenario=scenario, way=way, part=name, by=by) for name, by in asked]
    found = {}
    for done, (index, seconds) in enumerate(each(_answer, questions, jobs, called=lambda one: one.part), start=1):
        found[asked[index]] = seconds
        if told is not None:
            name, by = asked[index]
            told(done, len(asked), f"{AXES[name].says} {f'{by:g} times as fast' if by < 1e6 else 'never binding'}")
    return found
