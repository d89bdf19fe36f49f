"""The command that hands a step to other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import Named, Sets, console_of, folder_of, progress_bar


class Format(StrEnum):
    """What ``stepline export`` writes."""

    kineto = "kineto"
    perfetto = "perfetto"
    chakra = "chakra"
    memory = "memory"
    csv = "csv"


def export(  # noqa: PLR0917 - options of a command
    named: Named,
    kind: Annotated[Format, typer.Option("--format", help="What to write.")],
    ranks: Annotated[
        str, typer.Option(metavar="RANKS", help="0,8-11, or all, or each: one of every kind of rank.")
    ] = "each",
    out: Annotated[Path | None, typer.Option(help="Directory; default: FORMAT in the run's.")] = None,
    overrides: Sets = None,
    no_fold: Annotated[bool, typer.Option("--no-fold", help="Simulate every rank, not one of each kind.")] = False,
) -> None:
    """Write a step as traces, tables or programs that other tools read."""
    from sim.api import class_of_rank, program
    from sim.export import ranks as chosen
    from sim.export.chakra import Program
    from sim.export.export import FORMATS, Exported
    from sim.export.export import export as write
    from sim.study.opened import open_step

    console = console_of()
    with progress_bar(console) as progress:
        opened = open_step(named, overrides or (), fold=not no_fold, progress=progress)
    step = opened.step
    some = chosen.chosen(ranks, step.timeline)

    def programs() -> Program:
        workload, plan, of = program(step.scenario)
        return Program(workload=workload, plan=plan, rank_class=of)

    what = Exported(
        timeline=step.timeline,
        result=step.result,
        lives=chosen.lives(step.timeline, some, class_of_rank(step)),
        program=programs,
    )
    where = out or (opened.folder or folder_of(step.scenario.name)) / kind.value
    paths = write(what, kind.value, where)
    console.print(f"{FORMATS[kind.value].says}: {len(some)} rank(s) of {step.result.ranks}", soft_wrap=True)
    shown = ", ".join(str(path) for path in paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
    console.print(f"files: {shown}", soft_wrap=True)
