"""What a step would gain from faster parts, each simulated: ``python plots/tornado.py SCENARIO...``."""

import sys
from pathlib import Path

from sim.api import run
from sim.report.files import write_figure
from sim.report.tornado_plot import tornado_figure
from sim.study.whatif import what_if

HERE = Path(__file__).parent

for name in sys.argv[1:] or ["zero-offload-10b-v100"]:
    write_figure(HERE, f"{name}-tornado", tornado_figure(what_if(run(name)), name))
