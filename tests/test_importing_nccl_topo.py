"""NCCL's topology XML: what public files say is what is read; hostile ones are refused at once, with the place."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from sim.errors import ScenarioError
from sim.importing import nccl_topo
from sim.importing.facts import SWITCH, Port
from sim.importing.nccl_topo import read

SAMPLES = Path(__file__).parent / "fixtures" / "import"


def test_a_supplied_file_without_gpus_is_read_by_pci_class():
    """Azure ND A100 v4: four NUMA nodes, two GPUs and two adapters behind each switch; no gpu, nic or nvlink in it."""
    machine = read(SAMPLES / "ndv4.xml")
    assert len(machine.gpus) == len(machine.nics) == 8
    assert machine.numas == 4
    assert machine.cores == (24, 24, 24, 24)
    assert machine.cpu == "AuthenticAMD/23/49"
    assert machine.switches == tuple(((i, i + 1), Port(transfers=16.0, lanes=16)) for i in (0, 2, 4, 6))
    assert all(gpu.links is None and gpu.sm is None for gpu in machine.gpus)
    assert [nic.near for nic in machine.nics] == [(0, 1)] * 2 + [(2, 3)] * 2 + [(4, 5)] * 2 + [(6, 7)] * 2


def test_a_dump_tells_gpus_switches_links_and_adapters():
    machine = read(SAMPLES / "h200-dump.xml")
    assert [gpu.links for gpu in machine.gpus] == [{SWITCH: 17 if i == 2 else 18} for i in range(8)]
    assert [gpu.port.lanes for gpu in machine.gpus] == [8 if i == 5 else 16 for i in range(8)]
    assert {gpu.pci for gpu in machine.gpus} == {"10de:2335"}
    assert machine.cores == (24, 24)  # two runs of one length: the threads of 24 cores
    assert [nic.rdma for nic in machine.nics] == [True] * 4 + [False] + [True] * 4
    assert machine.nics[0].rate == 50e9


def test_empty_speed_no_width_and_a_link_to_itself():
    """Azure NC A100 v4: link_speed="" and link_width="0"; the four-GPU file names each GPU as its own NVLink target."""
    four, two = read(SAMPLES / "ncv4.xml"), read(SAMPLES / "nc48v4.xml")
    assert all(gpu.port == Port() for gpu in (*four.gpus, *two.gpus))
    assert all(gpu.links == {} for gpu in four.gpus)
    assert len(four.remarks) == 4
    assert [gpu.links for gpu in two.gpus] == [{"0002:00:00.0": 12}, {"0001:00:00.0": 12}]


def test_gpus_are_in_the_order_of_their_numbers(tmp_path):
    text = (SAMPLES / "nc48v4.xml").read_text().replace('dev="0" sm', 'dev="7" sm')
    (tmp_path / "a.xml").write_text(text)
    assert [gpu.name for gpu in read(tmp_path / "a.xml").gpus] == ["0002:00:00.0", "0001:00:00.0"]


GOOD = (SAMPLES / "nc48v4.xml").read_text()
TENFOLD = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij"))
BOMB = f'<!DOCTYPE system [<!ENTITY a "aaaaaaaaaa">{TENFOLD}]><system version="1">&j;</system>'
HOSTILE = {
    "bomb": (BOMB, "document type declaration"),
    "outside": ('<!DOCTYPE s SYSTEM "file:///etc/passwd"><system version="1"/>', "document type declaration"),
    "cut": (GOOD[: len(GOOD) // 2], "not well-formed"),
    "empty": (" \n", "is empty"),
    "binary": (b"\x7fELF\0\0\1", "not well-formed"),
    "encoding": ('<?xml version="1.0" encoding="klingon"?><system/>', "unknown encoding"),
    "latin": (GOOD.replace("eth0", "caf\u00e9").encode("latin-1"), "not well-formed"),
    "graph": ('<graphs version="1"/>', "NCCL_GRAPH_DUMP_FILE"),
    "version": ('<system version="9"/>', "version 9"),
    "no gpu": ('<system version="1"><cpu numaid="0"/></system>', "names no GPU"),
    "count nan": (GOOD.replace('count="12"', 'count="nan"', 1), "nvlink.count: 'nan' is no whole number"),
    "count -1": (GOOD.replace('count="12"', 'count="-1"', 1), "nvlink.count"),
    "count huge": (GOOD.replace('count="12"', 'count="99999999999999999999999"', 1), "nvlink.count"),
    "count missing": (GOOD.replace('count="12"', "", 1), "nvlink.count"),
    "width": (GOOD.replace('link_width="0"', 'link_width="64"', 1), "pci.link_width"),
    "speed": (GOOD.replace('link_speed=""', 'link_speed="1e99 GT/s"', 1), "link_speed: '1e99 GT/s'"),
    "rate": (GOOD.replace('speed="100000"', 'speed="-5"'), "net.speed"),
    "mask": (GOOD.replace('affinity="0000', 'affinity="zzzz', 1), "affinity"),
    "numa": (GOOD.replace('numaid="0"', 'numaid="many"'), "cpu.numaid"),
    "twice": (GOOD.replace('busid="0002', 'busid="0001'), "bus id '0001:00:00.0' is that of line 4 too"),
    "deep": ("<system>" + "<pci>" * 100_000, "nested more than"),
    "many": ('<system version="1">' + "<cpu/>" * 60_000 + "</system>", "more than 50000 elements"),
    "huge": ("<system>" + " " * (9 << 20), "larger than 8 MiB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(name, tmp_path):
    text, words = HOSTILE[name]
    path = tmp_path / "bad.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.perf_counter()
    with pytest.raises(ScenarioError) as caught:
        read(path)
    assert time.perf_counter() - began < 2
    assert words in str(caught.value)
    assert "bad.xml" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_no_such_file_and_a_folder(tmp_path):
    for path in (tmp_path, tmp_path / "gone.xml"):
        with pytest.raises(ScenarioError, match="there is no such file"):
            read(path)


def test_every_cut_of_a_file_is_refused_or_read_never_a_crash(tmp_path):
    text, path = (SAMPLES / "h200-dump.xml").read_bytes(), tmp_path / "cut.xml"
    for end in range(0, len(text), 97):
        path.write_bytes(text[:end])
        with pytest.raises(ScenarioError):
            nccl_topo.read(path)
