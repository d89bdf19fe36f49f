"""ZeRO-Infinity's efficiency against bandwidth: ``python plots/infinity_efficiency.py``.

A GPT of ten billion parameters on one V100, parameters in host memory, fetched layer by layer for forward and again for
backward; the bandwidth of the host link is the knob. The paper's closed form for parameters and gradients, with nothing
overlapped, is ait bw / (ait bw + peak), ait = sequence x batch FLOP a byte, peak what the GPU sustains. The simulation
without prefetch has the same shape, a third higher on the way: the paper fetches once more for recompute, where here
recompute and backward of a layer share one fetch, and gradients leave beside the next layer's work. With one layer
fetched ahead the fetch disappears under the compute as soon as it is the shorter of the two.
"""

from __future__ import annotations

import numpy as np
from common import keep, some
from matplotlib.figure import Figure

from sim.api import run

SEQUENCE, LAYERS = 1024, 8
RATES = np.array(some(np.geomspace(0.5, 256, 10)))  # GB/s
COLOURS = dict(some([(1, "#332288"), (4, "#117733"), (16, "#D55E00")]))


def efficiency(micro: int, rate: float, prefetch: int) -> tuple[float, float]:
    """(Compute time over forward and backward time, FLOP/s while computing) of a step."""
    link = ", ".join(f"{key}: {rate} GB/s" for key in ("h2d", "d2h", "duplex", "pageable"))
    sets = [
        f"model.layers={LAYERS}",
        "layout={dp: 1, zero: 3}",
        f"layout.prefetch={prefetch}",
        "offload.parameters=cpu",
        f"batch.micro={micro}",
        f"cluster.host_link={{{link}, latency: 10 us, uplink: 0 B/s, gpus_per_uplink: 1, source: knob}}",
        "cluster.host.dram_bandwidth=2 TB/s",
    ]
    step = run("zero-offload-10b-v100", sets)
    parts, timed = step.result.breakdown, step.result.phases
    computed = sum(parts[c] for c in ("forward", "backward", "recompute"))
    flops = step.result.hfu * 125e12 * step.result.step_time
    return computed / (timed["forward"] + timed["backward"]), flops / computed


figure = Figure(figsize=(8, 4.6), layout="constrained")
ax = figure.subplots()
for micro, shade in COLOURS.items():
    peak = efficiency(micro, 1000.0, 1)[1]
    ait = SEQUENCE * micro
    fine = np.geomspace(RATES[0], RATES[-1], 200)
    ax.plot(
        fine,
        100 * ait * fine * 1e9 / (ait * fine * 1e9 + peak),
        "-",
        lw=1,
        color=shade,
        label=f"batch {micro}: ait bw / (ait bw + peak)",
    )
    for prefetch, mark, words in ((0, "s", "no prefetch"), (1, "o", "one layer ahead")):
        found = [100 * efficiency(micro, rate, prefetch)[0] for rate in RATES]
        print(
            f"batch {micro}, {words}: "
            + ", ".join(f"{r:.1f} GB/s {e:.0f} %" for r, e in zip(RATES, found, strict=True))
        )
        ax.plot(
            RATES,
            found,
            mark,
            color=shade,
            mfc="white" if mark == "s" else shade,
            label=f"batch {micro}, simulated, {words}",
        )
ax.set_xscale("log")
ax.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
ax.minorticks_off()
ax.set_xlabel("bandwidth between GPU and host, each way (GB/s)")
ax.set_ylabel("efficiency of forward and backward (%)")
ax.set_ylim(0, 103)
ax.set_title("ZeRO-Infinity: parameters in host memory, one V100", loc="left", fontsize=10)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(fontsize=7, frameon=False, loc="lower right")
keep(figure, "infinity_efficiency")
