"""Draw the step of one shipped scenario into this folder: ``python plots/step.py NAME``."""

import sys
from pathlib import Path

from sim.api import run
from sim.report.figure import save, step_figure

step = run(sys.argv[1])
save(step_figure(step.timeline, step.result), Path(__file__).parent / f"{sys.argv[1]}.png", "png")
