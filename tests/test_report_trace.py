"""The written trace, read back as an analyser reads it, tells what was put into the timeline."""

import gzip
import json
import math
from itertools import pairwise
from time import process_time

import numpy as np
import pytest

from sim.report import trace
from tests import report_fixture as made


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "t.json.gz"
    trace.write(made.timeline(), path, (made.memory(), made.host()))
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture(scope="module")
def slices(document):
    return [event for event in document["traceEvents"] if event["ph"] == "X"]


def _union(pairs):
    """Seconds covered, by sweeping over the ends: not as the analysis room does it."""
    covered, depth, since = 0.0, 0, 0.0
    for at, change in sorted(
        [(s, 1) for s, _ in pairs] + [(e, -1) for _, e in pairs], key=lambda row: (row[0], -row[1])
    ):
        covered += at - since if depth else 0.0
        depth, since = depth + change, at
    return covered


def test_the_header_is_kinetos(document):
    assert document["schemaVersion"] == 1
    assert document["distributedInfo"] == {"backend": "nccl", "rank": 0, "world_size": made.MEMBERS}
    assert document["deviceProperties"] == [{"id": 0, "name": "n0.gpu0"}]


def test_compute_communication_and_idle_are_those_of_the_timeline(slices):
    """As HTA breaks a step down. By hand: compute fills 0..9 s, collectives half of 3..9 s.

    Idle of the GPU, copies counted as work: 9..11 s, while the CPU has the step.
    """
    gpu = [e for e in slices if e["cat"] in ("kernel", "gpu_memcpy")]
    pairs = {"compute": [], "nccl": [], "copy": []}
    for e in gpu:
        kind = "copy" if e["cat"] == "gpu_memcpy" else "nccl" if e["name"].startswith("ncclDevKernel_") else "compute"
        pairs[kind].append((e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6))
    assert _union(pairs["compute"]) == pytest.approx(9.0, rel=1e-9)
    assert _union(pairs["nccl"]) == pytest.approx(3.0, rel=1e-9)
    assert _union(pairs["copy"]) == pytest.approx(1.0 + 5.9 * 0.25, rel=1e-9)
    (step,) = [e for e in slices if e["name"] == "ProfilerStep#0"]
    assert step["dur"] / 1e6 - _union([*pairs["compute"], *pairs["nccl"], *pairs["copy"]]) == pytest.approx(
        2.0, rel=1e-9
    )


def test_every_gpu_slice_has_one_launch_before_it_on_the_cpu_thread(slices):
    launches = {e["args"]["correlation"]: e for e in slices if e["cat"] == "cuda_runtime"}
    gpu = [e for e in slices if e["cat"] in ("kernel", "gpu_memcpy")]
    assert len(launches) == len(gpu) == 2999, "all but Adam"
    for e in gpu:
        launch = launches[e["args"]["correlation"]]
        assert launch["name"] == ("cudaMemcpyAsync" if e["cat"] == "gpu_memcpy" else "cudaLaunchKernel")
        assert launch["tid"] == trace.CPU_THREAD
        assert e["ts"] - launch["ts"] == pytest.approx(min(made.LAUNCH * 1e6, e["ts"]), abs=1e-6)
        assert e["tid"] == e["args"]["stream"]
        assert e["pid"] == e["args"]["device"] == 0


def test_names_are_those_that_analysers_sort_by(slices):
    names = {(e["cat"], e["name"]) for e in slices}
    assert ("kernel", "ncclDevKernel_ReduceScatter_Sum_RING") in names
    assert ("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)") in names
    assert ("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)") in names
    assert ("kernel", "mlp.up") in names
    assert ("cpu_op", "adam") in names


def test_slices_of_a_thread_nest(slices):
    """Each begins after the one before it has ended, or ends before it does (to a picosecond: floats)."""
    for tid in sorted({e["tid"] for e in slices}):
        open_until = [math.inf]
        for e in sorted((e for e in slices if e["tid"] == tid), key=lambda e: (e["ts"], -e["dur"])):
            while len(open_until) > 1 and e["ts"] >= open_until[-1] - 1e-6:
                open_until.pop()
            assert e["ts"] + e["dur"] <= open_until[-1] + 1e-6, f"{e['name']} leaves the slice it is in"
            open_until.append(e["ts"] + e["dur"])


def test_the_step_is_annotated_around_everything_on_the_launching_thread(slices):
    (step,) = [e for e in slices if e["cat"] == "user_annotation"]
    assert (step["ts"], step["dur"], step["tid"]) == (0.0, made.STEP * 1e6, trace.CPU_THREAD)
    assert max(e["ts"] + e["dur"] for e in slices) <= step["dur"] + 1e-6


def test_every_thread_and_process_has_a_name_and_a_place(document, slices):
    found = {(e["name"], e["pid"], e["tid"]): e["args"] for e in document["traceEvents"] if e["ph"] == "M"}
    assert found[("process_name", 0, 0)] == {"name": "rank 0 on n0.gpu0 (stands for 4)"}
    assert found[("process_sort_index", 0, 0)] == {"sort_index": 0}
    threads = sorted({e["tid"] for e in slices})
    order = [found[("thread_sort_index", 0, tid)]["sort_index"] for tid in threads]
    assert all(b > a for a, b in pairwise(order))
    assert found[("thread_name", 0, trace.FIRST_STREAM)] == {"name": "stream 7: compute"}


def test_gpu_memory_is_a_counter_and_host_memory_is_not_in_it(document):
    counts = [(e["ts"], e["args"]["bytes"]) for e in document["traceEvents"] if e["ph"] == "C"]
    assert [at for at, _ in counts] == [0.0, 3e6, 9e6, 12e6]
    assert [size for _, size in counts] == pytest.approx([20.1e9, 29.1e9, 25.1e9, 20.1e9])


def test_decimals_are_kept(slices):
    """Nanoseconds: the first forward kernel ends at 3 s / 1400 = 2142.857142... us."""
    first = min((e for e in slices if e["name"] == "mlp.up"), key=lambda e: e["ts"])
    assert first["dur"] == pytest.approx(3e6 / 1400, rel=1e-12)


def test_the_bytes_depend_on_the_timeline_alone(tmp_path):
    for name in ("a.gz", "b.gz"):
        trace.write(made.timeline(), tmp_path / name, (made.memory(),))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[4:8] == bytes(4), "no time of day in the gzip header"


def test_a_hundred_thousand_slices_are_quick(tmp_path):
    turns = np.linspace(0.0, 12.0, 50_001)
    timeline = made.timeline([(0, 0, turns[i], turns[i + 1]) for i in range(50_000)])
    began = process_time()
    trace.write(timeline, tmp_path / "t.gz")
    assert process_time() - began < 3.0
