"""The command ``stepline``: words in, words and files out. Computes nothing.

Exit codes: 0 the scenario fits, 1 it does not, 2 bad input, 3 a fault of ours. Rooms are imported inside the commands
that need them, so that ``stepline --help`` answers at once. A new command is a function in one of this room's files and
a line in ``COMMANDS`` (or ``GROUPS``, for ``stepline GROUP COMMAND``).
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable

import typer

from sim.cli import calibrating, exporting, figures, files, importing, machines, pages, step, studies, why

COMMANDS: dict[str, Callable[..., None]] = {
    "run": step.run,
    "report": pages.report,
    "check": step.check,
    "explain": why.explain,
    "export": exporting.export,
    "compare": studies.compare,
    "validate": studies.validate,
    "sweep": studies.sweep,
    "schedule": step.schedule,
    "plot": figures.plot,
    "list": files.list_,
    "init": files.init,
    "schema": files.schema,
}
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "topology": ("Machines: look at one.", {"show": machines.topology_show}),
    "calibrate": (
        "Fit the model to your own measurements.",
        {"nccl-tests": calibrating.nccl_tests, "gemm": calibrating.gemm, "steps": calibrating.steps},
    ),
    "import": (
        "Machines: make a node file of what other tools say.",
        {"nccl-topo": importing.nccl_topo, "nvidia-smi-topo": importing.nvidia_smi_topo},
    ),
}

app = typer.Typer(
    name="stepline",
    help="How long does a training step take on this cluster, and why? Simulated, op by op.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, (_help, _commands) in GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True)
    app.add_typer(_group, name=_name)
    for _sub, _command in _commands.items():
        _group.command(_sub)(_command)


def main() -> None:
    """Run the command; turn every failure into words and an exit code."""
    from sim.errors import SteplineError

    # NOTE: a command lives for seconds and makes few cycles, but hundreds of thousands of objects that stay: looking
    # through them again and again for cycles is a tenth of a large step.
    gc.set_threshold(500_000, 20, 20)
    # NOTE: our blocks have no use for plug-ins of pydantic, which looks for them in every installed package: 20 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?" instead of failing
    try:
        app()
    except SteplineError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away: not our failure
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        sys.stderr.write(
            f"internal error: {type(error).__name__}: {error}\nThis is a fault of Stepline, not of your scenario; "
            "please report it with the scenario. STEPLINE_DEBUG=1 shows where it happened.\n"
        )
        if os.environ.get("STEPLINE_DEBUG"):
            raise
        sys.exit(3)
    finally:
        # NOTE: the interpreter looks for cycles once more before it ends: 0.1 s of a large run, for nothing.
        gc.freeze()
