"""Collectives against published nccl-tests sweeps: errors by system, a figure, and the fit behind the topology files.

    python benchmarks/collectives.py                    # the table
    python benchmarks/collectives.py --plot FILE.png    # measured and simulated bus bandwidth
    python benchmarks/collectives.py --fit              # least squares of latencies and rates

Data with their sources: ``benchmarks/measured/collectives.yaml``. Each row is one collective alone on an idle cluster.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from collectives_fit import MACHINES, fit  # noqa: E402

from sim.api import cluster as load_cluster  # noqa: E402
from sim.cluster.build import build  # noqa: E402
from sim.cost.demand import demand  # noqa: E402
from sim.spec.types import ClusterSpec  # noqa: E402
from sim.workload.ops import Collective  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGE = 2**20
"""Sizes (bytes) from which bandwidth matters as well as latency; the table counts those below apart."""


TORCH = 21e-6
"""Seconds that a collective of PyTorch's all_reduce_bench.py takes more than one of nccl-tests: what the framework does
before the kernel starts. One number for the instrument: 8 H200, 32 KiB to 512 KiB, 39 us there, 18 in nccl-tests."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A cluster and what was measured on it: ``rows`` of (whole buffer, seconds); ``more``: the instrument's."""

    name: str
    cluster: str
    nodes: int
    gpus: int
    kind: str
    algorithm: str
    rows: list[tuple[float, float]]
    more: float = 0.0

    @property
    def ranks(self) -> int:
        """GPUs in the group."""
        return self.nodes * self.gpus

    @property
    def bus_factor(self) -> float:
        """Bus bandwidth times seconds over the whole buffer (an all-to-all: one rank's), as nccl-tests reckons it."""
        return (2 if self.kind == "all_reduce" else 1) * (self.ranks - 1) / self.ranks


def document() -> dict[str, Any]:
    """The data file."""
    found: dict[str, Any] = YAML(typ="safe").load((HERE / "measured" / "collectives.yaml").read_text(encoding="utf-8"))
    return found


def systems() -> list[System]:
    """Every sweep of the data file."""
    return [
        _system(entry, [(float(size), microseconds * 1e-6) for size, microseconds in entry["rows"]])
        for entry in document()["systems"]
    ]


def peaks() -> list[System]:
    """Every single rate of the data file, as a sweep of one size."""
    found = []
    for entry in document()["peaks"]:
        bare = _system(entry, [])
        size = float(entry["size"])
        found.append(replace(bare, rows=[(size, size * bare.bus_factor / (entry["rate"] * 1e9))]))
    return found


def _system(entry: dict[str, Any], rows: list[tuple[float, float]]) -> System:
    keys = {key: entry[key] for key in ("name", "cluster", "nodes", "gpus", "kind")}
    more = TORCH if entry.get("bench") == "torch" else 0.0
    return System(rows=rows, algorithm=entry.get("algorithm", "auto"), more=more, **keys)


def spec_of(system: System) -> ClusterSpec:
    """The cluster that the system ran on."""
    override = [f"cluster.nodes={system.nodes}", f"cluster.collectives={{{system.kind}: {system.algorithm}}}"]
    return load_cluster(system.cluster, override)


def simulated(system: System, spec: ClusterSpec) -> list[float]:
    """Seconds of each row, alone on the cluster."""
    cluster = build(spec)
    members = [(node, gpu) for node in range(system.nodes) for gpu in range(system.gpus)]
    works = [Collective(kind=system.kind, axis="dp", size=size) for size, _ in system.rows]
    costs = [demand(work, members, cluster) for work in works]
    return [cost.latency + cost.duration + system.more for cost in costs]


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


def peak_table(found: list[System]) -> None:
    """Print single rates: measured and ours, and how much longer ours takes."""
    heads = f"{'collective':14} {'size':>7} {'there':>7} {'ours':>7} {'time':>7}"
    print(f"\n{'single rates, GB/s of bus bandwidth':34} {heads}")
    off = []
    for system in found:
        ((size, seconds),) = system.rows
        (ours,) = simulated(system, spec_of(system))
        rate = size * system.bus_factor / 1e9
        off.append(ours / seconds - 1.0)
        rates = f"{rate / seconds:7.1f} {rate / ours:7.1f} {off[-1]:+7.1%}"
        print(f"{system.name:34} {system.kind:14} {size / 1e9:4.1f} GB {rates}")
    print(f"{'all':34} {'':14} {'':7} {'':7} {'':7} {np.abs(off).mean():7.1%}")


def left_out() -> None:
    """Print what was published and is not compared, and why."""
    print("\nleft out")
    for entry in document()["left_out"]:
        print(f"  {entry['name']}: {entry['why']}")


def fit_machines(asked: list[str]) -> None:
    """Fit the systems whose names contain one of ``asked``, as one machine; each machine in turn if there are none."""
    everything = {system.name: system for system in systems()}
    chosen = [name for name in everything if any(part in name for part in asked)]
    for machine, names in {"asked": chosen}.items() if asked else MACHINES.items():
        print(machine)
        fit([everything[name] for name in names], [spec_of(everything[name]) for name in names])


def draw(found: list[System]) -> Figure:
    """Bus bandwidth against size: measured as points, simulated as lines, a panel a system."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only when a figure is asked for

    columns = 5
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(15, 2.5 * lines + 0.6), layout="constrained")
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False)
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    for ax, system in zip(axes.flat, found, strict=False):
        sizes = np.array([size for size, _ in system.rows])
        there, ours = np.array([seconds for _, seconds in system.rows]), np.array(simulated(system, spec_of(system)))
        ax.loglog(sizes, sizes * system.bus_factor / there / 1e9, "o", ms=3, color="#332288", label="measured")
        ax.loglog(sizes, sizes * system.bus_factor / ours / 1e9, "-", lw=1.4, color="#D55E00", label="simulated")
        large = sizes >= LARGE
        off = np.abs(ours[large] / there[large] - 1).mean()
        ax.set_title(f"{system.name}: {off:.1%}", fontsize=8, loc="left")
        ax.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("whole buffer, bytes; in the titles the mean error of sizes from 1 MiB", fontsize=9)
    figure.supylabel("bus bandwidth, GB/s", fontsize=9)
    return figure


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw measured and simulated bus bandwidth")
    parser.add_argument("--fit", nargs="*", metavar="SYSTEM", help="fit systems (part of a name), or all")
    asked = parser.parse_args()
    found = systems()
    if asked.fit is not None:
        fit_machines(asked.fit)
        return
    table(found)
    peak_table(peaks())
    left_out()
    if asked.plot:
        draw(found).savefig(asked.plot, dpi=110)


if __name__ == "__main__":
    main()
