"""Before and after, on one axis of time: ``python plots/before_after.py``.

Delayed parameter update on a V100 (the CPU works on the last step's gradients while the GPU makes the next), and the
superchip schedule on a GH200 (each bucket is updated as it arrives, the last ones on the GPU).
"""

from __future__ import annotations

from common import keep
from matplotlib.figure import Figure

from sim.api import run
from sim.report import timeline_plot

PAIRS = {
    "delayed_update": (
        "zero-offload-10b-v100",
        {"update after backward": [], "one-step delayed update": ["offload.update=delayed"]},
    ),
    "superchip": (
        "zero-offload-10b-gh200",
        {
            "update after backward": [],
            "speculative update, last fifth on the GPU, casts on the GPU": [
                "offload.update=speculative", "offload.ratio=0.8", "offload.casts=gpu", "layout.grad_bucket=64 MB",
            ],
        },
    ),
}  # fmt: skip

for name, (scenario, variants) in PAIRS.items():
    steps = {words: run(scenario, sets) for words, sets in variants.items()}
    end = max(step.timeline.makespan for step in steps.values())
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    seen = {}
    for ax, (words, step) in zip(figure.subplots(2, 1, sharex=True), steps.items(), strict=True):
        timeline_plot.draw(ax, step.timeline, 0, (0.0, end))
        legend = ax.get_legend()
        seen.update({text.get_text(): handle for text, handle in zip(legend.texts, legend.legend_handles, strict=True)})
        legend.remove()
        if ax.get_subplotspec().is_first_row():
            ax.set_xlabel("")
        ax.set_title(f"{words}: {step.result.step_time:.3g} s", loc="left", fontsize=10)
        print(f"{scenario}, {words}: {step.result.step_time:.4g} s")
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=len(seen), fontsize=8, frameon=False)
    keep(figure, name)
