"""Whatever a file says: it becomes a node that loads, or is refused in words; no reader fails in any other way."""

import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.api import cluster
from sim.errors import ScenarioError
from sim.importing import gemm_table, identities, nccl_tests, nccl_topo, nvidia_smi
from sim.importing.facts import SWITCH, Gpu, Machine, Nic, Port
from sim.importing.node_file import node_file
from sim.spec.write import to_yaml

SAMPLES = Path(__file__).parent / "fixtures"
SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@st.composite
def machines(draw):
    count = draw(st.integers(1, 16))
    numas = draw(st.integers(0, 5))
    told = draw(st.sampled_from(["nothing", "none", "switch", "mesh"]))
    ports = st.builds(
        Port, transfers=st.sampled_from([None, 2.5, 8.0, 16.0, 32.0, 64.0]), lanes=st.sampled_from([None, 1, 4, 8, 16])
    )

    def links(i):
        if told == "mesh":
            return {f"g{j}": draw(st.integers(1, 4)) for j in range(count) if j != i and draw(st.booleans())}
        return {"nothing": None, "none": {}, "switch": {SWITCH: draw(st.integers(1, 18))}}[told]

    gpus = tuple(
        Gpu(name=f"g{i}", numa=draw(st.integers(0, numas - 1)) if numas else None, port=draw(ports), links=links(i))
        for i in range(count)
    )
    cuts = sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=4))})
    groups = [(tuple(range(a, b)), draw(ports)) for a, b in pairwise(cuts)]
    nics = draw(st.lists(
        st.builds(
            Nic, name=st.text("abc", min_size=1), near=st.sampled_from([(), *[g for g, _ in groups]]),
            rate=st.sampled_from([None, 12.5e9, 25e9, 50e9]), rdma=st.sampled_from([None, True, False]),
        ),
        max_size=12,
    ))  # fmt: skip
    return Machine(
        file="made", gpus=gpus, nics=tuple(nics), numas=numas, bonded=draw(st.booleans()),
        cores=tuple(draw(st.lists(st.integers(1, 96), max_size=numas))), switches=draw(st.sampled_from([None, groups])),
        cpu=draw(st.sampled_from([None, "AuthenticAMD/25/1", "GenuineIntel/6/143", "GenuineIntel/6/1", "arm64"])),
    )  # fmt: skip


@given(machines(), st.sampled_from(sorted(identities.gpus())))
@settings(max_examples=12, **SHARED)
def test_any_machine_becomes_a_node_that_loads(tmp_path, machine, gpu):
    found = node_file(machine, Path("made"), "made", gpu)
    (tmp_path / "made.yaml").write_text(to_yaml(found.document))
    spec = cluster(str(tmp_path / "made.yaml"))
    assert spec.gpus_per_host == len(machine.gpus)
    assert spec.device.name == gpu
    assert (spec.nics is None) == (not machine.nics)


READERS = {
    "nccl_topo": (nccl_topo.read, (SAMPLES / "import" / "h200-dump.xml").read_bytes()),
    "nvidia_smi": (nvidia_smi.read, (SAMPLES / "import" / "h100-smi.txt").read_bytes()),
    "nccl_text": (nccl_tests.read, (SAMPLES / "nccl-tests" / "p5-x2.txt").read_bytes()),
    "nccl_json": (
        nccl_tests.read,
        json.dumps({
            "args": ["all_reduce_perf"],
            "config": {"devices": [{"rank": r, "hostname": "h", "device_info": "x"} for r in range(2)]},
            "results": [{"size": 8, "root": -1, "out_of_place": {"time": 5.0, "alg_bw": 1, "bus_bw": 1}}],
        }).encode(),
    ),
    "gemm": (gemm_table.read, b"m,n,k,dtype,us\n128,128,128,bf16,7.5\n64,64,64,fp8,6\n"),
}


@pytest.mark.parametrize("name", READERS)
@given(st.data())
@settings(max_examples=40, **SHARED)
def test_a_damaged_file_is_read_or_refused_in_words(name, tmp_path, data):
    reader, text = READERS[name]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 30))
        text = text[:start] + data.draw(st.binary(max_size=8)) + text[start + length :] or b"x"
    (tmp_path / "damaged").write_bytes(text)
    with suppress(ScenarioError):
        reader(tmp_path / "damaged")
