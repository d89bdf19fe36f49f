"""Whole-process seconds and memory at scale, and how cost grows.

    python benchmarks/scale.py [--json] [--runs N] [--unfolded]

``--unfolded`` adds GPT-3 175B on 1024 GPUs with every rank simulated, once: it takes minutes.

Targets are the project's own. Growth is a ratio within one run: data-parallel ranks 8 -> 1024, microbatches doubled.
"""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from sim.cluster.build import build as build_cluster  # noqa: E402
from sim.cost.lower import lower  # noqa: E402
from sim.engine.core import simulate  # noqa: E402
from sim.spec.load import load  # noqa: E402
from sim.workload.build import build as build_workload  # noqa: E402

TARGETS = {  # scenario -> (seconds, MB)
    "gpt3-175b-1024": (2.5, None),
    "llama3-405b-16k": (4.0, None),
    "lecture-4096": (4.0, 500),
}
UNFOLDED = (120.0, 4295)  # seconds, MB (4 GiB)


def process(*args):
    """(seconds, MB of peak memory) of one whole process that prints JSON."""
    begin = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "sim", "run", *args, "--json"], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, args
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def measure(runs, *args):
    """Medians over several processes."""
    rows = [process(*args) for _ in range(runs)]
    return round(median(s for s, _ in rows), 2), round(median(mb for _, mb in rows))


def growth(runs):
    """Ratios of whole-process seconds."""

    def gpt(dp, accumulation):
        nodes, batch = 8 * dp, ["batch.size=null", f"batch.accumulation={accumulation}"]
        sets = [f"layout.dp={dp}", f"cluster.nodes={nodes}", *batch]
        return measure(runs, "gpt3-175b-1024", *(word for s in sets for word in ("--set", s)))[0]

    return {
        "dp 8 -> 1024 (target 1.3)": round(gpt(1024, 32) / gpt(8, 32), 2),
        "microbatches 96 -> 192 (2 is linear)": round(gpt(16, 192) / gpt(16, 96), 2),
    }


def folded_against_every_rank(variations=()):
    """GPT-3's layout on 1024 GPUs, 8 microbatches of 24 layers: spans folded, and with every rank simulated.

    The largest difference of any start or end over the step, and seconds.
    """
    sets = ["batch.size=null", "batch.accumulation=8", "model.layers=24", *variations]
    scenario = load("gpt3-175b-1024", sets).scenario
    workload, cluster = build_workload(scenario), build_cluster(scenario.cluster)
    begin = time.perf_counter()
    folded = simulate(lower(workload, cluster, scenario, merged=True))
    between = time.perf_counter()
    whole = simulate(lower(workload, cluster, scenario, fold=False, merged=True))
    seconds = [round(between - begin, 2), round(time.perf_counter() - between, 2)]
    every = {row.representative: number for number, row in enumerate(whole.rank_classes)}
    worst = 0.0
    for number, row in enumerate(folded.rank_classes):
        for a, b in zip(times(folded, number), times(whole, every[row.representative]), strict=True):
            worst = max(worst, float(np.abs(a - b).max()))
    return {"classes": len(folded.rank_classes), "difference": worst / whole.makespan, "seconds": seconds}


def times(timeline, rank_class):
    """Starts and ends of a rank class's spans, each in order."""
    mine = np.array([op.rank_class for op in timeline.ops])[timeline.spans.op] == rank_class
    return np.sort(timeline.spans.start[mine]), np.sort(timeline.spans.end[mine])


def main():
    """Print the figures beside their targets, with modules compiled as an installation has them."""
    compileall.compile_dir(ROOT / "sim", quiet=1)
    runs = int(sys.argv[sys.argv.index("--runs") + 1]) if "--runs" in sys.argv else 5
    found = {}
    for name, (seconds, memory) in TARGETS.items():
        took, used = measure(runs, name)
        found[name] = {"seconds": took, "target": seconds, "MB": used, "target_MB": memory}
        found[name]["met"] = took <= seconds and (memory is None or used <= memory)
    found["growth"] = growth(runs)
    if "--unfolded" in sys.argv:
        took, used = measure(1, "gpt3-175b-1024", "--no-fold")
        met = took <= UNFOLDED[0] and used <= UNFOLDED[1]
        found["folded against every rank"] = folded_against_every_rank()
        found["unfolded"] = {"seconds": took, "target": UNFOLDED[0], "MB": used, "target_MB": UNFOLDED[1], "met": met}
    if "--json" in sys.argv:
        print(json.dumps(found))
    else:
        for name, row in found.items():
            print(f"{name:18} {row}")


if __name__ == "__main__":
    main()
