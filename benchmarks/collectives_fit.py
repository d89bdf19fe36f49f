"""Least squares of a machine's latencies and rates: how numbers marked "own fit" in ``topologies/`` came about.

    python benchmarks/collectives.py --fit                # every machine in turn, starting from what is shipped
    python benchmarks/collectives.py --fit "8 A100"       # the systems whose names contain this, as one machine

Coordinate descent on the squared logarithm of simulated over measured. Rows below 1 MiB count 0.16 of the others:
there the base latency alone matters, and most sweeps have none. Routes and traffic are worked out once; a trial prices
them anew, since only rates and latencies change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace as changed

from sim.cluster.build import build
from sim.cost.choice import traffics
from sim.cost.traffic import PROTOCOLS, Demand, Traffic, by_node, pace_of, price
from sim.spec.types import ClusterSpec

if TYPE_CHECKING:
    from collectives import System

Key = tuple[str, str]

INSIDE: tuple[Key, ...] = (
    ("nvlink", "efficiency"), ("nvlink", "base_latency"), ("nvlink", "step_latency"), ("nvlink", "in_switch"),
    ("nvlink", "in_switch_latency"), ("nvlink", "in_switch_fill"),
)  # fmt: skip
BETWEEN: tuple[Key, ...] = (
    ("nics", "efficiency"), ("nics", "step_latency"), ("nics", "tree_latency"), ("nics", "fill"),
)  # fmt: skip
MOST = {"in_switch": 1.0, "efficiency": 1.0}
LARGE = 2**20
SMALL_WEIGHT = 0.16

MACHINES = {
    "A100 node": ["8 A100", "8 A100, Azure"],
    "H100 node": ["8 H100, DGX", "8 H100, p5", "8 H200"],
    "H100 and H200 node in Azure": ["8 H100, Azure", "8 H200, Azure"],
    "B200 node": ["4 B200 of a GB200, ring"],
    "B200 node of AWS": ["8 B200, p6"],
    "InfiniBand": [f"{n} x 8 H100, {by}" for n in (4, 16, 64, 256) for by in ("GTC24 S62129", "arXiv 2411.13055")],
    "EFA, p4de": ["2 x 8 A100, p4de"],
    "EFA, p5": ["2 x 8 H100, p5"],
    "EFA, p6": ["4 x 8 B200, p6"],
}
"""Systems that share their parameters. Of the curves over InfiniBand every other size does."""


class Trial:
    """One system with its traffic worked out: seconds of its rows for any latencies and rates."""

    def __init__(self, system: System, spec: ClusterSpec) -> None:
        self.system = system
        self.spec = spec
        self.nodes = by_node([(node, gpu) for node in range(system.nodes) for gpu in range(system.gpus)])
        self.found: dict[float, list[Traffic]] = {}  # by what the switch's adders keep: it is part of the bytes

    def log_errors(self, values: dict[Key, float]) -> np.ndarray:
        """Logarithms of simulated over measured."""
        spec = self.spec
        for (part, key), value in values.items():
            spec = replace(spec, **{part: replace(getattr(spec, part), **{key: value})})
        cluster = build(spec)
        adders = spec.nvlink.in_switch if spec.nvlink is not None else 0.0
        if adders not in self.found:
            self.found[adders] = [_narrow(t, cluster) for t in traffics(self.system.kind, self.nodes, cluster)]
        pace = pace_of(self.nodes, cluster)
        costs = [
            [price(traffic, size, one, pace, cluster) for traffic in self.found[adders]
             for one in PROTOCOLS[traffic.family].values()]
            for size, _ in self.system.rows
        ]  # fmt: skip
        ours = [min(cost.latency + cost.duration for cost in row) + self.system.more for row in costs]
        return np.log(ours) - np.log([seconds for _, seconds in self.system.rows])

    def weights(self) -> np.ndarray:
        """Weight of each row."""
        return np.array([1.0 if size >= LARGE else SMALL_WEIGHT for size, _ in self.system.rows])


def _narrow(traffic: Traffic, cluster) -> Traffic:
    """The same with one resource of each kind and amount: thousands of nodes alike are no slower than one."""
    phases = []
    for phase in traffic.phases:
        kinds = [(cluster.resource(number).kind, round(amount, 12)) for number, amount in
                 zip(phase.ids.tolist(), phase.amounts.tolist(), strict=True)]  # fmt: skip
        first = sorted({kind: index for index, kind in reversed(list(enumerate(kinds)))}.values())
        phases.append(Demand(ids=phase.ids[first], amounts=phase.amounts[first]))
    return changed(traffic, phases=tuple(phases))


def fit(systems: list[System], specs: list[ClusterSpec]) -> None:
    """Fit what the systems share, and print it beside what is shipped."""
    trials = [Trial(system, spec) for system, spec in zip(systems, specs, strict=True)]
    several = all(system.nodes > 1 for system in systems)
    shipped = {key: getattr(getattr(specs[0], key[0]), key[1]) for key in (BETWEEN if several else INSIDE)}
    start = {key: value for key, value in shipped.items() if value}
    best = _descend(trials, start)
    print(f"  {'':28} {'shipped':>10} {'fitted':>10}")
    for (part, key), value in best.items():
        print(f"  {part + '.' + key:28} {shipped[part, key]:10.4g} {value:10.4g}")
    for trial in trials:
        large = trial.weights() == 1.0
        off = [np.abs(np.expm1(trial.log_errors(values)[large])).mean() for values in (start, best)]
        print(f"  {trial.system.name:28} {off[0]:10.1%} {off[1]:10.1%}")


def _loss(trials: list[Trial], values: dict[Key, float]) -> float:
    return sum(float((trial.weights() * trial.log_errors(values) ** 2).sum()) for trial in trials)


def _descend(trials: list[Trial], values: dict[Key, float]) -> dict[Key, float]:
    best, step = _loss(trials, values), 0.3
    while step > 0.01:
        improved = False
        for key in list(values):
            for factor in (1 + step, 1 / (1 + step)):
                trial = {**values, key: min(values[key] * factor, MOST.get(key[1], np.inf))}
                if (score := _loss(trials, trial)) < best * (1 - 1e-4):
                    best, values, improved = score, trial, True
        step = step if improved else step / 2
    return values
