"""Commands that fit the model to a user's own measurements and write what a scenario then uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.common import Sets, console_of, progress_bar, write_new

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rich.console import Console

    from sim.importing.nccl_tests import Sweep


Out = Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Where to write the override; default: nowhere.")]


def nccl_tests(  # noqa: PLR0917 - options of a command
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Output of nccl-tests: text, or JSON (-J).")],
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="Cluster or node they ran on, shipped or a path; default: by its GPU.")
    ] = "",
    out: Out = None,
    collective: Annotated[str, typer.Option(help="What was run, where a log does not say: all_reduce, ...")] = "",
    ranks: Annotated[int, typer.Option(min=0, help="GPUs that took part, where a log does not say.")] = 0,
    in_place: Annotated[bool, typer.Option("--in-place", help="Fit the in-place times instead.")] = False,
) -> None:
    """Fit latency and bandwidth of a cluster's collectives to nccl-tests logs; print residuals, write the override."""
    from sim import api
    from sim.calibration.collectives import calibrate
    from sim.calibration.text import show_collectives
    from sim.importing.nccl_tests import KINDS, read

    console = console_of()
    if collective and collective not in KINDS.values():
        _refuse("--collective", f"{collective!r} is not one of {', '.join(sorted(KINDS.values()))}")
    sweeps = [sweep for log in logs for sweep in read(log, collective, ranks)]
    name = cluster or _cluster_of(console, sweeps)
    target = out or Path("calibrated.yaml")
    found = calibrate(sweeps, name, api.cluster(name), target, in_place=in_place)
    show_collectives(console, found)
    use = "cluster: {0} in a scenario, or stepline run SCENARIO --set cluster={0} [--set cluster.nodes=N]"
    _write(console, found.document, out, ("nccl-tests", name, use), fitted=bool(found.parameters))


def gemm(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Columns m,n,k,dtype and seconds (or us).")],
    device: Annotated[str, typer.Option(metavar="NAME", help="The device they ran on, shipped or a path.")],
    out: Out = None,
) -> None:
    """Fit the speed of matrix products on a device to timings; print residuals, write the override."""
    from sim import api
    from sim.calibration.gemm import calibrate, document
    from sim.calibration.text import show_gemm
    from sim.importing.gemm_table import read

    console, spec = console_of(), api.device(device)
    tables = calibrate(read(file), spec, str(file))
    for table in tables:
        show_gemm(console, table, spec.name)
    use = "cluster: {{extends: NAME, device: {0}}} in a scenario, or stepline run SCENARIO --set cluster.device={0}"
    found = document(tables, device, spec, file.name, out) if out and any(t.parameters for t in tables) else None
    _write(console, found, out, ("gemm", device, use), fitted=any(table.parameters for table in tables))


def steps(  # noqa: PLR0917 - options of a command
    files: Annotated[list[Path], typer.Argument(metavar="FILE.csv...", help="Measured steps, as for validate.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write STACK.yaml, one a stack; default: nowhere.")
    ] = None,
    stack: Annotated[str, typer.Option(metavar="NAME", help="The stack that ran; default: as validate takes it.")] = "",
    fit: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=LEAST:MOST", help="A key to fit, e.g. stack.launch_factor=5:30; more: again."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overrides: Sets = None,
) -> None:
    """Fit to measured steps: the share of short-burst speed that lasts, one a device and stack, or other keys."""
    from collections import Counter

    from sim.calibration.axes import read as axes_of
    from sim.calibration.steps import Asked, calibrate, documents
    from sim.calibration.text import show_steps
    from sim.validation.rows import read

    console = console_of()
    rows = [row for file in files for row in read(file)]
    if not rows:
        _refuse(str(files[0]), "has no row below its heading")
    with progress_bar(console) as progress:
        asked = Asked(stack=stack, overrides=tuple(overrides or ()), axes=axes_of(fit or ()), jobs=jobs)
        found, refused = calibrate(rows, asked, progress)
    for one in found:
        show_steps(console, one)
    for reason, count in Counter(one.refused for one in refused).items():
        console.print(f"{count} refused: {reason}", soft_wrap=True)
    if not found:
        _refuse(str(files[0]), f"none of {len(rows)} rows can be simulated; see above")
    for number in (number for one in found for number in one.numbers if not number.axis.key.startswith("stack.")):
        console.print(f"not a number of a stack: --set '{number.axis.override(number.value)}' uses it", soft_wrap=True)
    use = "stack: {0} in a scenario, or stepline run SCENARIO --set stack={0}"
    names = ", ".join(file.name for file in files)
    for name, document in documents(found, names, out or Path()).items():
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        path = None if out is None else out / f"{name}.yaml"
        _write(console, document, path, ("steps", names, use), fitted=True)


def _cluster_of(console: Console, sweeps: Sequence[Sweep]) -> str:
    """The shipped node that has the GPU which the logs name."""
    from sim.importing.likeness import node_with

    products = list(dict.fromkeys(sweep.product for sweep in sweeps if sweep.product))
    names = list(dict.fromkeys(node_with(product) for product in products))
    if len(names) != 1 or not names[0]:
        said = f"GPUs {', '.join(products)}: " if products else "no GPU's name: "
        what = f"the logs hold {said}no one shipped node follows; name the cluster (stepline list clusters)"
        _refuse("--cluster", what)
    console.print(f"cluster taken to be {names[0]}, by {products[0]}; --cluster names another")
    return names[0]


def _refuse(option: str, what: str) -> None:
    from sim.errors import Problem, ScenarioError

    raise ScenarioError([Problem(option, 0, 0, "", what)])


def _write(
    console: Console, document: Mapping[str, Any] | None, out: Path | None, said: tuple[str, str, str], *, fitted: bool
) -> None:
    """Write an override and say how a scenario uses it; ``said``: the command, what it was fitted on, the use."""
    from sim.spec.write import to_yaml

    if not fitted:
        console.print("nothing to write: these measurements decide no parameter")
    elif out is None or document is None:
        console.print("nothing written; --out FILE.yaml writes an override that a scenario can use")
    else:
        path = str(out) if "/" in str(out) else f"./{out}"
        command, of, use = said
        text = use.format(path)
        write_new(out, to_yaml(document, [f"Written by stepline calibrate {command}, from {of}.", f"Use: {text}."]))
        console.print(f"wrote {out}; use it with {text}", soft_wrap=True)
