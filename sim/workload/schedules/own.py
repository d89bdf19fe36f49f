"""The user's own pipeline order: the text of its file, read, checked, and held against layout and batch.

Owns the rules between the file and the rest of the scenario. The file is data: nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.errors import Problem, ScenarioError
from sim.spec.types import Scenario, ScheduleFile
from sim.workload.schedules.csv_text import ReadSchedule, from_csv
from sim.workload.schedules.types import Schedule


def own_schedule(scenario: Scenario, file: ScheduleFile) -> ReadSchedule:
    """The schedule of a file, which has the pipeline ranks, stages and microbatches that the scenario has.

    Raises:
        ScenarioError: all that is wrong with the file, or with the two together, each with rule and remedy.
    """
    read = from_csv(file.text, file.name)
    problems = [Problem(file.name, 0, 0, key, what) for key, what in _disagreements(scenario, read.schedule)]
    if problems:
        raise ScenarioError(problems)
    return read


def faults(file: ScheduleFile) -> list[Problem]:
    """What is wrong with the text of a file on its own, layout and batch aside."""
    try:
        from_csv(file.text, file.name)
    except ScenarioError as error:
        return error.problems
    return []


def _disagreements(scenario: Scenario, schedule: Schedule) -> Iterator[tuple[str, str]]:
    layout, batch = scenario.layout, scenario.batch
    if schedule.ranks != layout.pp:
        what = f"{schedule.ranks} rows, a row a pipeline rank, and layout.pp is {layout.pp}"
        yield "layout.pp", f"{what}; set pp to {schedule.ranks}, or give {layout.pp} rows"
    stages = layout.pp * layout.virtual_stages
    if schedule.stages != stages and not (schedule.ranks != layout.pp and layout.virtual_stages == 1):
        what = f"{schedule.stages} stages (numbered from 0), and layout.pp * layout.virtual_stages is {stages}"
        fitting = schedule.stages // layout.pp
        remedy = (
            f"set virtual_stages to {fitting}"
            if fitting * layout.pp == schedule.stages
            else f"number the stages 0 to {stages - 1}"
        )
        yield "layout.virtual_stages", f"{what}; {remedy}"
    if schedule.microbatches != batch.accumulation:
        what = f"{schedule.microbatches} microbatches, and batch.accumulation is {batch.accumulation}"
        yield "batch.accumulation", f"{what}; set accumulation to {schedule.microbatches}, or schedule as many"
    if schedule.copies == 2:
        yield from _unreduced(scenario)


def _unreduced(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Two copies of the parameters: gradients stay whole on each rank until both copies reduce them, once a step."""
    layout = scenario.layout
    said = "two directions hold the parameters twice and reduce the gradients of both once a step; with"
    if layout.zero >= 2:
        yield "layout.zero", f"{said} zero: {layout.zero} this is not simulated; set zero to 1"
    if layout.dp_replicate > 1:
        yield "layout.dp_replicate", f"{said} dp_replicate this is not simulated; leave it out"
    if scenario.offload.optimizer != "none":
        yield "offload", f"{said} offload this is not simulated; set offload: none"
