"""The largest model that one GPU can train, by strategy and host memory: ``python plots/largest_model.py``.

GPT models of width 4096 and ever more layers on one V100 of a DGX-2 (32 GB; 30 TB of drives), one sequence of 1024
tokens, full recompute. Nothing is simulated: memory is weighed by walking the step, as ``stepline check`` does. Each
curve ends where GPU memory, not the host's, is what runs out.
"""

from __future__ import annotations

from common import QUICK, keep, some
from matplotlib.figure import Figure

from sim.analysis.result import Verdict
from sim.api import check

MOST = 6000  # layers
BASE = ["batch.micro=1", "recompute=full"]
STRATEGIES = {
    "everything on the GPU": ["offload=none", "layout={dp: 1}"],
    "ZeRO-Offload: optimizer and gradients": [],
    "ZeRO-3, parameters on the CPU too": ["layout={dp: 1, zero: 3}", "offload.parameters=cpu"],
    "ZeRO-Infinity: states and parameters on NVMe": [
        "layout={dp: 1, zero: 3}", "offload.parameters=nvme", "offload.optimizer=nvme", "offload.activations=cpu",
        "offload.sub_group=100000000", "cluster.nvme={read: 12 GB/s, write: 6 GB/s, capacity: 30 TB, source: DGX-2}",
    ],
}  # fmt: skip
COLOURS = ("#777777", "#332288", "#117733", "#D55E00")


def weigh(sets: list[str], layers: int, *host: str) -> Verdict:
    """The memory of a model of so many layers."""
    return check("zero-offload-10b-v100", [*BASE, *sets, *host, f"model.layers={layers}"])


def largest(sets: list[str], host: float) -> float:
    """Parameters of the largest model that fits, to two per cent of its layers.

    Memory grows evenly with layers, nearly: a straight line through two small models says where to look, and the
    model found is weighed: it fits, and a slightly larger one does not.
    """
    host_memory = f"cluster.host.dram={host} GB"
    few, more = (weigh(sets, layers, host_memory).weights for layers in (4, 12))
    guess = min(4 + (a.capacity - a.peak) / max((b.peak - a.peak) / 8, 1.0) for a, b in zip(few, more, strict=True))
    layers = int(min(max(guess, 1), MOST))
    while layers > 0 and not weigh(sets, layers, host_memory).fits:
        layers = min(layers - 1, int(0.98 * layers))
    while 0 < layers < MOST and weigh(sets, next_ := max(layers + 1, int(1.02 * layers)), host_memory).fits:
        layers = min(next_, MOST)
    return weigh(sets, layers).params if layers else float("nan")


figure = Figure(figsize=(8, 4.6), layout="constrained")
ax = figure.subplots()
memory = [64 * 2**i for i in range(1 if QUICK else 6)]
for (name, sets), shade in some(list(zip(STRATEGIES.items(), COLOURS, strict=True))):
    sizes = [largest(sets, host) / 1e9 for host in memory]
    print(f"{name}: " + ", ".join(f"{host} GB {size:.1f} B" for host, size in zip(memory, sizes, strict=True)))
    ax.plot(memory, sizes, "o-", color=shade, label=name)
ax.axhline(13, color="#AA4499", lw=1, ls=":", label="13 B: ZeRO-Offload's paper on one 32 GB V100")
ax.set_xscale("log", base=2)
ax.set_yscale("log")
ax.set_xticks(memory, [f"{m} GB" if m < 1024 else f"{m // 1024} TB" for m in memory])
ax.set_yticks([1, 2, 5, 10, 20, 50, 100, 200, 500], ["1", "2", "5", "10", "20", "50", "100", "200", "500"])
ax.minorticks_off()
ax.set_xlabel("host memory")
ax.set_ylabel("billion parameters")
ax.set_title("The largest GPT that one 32 GB V100 can train", loc="left", fontsize=10)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(fontsize=8, frameon=False, loc="upper left")
keep(figure, "largest_model")
