"""The matrix of nvidia-smi topo -m: real ones are read whole, broken ones are refused with the row."""

from pathlib import Path

import pytest

from sim.errors import ScenarioError
from sim.importing.facts import Port
from sim.importing.nvidia_smi import read
from sim.importing.wiring import adapters, nvlinks, uplinks

SAMPLES = Path(__file__).parent / "fixtures" / "import"


def test_a_plain_matrix():
    machine = read(SAMPLES / "a100-smi.txt")
    assert len(machine.gpus) == 8
    assert machine.cores == (24, 24)
    assert machine.switches is None
    found = nvlinks(machine)
    assert (found.kind, found.links) == ("switch", (12,) * 8)


def test_adapters_legends_colours_and_the_tag_of_mpirun():
    machine = read(SAMPLES / "h100-smi.txt")
    assert len(machine.nics) == 12
    assert [nic.near for nic in machine.nics if nic.near] == [(g,) for g in range(8)]
    assert machine.cores == (56, 56)
    assert machine.products == ("NVIDIA H100 80GB HBM3 On",)
    assert adapters(machine).count == 8
    assert uplinks(machine, 2).size == 1


def matrix(cells, tails=()):
    names = [f"GPU{i}" for i in range(len(cells))]
    rows = [" ".join([n, *row, *(tails[i : i + 1])]) for i, (n, row) in enumerate(zip(names, cells, strict=True))]
    return "\n".join([" ".join(names) + " CPU Affinity NUMA Affinity", *rows, ""])


def of(tmp_path, text):
    (tmp_path / "m.txt").write_text(text)
    return read(tmp_path / "m.txt")


def test_pairs_mesh_switch_and_nothing(tmp_path):
    cube = [[("X" if i == j else "NV4") for j in range(4)] for i in range(4)]
    assert nvlinks(of(tmp_path, matrix(cube)), 12).kind == "full"  # 3 x 4 links is what an A100 has
    cube[0][1] = cube[1][0] = "NV2"
    assert nvlinks(of(tmp_path, matrix(cube)), 12).kind == "mesh"
    assert nvlinks(of(tmp_path, matrix(cube)), 6).kind == "switch"
    pairs = [("X NV12 SYS SYS", "NV12 X SYS SYS", "SYS SYS X NV12", "SYS SYS NV12 X")[i].split() for i in range(4)]
    found = nvlinks(of(tmp_path, matrix(pairs)))
    assert found.kind == "none"
    assert "{0, 1} {2, 3}" in found.remarks[0]
    machine = of(tmp_path, matrix([["X", "PIX", "SYS"], ["PIX", "X", "SYS"], ["SYS", "SYS", "X"]]))
    assert nvlinks(machine).kind == "none"
    assert machine.switches == (((0, 1), Port()),)


def test_one_gpu_and_no_affinity(tmp_path):
    machine = of(tmp_path, "\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-19\t0\n")
    assert (len(machine.gpus), machine.cores, machine.numas) == (1, (20,), 1)
    assert of(tmp_path, "GPU0 CPU Affinity\nGPU0 X N/A N/A\n").numas == 0
    assert of(tmp_path, f"GPU0 CPU Affinity\nGPU0 X 0-{'9' * 5000} 0\n").cores == ()


BROKEN = {
    "no matrix": ("hello\n", "holds no matrix"),
    "row missing": (matrix([["X", "SYS"], ["SYS", "X"]]).rsplit("GPU1", 1)[0], "no row for GPU1"),
    "cell missing": (matrix([["X", "SYS"], ["X"]]), "1 cells"),
    "glued": (matrix([["X", "SYSSYS"], ["SYS", "X"]]), "'SYSSYS' is none of"),
    "unknown": (matrix([["X", "NV-3"], ["NV-3", "X"]]), "'NV-3' is none of"),
    "links": (matrix([["X", "NV9999"], ["NV9999", "X"]]), "'NV9999' is none of"),
    "lopsided": (matrix([["X", "NV4"], ["NV2", "X"]]), "GPU0 to GPU1 is NV4, and back NV2"),
    "self": (matrix([["SYS", "X"], ["X", "SYS"]]), "X stands for the device itself"),
    "twice": ("GPU0 GPU0 CPU\n", "in the heading twice"),
    "wide": (" ".join(f"GPU{i}" for i in range(300)) + " CPU\n", "300 devices"),
    "long": ("x" * 30_000 + "\n", "more than 20000 letters"),
    "zero": ("GPU0\0\n", "zero byte"),
    "utf16": (matrix([["X"]]).encode("utf-16"), "zero byte"),
    "latin": (b"caf\xe9\n", "UTF-8"),
    "empty": ("", "is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_matrices_are_refused_with_the_row(name, tmp_path):
    text, words = BROKEN[name]
    (tmp_path / "m.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path / "m.txt")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400
