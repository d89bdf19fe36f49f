"""Collectives against published nccl-tests sweeps: errors by system, a figure, and the fit behind the topology files.

    python benchmarks/collectives.py                    # the table
    python benchmarks/collectives.py --plot FILE.png    # measured and simulated bus bandwidth
    python benchmarks/collectives.py --fit SYSTEM       # least squares of that system's latencies, starting as shipped

Data with their sources: ``benchmarks/measured/collectives.yaml``. Each row is one collective alone on an idle cluster.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sim.api import cluster as load_cluster  # noqa: E402
from sim.cluster.build import build  # noqa: E402
from sim.cost.choice import chosen  # noqa: E402
from sim.spec.types import ClusterSpec  # noqa: E402

LARGE = 2**20
"""Sizes (bytes) from which bandwidth matters as well as latency; the table counts those below apart."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A cluster and what was measured on it: ``rows`` of (whole buffer in bytes, seconds)."""

    name: str
    cluster: str
    nodes: int
    gpus: int
    kind: str
    algorithm: str
    rows: list[tuple[float, float]]


def systems() -> list[System]:
    """Every sweep of the data file."""
    document = YAML(typ="safe").load((HERE / "measured" / "collectives.yaml").read_text(encoding="utf-8"))
    return [_system(entry) for entry in document["systems"]]


def _system(entry: dict[str, Any]) -> System:
    rows = [(float(size), microseconds * 1e-6) for size, microseconds in entry.pop("rows")]
    keys = {key: entry[key] for key in ("name", "cluster", "nodes", "gpus", "kind")}
    return System(rows=rows, algorithm=entry.get("algorithm", "auto"), **keys)


def spec_of(system: System) -> ClusterSpec:
    """The cluster that the system ran on."""
    override = [f"cluster.nodes={system.nodes}", f"cluster.collectives={{all_reduce: {system.algorithm}}}"]
    return load_cluster(system.cluster, override)


def simulated(system: System, spec: ClusterSpec) -> list[float]:
    """Seconds of each row, alone on the cluster."""
    cluster = build(spec)
    members = [(node, gpu) for node in range(system.nodes) for gpu in range(system.gpus)]
    costs = [chosen(system.kind, size, members, cluster) for size, _ in system.rows]
    return [cost.latency + cost.duration for cost in costs]


def errors(system: System, spec: ClusterSpec) -> np.ndarray:
    """Simulated over measured, less one, a row."""
    return np.array(simulated(system, spec)) / np.array([seconds for _, seconds in system.rows]) - 1.0


def table(found: list[System]) -> None:
    """Print mean absolute error and bias by system, from 1 MiB and below."""
    print(f"{'system':44} {'rows':>4} {'>= 1 MiB':>9} {'bias':>7} {'rows':>5} {'below':>7}")
    all_large: list[float] = []
    all_small: list[float] = []
    for system in found:
        error = errors(system, spec_of(system))
        large = np.array([size >= LARGE for size, _ in system.rows])
        all_large += np.abs(error[large]).tolist()
        all_small += np.abs(error[~large]).tolist()
        small = f"{np.abs(error[~large]).mean():7.1%}" if (~large).any() else "      -"
        mean, bias = np.abs(error[large]).mean(), error[large].mean()
        print(f"{system.name:44} {large.sum():4} {mean:9.1%} {bias:+7.1%} {(~large).sum():5} {small}")
    mean = f"{np.mean(all_large):9.1%} {'':7} {len(all_small):5} {np.mean(all_small):7.1%}"
    print(f"{'all':44} {len(all_large):4} {mean}")


PARAMETERS = (
    ("nvlink", "base_latency"), ("nvlink", "step_latency"), ("nvlink", "in_switch"), ("nvlink", "in_switch_latency"),
    ("nvlink", "in_switch_fill"), ("nics", "efficiency"), ("nics", "step_latency"), ("nics", "tree_latency"),
    ("nics", "fill"),
)  # fmt: skip


def fit(chosen_systems: list[System]) -> None:
    """Coordinate descent on the mean squared log error of all rows of these systems, which share their parameters."""
    specs = [spec_of(system) for system in chosen_systems]
    several = any(system.nodes > 1 for system in chosen_systems)
    shipped = {name: getattr(getattr(specs[0], name[0]), name[1]) for name in PARAMETERS}
    values = {name: value for name, value in shipped.items() if value and (name[0] == "nics") == several}

    def loss(trial: dict[tuple[str, str], float]) -> float:
        total = 0.0
        for system, spec in zip(chosen_systems, specs, strict=True):
            for (part, key), value in trial.items():
                spec = replace(spec, **{part: replace(getattr(spec, part), **{key: value})})  # noqa: PLW2901
            weights = np.array([1.0 if size >= LARGE else 0.16 for size, _ in system.rows])
            total += float((weights * np.log1p(errors(system, spec)) ** 2).sum())
        return total

    best, step = loss(values), 0.3
    while step > 0.01:
        improved = False
        for name in list(values):
            for factor in (1 + step, 1 / (1 + step)):
                most = 1.0 if name[1] in ("in_switch", "efficiency") else np.inf
                trial = {**values, name: min(values[name] * factor, most)}
                if (score := loss(trial)) < best * (1 - 1e-4):
                    best, values, improved = score, trial, True
        step = step if improved else step / 2
    for (part, key), value in values.items():
        print(f"{part}.{key}: {value:.4g}")


def plot(found: list[System], target: Path) -> None:
    """Bus bandwidth against size, measured as points and simulated as lines."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - only when a figure is asked for

    columns = 4
    lines = -(-len(found) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(15, 3 * lines), sharex=True, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, system in zip(axes.flat, found, strict=False):
        n = system.nodes * system.gpus
        factor = (2 if system.kind == "all_reduce" else 1) * (n - 1) / n / 1e9
        sizes = np.array([size for size, _ in system.rows])
        axis.loglog(sizes, sizes * factor / [seconds for _, seconds in system.rows], "o", ms=3, label="measured")
        axis.loglog(sizes, sizes * factor / simulated(system, spec_of(system)), "-", label="simulated")
        axis.set_title(system.name, fontsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("bus bandwidth, GB/s")
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("whole buffer, bytes")
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw measured and simulated bus bandwidth")
    parser.add_argument("--fit", nargs="+", metavar="SYSTEM", help="fit the latencies of systems (part of a name)")
    asked = parser.parse_args()
    found = systems()
    if asked.fit:
        fit([system for system in found if any(name in system.name for name in asked.fit)])
        return
    table(found)
    if asked.plot:
        plot(found, asked.plot)


if __name__ == "__main__":
    main()
