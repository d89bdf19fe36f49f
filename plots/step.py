"""Draw the step of one shipped scenario into this folder: ``python plots/step.py NAME``."""

import sys

from common import keep

from sim.api import run
from sim.report.figure import step_figure

step = run(sys.argv[1])
keep(step_figure(step.timeline, step.result), sys.argv[1])
