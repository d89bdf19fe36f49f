"""Step time of eight GPUs that offload through shared uplinks: ``python plots/sweep_offload.py``."""

from pathlib import Path
from tempfile import TemporaryDirectory

from sim.report.figure import save
from sim.report.sweep_plot import sweep_figure
from sim.study.knobs import read
from sim.study.sweep import Asked, sweep

KNOBS = (
    "cluster.host.dram_bandwidth=50GB/s:800GB/s:10log",
    "cluster.host_link.uplink=6GB/s,12GB/s,24GB/s,48GB/s",
)
SETS = ("layout.dp=8", "batch.micro=1", "model.layers=20")

if __name__ == "__main__":  # points run in processes of their own
    with TemporaryDirectory() as folder:
        asked = Asked(source="zero-offload-10b-v100", overrides=SETS, knobs=read(KNOBS), out=Path(folder))
        save(sweep_figure(sweep(asked)), Path(__file__).parent / "sweep-offload.png", "png")
