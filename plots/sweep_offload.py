"""Step time of eight GPUs that offload through shared uplinks: ``python plots/sweep_offload.py``."""

from pathlib import Path
from tempfile import TemporaryDirectory

from common import QUICK, keep, some

from sim.report.sweep_plot import sweep_figure
from sim.study.knobs import read
from sim.study.sweep import Asked, sweep

KNOBS = (
    f"cluster.host.dram_bandwidth=50GB/s:800GB/s:{len(some(range(10)))}log",
    "cluster.host_link.uplink=" + ",".join(some(["6GB/s", "12GB/s", "24GB/s", "48GB/s"])),
)
SETS = ("layout.dp=8", "batch.micro=1", "model.layers=20")

if __name__ == "__main__":  # points run in processes of their own
    with TemporaryDirectory() as folder:
        knobs, jobs = read(KNOBS), int(QUICK)
        asked = Asked(source="zero-offload-10b-v100", overrides=SETS, knobs=knobs, out=Path(folder), jobs=jobs)
        keep(sweep_figure(sweep(asked)), "sweep-offload")
