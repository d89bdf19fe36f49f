"""What a step would gain from faster parts, each simulated: ``python plots/tornado.py SCENARIO...``."""

import sys

from common import keep

from sim.api import run
from sim.report.tornado_plot import tornado_figure
from sim.study.whatif import what_if

for name in sys.argv[1:] or ["zero-offload-10b-v100"]:
    keep(tornado_figure(what_if(run(name)), name), f"{name}-tornado")
