"""Where ZeRO-Offload's bottleneck moves from the link to host memory: ``python plots/offload_crossing.py``.

Left: on DGX hosts, GPUs share the host's memory, so CPU Adam takes longer the more of them work, each with its own
parameters; the time of its link stays. The closed form n* = B_dram / (7 B_link) is where 28 n P / B_dram meets 4 P /
B_link. The simulated crossing is earlier for two reasons that it knows: ranks fill one socket before the next, so that
half of the host's memory bandwidth serves them, and CPU Adam reaches 0.6 of what STREAM does. Shared uplinks (pairs on
a DGX-2) move it back. Right: superchips bring their own DRAM, and the line stays flat.
"""

from __future__ import annotations

import numpy as np
from common import keep, some
from matplotlib.figure import Figure

from sim.api import Step, run
from sim.spec.load import load

HOSTS = {"dgx-2": "DGX-2", "dgx-a100": "DGX A100", "dgx-h100": "DGX H100"}
COLOURS = {"dgx-2": "#332288", "dgx-a100": "#117733", "dgx-h100": "#D55E00", "gh200": "#AA4499"}
COUNTS = (1, 2, 4, 6, 8, 12, 16)
SETS = ["model.layers=4", "model.hidden=4096", "model.heads=32", "batch.micro=1", "recompute=none"]


def measured(cluster: str, ranks: int, *more: str) -> tuple[float, float]:
    """(Seconds of the link, seconds of CPU Adam) a step and rank, for each parameter that a rank owns."""
    gpus = load("zero-offload-10b-v100", [f"cluster={cluster}"]).scenario.cluster.gpus_per_host
    nodes = ["cluster.nodes=1"] if ranks <= gpus else []
    sets = [f"cluster={cluster}", *nodes, f"layout.dp={ranks}", *SETS, *more]
    step = run("zero-offload-10b-v100", sets)
    moved = {use.category: use for use in step.result.transfers}
    owned = moved["h2d"].bytes / 2
    link = sum(use.busy for category, use in moved.items() if category in ("h2d", "d2h"))
    return link / owned, adam_seconds(step) / owned


def adam_seconds(step: Step) -> float:
    """Seconds of CPU Adam on the rank that takes longest."""
    timeline = step.timeline
    ops = [i for i, op in enumerate(timeline.ops) if op.kind == "adam"]
    mine = np.isin(timeline.spans.op, ops)
    return float((timeline.spans.end[mine] - timeline.spans.start[mine]).max())


def draw_hosts(ax) -> None:
    """Link and CPU Adam time against the GPUs that share a host."""
    for cluster, name in HOSTS.items():
        spec = load("zero-offload-10b-v100", [f"cluster={cluster}"]).scenario.cluster
        x = some([n for n in COUNTS if n <= spec.gpus_per_host])
        rows = [measured(cluster, n) for n in x]
        link, adam = [r[0] * 1e9 for r in rows], [r[1] * 1e9 for r in rows]
        ax.plot(x, adam, "o-", color=COLOURS[cluster], label=f"{name}: CPU Adam")
        ax.plot(x, link, "s--", color=COLOURS[cluster], mfc="white", label=f"{name}: link, both ways")
        dram = spec.host.dram_bandwidth * spec.host.sockets
        closed = dram / (7 * (spec.host_link.h2d + spec.host_link.d2h) / 2)
        found = link[0] / adam[0]  # CPU Adam grows with n from n = 1 on, the link's time does not
        print(f"{name}: closed form n* = {closed:.2f}, simulated n* = {found:.2f}")
        said = f"{name}: n* = {closed:.1f}, simulated {found:.1f}"
        ax.axvline(closed, color=COLOURS[cluster], lw=1, ls=":", label=said)
    ax.set_xlabel("GPUs that offload to one host")
    ax.set_ylabel("nanoseconds a step and parameter of a rank")
    ax.set_title("DGX hosts: memory is shared; n* = B_dram / (7 B_link)", loc="left", fontsize=10)
    ax.set_xticks(range(2, 17, 2))
    ax.set_ylim(0, 4.2)


def draw_superchips(ax) -> None:
    """The same on superchips, each with its own DRAM."""
    x = some([1, 2, 4, 8, 16])
    rows = [measured("gh200" if n == 1 else "gh200-x16", n, *([] if n == 1 else [f"cluster.nodes={n}"])) for n in x]
    ax.plot(x, [r[1] * 1e9 for r in rows], "o-", color=COLOURS["gh200"], label="GH200: CPU Adam")
    ax.plot(x, [r[0] * 1e9 for r in rows], "s--", color=COLOURS["gh200"], mfc="white", label="GH200: link, both ways")
    ax.set_xlabel("superchips")
    ax.set_title("superchips: each brings its own", loc="left", fontsize=10)
    ax.set_xticks(x)
    ax.set_ylim(bottom=0)


figure = Figure(figsize=(11.5, 4.8), layout="constrained")
left, right = figure.subplots(1, 2, sharey=False, width_ratios=(1.6, 1))
draw_hosts(left)
draw_superchips(right)
for one in (left, right):
    one.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False, handlelength=2.6)
keep(figure, "offload_crossing")
