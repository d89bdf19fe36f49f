"""Commands on foreign descriptions of machines: make a node file of one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.common import console_of, write_new

if TYPE_CHECKING:
    from sim.importing.facts import Machine

Out = Annotated[Path | None, typer.Option(metavar="NAME.yaml", help="Where to write it; default: standard output.")]
Gpu = Annotated[str, typer.Option("--gpu", metavar="NAME", help="The shipped device, where the file does not tell it.")]
Like = Annotated[str, typer.Option("--like", metavar="NAME", help="The shipped node to fill from; default: nearest.")]


def nccl_topo(
    file: Annotated[Path, typer.Argument(metavar="FILE.xml", help="What NCCL_TOPO_DUMP_FILE wrote.")],
    out: Out = None,
    gpu: Gpu = "",
    like: Like = "",
) -> None:
    """Make a node file of NCCL's topology XML; what it lacks is filled from the catalogue, and marked."""
    from sim.importing.nccl_topo import read

    _write(read(file), file, "nccl-topo", (out, gpu, like))


def nvidia_smi_topo(
    file: Annotated[Path, typer.Argument(metavar="FILE.txt", help="The output of nvidia-smi topo -m.")],
    out: Out = None,
    gpu: Gpu = "",
    like: Like = "",
) -> None:
    """Make a node file of the matrix of nvidia-smi topo -m; what it lacks is filled from the catalogue, and marked."""
    from sim.importing.nvidia_smi import read

    _write(read(file), file, "nvidia-smi-topo", (out, gpu, like))


def _write(machine: Machine, file: Path, command: str, options: tuple[Path | None, str, str]) -> None:
    """Write the node file once it is known to load."""
    import tempfile

    from sim.api import cluster
    from sim.importing.node_file import comment, node_file
    from sim.spec.write import to_yaml

    out, gpu, like = options
    name = (out or file).stem
    found = node_file(machine, file, name, gpu, like)
    text = to_yaml(found.document, comment(found, f"stepline import {command} {file.name}"))
    with tempfile.TemporaryDirectory() as scratch:
        trial = Path(scratch) / f"{name}.yaml"
        trial.write_text(text, encoding="utf-8")
        cluster(str(trial))
    console = console_of(stderr=True)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if out is None:
        sys.stdout.write(text)
        return
    write_new(out, text)
    path = str(out) if "/" in str(out) else f"./{out}"
    console.print(
        f"wrote {out}: {found.told} values of {file.name}, {found.filled} of the catalogue (marked in sources); next: "
        f"stepline topology show {path}, or cluster: {path} in a scenario",
        soft_wrap=True,
    )
