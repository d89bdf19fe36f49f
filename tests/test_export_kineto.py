"""Traces a rank, read back by the rules of Holistic Trace Analysis, tell what our own analyses tell.

The rules are those of its ``breakdown_analysis`` and ``communication_analysis``: kernels are what has a stream; one
whose name has ``nccl`` in it communicates, one named ``Memcpy`` copies, the rest compute. Kernel time runs from the
first kernel's start to the last one's end; idle is what no kernel covers; non-compute the rest without computing.
Overlap is the part of communicating (merged) during which something computes.
"""

import gzip
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from scenarios import V100, data_parallel
from sim.analysis.breakdown import breakdowns
from sim.analysis.exposure import exposure
from sim.api import class_of_rank, run, simulate
from sim.export.export import FORMATS, Exported, export
from sim.export.ranks import chosen, lives

COMPUTING = ("forward", "backward", "recompute", "optimizer")
PIPE = ["batch.size=null", "batch.accumulation=4", "model.layers=8"]


def exported(step, ranks, name, out):
    some = chosen(ranks, step.timeline)
    what = Exported(
        timeline=step.timeline, result=step.result, lives=lives(step.timeline, some, class_of_rank(step)), program=None
    )
    return export(what, name, out)


@cache
def the_step(name):
    if name == "pipeline":
        return run("lecture-64-pp", PIPE)
    if name == "experts":
        return run("mixtral-8x7b-64xh100", ["batch.size=null", "batch.accumulation=4", "model.layers=4"])
    if name == "data parallel":
        return simulate(data_parallel(8, 1, accumulation=2))
    return simulate(data_parallel(4, 2, base=V100, offload=True))


def merged(intervals):
    """(start, end) rows without overlaps."""
    found = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return np.array(found).reshape(-1, 2)


def covered(intervals):
    return float((intervals[:, 1] - intervals[:, 0]).sum())


def kernel_type(name):
    return "communication" if "nccl" in name else "memory" if "Memcpy" in name or "Memset" in name else "computation"


def by_rules(path):
    """HTA's figures of one file, in seconds: compute, non-compute, idle, kernel time, and overlap as a ratio."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    rows = [e for e in document["traceEvents"] if "stream" in e.get("args", {})]
    spans = {kind: [] for kind in ("communication", "memory", "computation")}
    for e in rows:
        spans[kernel_type(e["name"])].append((e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6))
    every = merged([one for some in spans.values() for one in some])
    compute, talk = merged(spans["computation"]), merged(spans["communication"])
    kernel = every[-1, 1] - every[0, 0]
    both = covered(compute) + covered(talk) - covered(merged([*spans["computation"], *spans["communication"]]))
    return {
        "rank": document["distributedInfo"]["rank"],
        "world": document["distributedInfo"]["world_size"],
        "compute": covered(compute),
        "idle": kernel - covered(every),
        "non_compute": covered(every) - covered(compute),
        "kernel": kernel,
        "overlap": both / covered(talk) if len(talk) else 0.0,
    }


@pytest.mark.parametrize("name", ["pipeline", "experts", "data parallel", "offload"])
def test_its_breakdown_is_ours(name, tmp_path):
    step = the_step(name)
    parts = breakdowns(step.timeline)
    classes = class_of_rank(step)
    paths = exported(step, "each", "kineto", tmp_path)
    assert len(paths) == len(step.timeline.rank_classes)
    for path in paths:
        found = by_rules(path)
        assert path.name == f"rank-{found['rank']}.json.gz"
        assert found["world"] == step.result.ranks
        ours = parts[classes[found["rank"]]]
        waits = ours.get("host_launch", 0.0) + ours.get("bubble", 0.0) + ours.get("cpu_adam", 0.0)
        assert found["compute"] == pytest.approx(sum(ours.get(c, 0.0) for c in COMPUTING), rel=1e-6)
        assert found["compute"] + found["idle"] + found["non_compute"] == pytest.approx(found["kernel"], rel=1e-9)
        assert found["kernel"] <= step.result.step_time * (1 + 1e-9)
        assert found["idle"] <= waits + 1e-9 or name in ("pipeline", "experts"), (
            "what nobody works in is a wait of ours"
        )


def test_its_overlap_is_ours(tmp_path):
    """One class, one kind of communication: the ratio is that of ``exposure``."""
    step = the_step("data parallel")
    (path,) = exported(step, "each", "kineto", tmp_path)
    rows = exposure(step.timeline, step.result.breakdown)
    busy, hidden = sum(row.busy for row in rows), sum(row.overlapped for row in rows)
    assert 0.0 < hidden < busy
    assert by_rules(path)["overlap"] == pytest.approx(hidden / busy, rel=1e-6)


def test_a_folded_rank_has_its_own_file_with_the_life_of_its_class(tmp_path):
    step = the_step("pipeline")
    paths = exported(step, "9,8", "kineto", tmp_path)
    assert [path.name for path in paths] == ["rank-8.json.gz", "rank-9.json.gz"]
    documents = [json.loads(gzip.decompress(path.read_bytes())) for path in paths]
    assert documents[0]["traceEvents"] == documents[1]["traceEvents"]
    assert [document["distributedInfo"]["rank"] for document in documents] == [8, 9]


def test_collectives_say_what_they_are(tmp_path):
    (path,) = exported(the_step("data parallel"), "each", "kineto", tmp_path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    told = {(e["args"]["Collective name"], e["args"]["Group size"]) for e in events if "Group size" in e["args"]}
    assert told == {("_reduce_scatter_base", 8), ("_allgather_base", 8), ("allreduce", 8)}
    experts = json.loads(gzip.decompress(exported(the_step("experts"), "0", "kineto", tmp_path)[0].read_bytes()))
    names = {e["name"] for e in experts["traceEvents"] if e.get("args", {}).get("Collective name") == "all_to_all"}
    assert names == {"ncclDevKernel_SendRecv"}


def test_drives_are_no_kernels_and_have_a_thread_of_their_own(tmp_path):
    sets = ["model.layers=2", "offload={optimizer: nvme, gradients: cpu, parameters: cpu}", "layout.zero=3"]
    step = run("zero-offload-10b-v100", sets)
    (path,) = exported(step, "each", "kineto", tmp_path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    drives = [e for e in events if e["ph"] == "X" and e["tid"] == 2]
    assert drives
    assert all(e["cat"] == "cpu_op" and "stream" not in e["args"] for e in drives)
    assert {"drives"} == {e["args"]["name"] for e in events if e["name"] == "thread_name" and e["tid"] == 2}


def test_perfetto_has_the_critical_path_as_long_as_the_step(tmp_path):
    step = the_step("pipeline")
    (path,) = exported(step, "each", "perfetto", tmp_path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    pieces = sorted((e["ts"], e["dur"]) for e in events if e.get("cat") == "critical_path")
    assert sum(dur for _, dur in pieces) == pytest.approx(step.result.step_time * 1e6, rel=1e-9)
    assert pieces[0][0] == 0.0
    counters = {e["name"] for e in events if e["ph"] == "C"}
    assert "GPU memory" in counters
    assert any(name.startswith("sm in use") for name in counters)
    kernels = sum(e.get("cat") in ("kernel", "gpu_memcpy", "cpu_op") for e in events)
    assert kernels == sum(step.timeline.ops[op].kind != "none" for op in step.timeline.spans.op.tolist())


def test_a_slice_says_what_it_waited_on(tmp_path):
    step = the_step("pipeline")
    (path,) = exported(step, "each", "perfetto", tmp_path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    timeline, checked = step.timeline, 0
    for e in events:
        if e.get("cat") == "kernel":
            said, span = e["args"]["waited on"], e["args"]["correlation"] - 1
            blocker = int(timeline.spans.cause_span[span])
            assert blocker < 0 or timeline.ops[timeline.spans.op[blocker]].name in said
            checked += "came last" in said
    assert checked == int((timeline.spans.peer >= 0).sum())


def test_few_ranks_are_fewer_slices(tmp_path):
    step = the_step("pipeline")
    (path,) = exported(step, "0-15", "perfetto", tmp_path)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert {e["pid"] for e in events if e.get("cat") == "kernel"} == {0, 1}


def test_a_large_trace_never_lies_in_memory(tmp_path, monkeypatch):
    """Pieces of so many events are encoded one after another, and give the same bytes whatever their size."""
    from sim.report import trace

    step = the_step("data parallel")
    (path,) = exported(step, "each", "kineto", tmp_path / "a")
    seen = []
    encode = trace.msgspec.json.encode
    monkeypatch.setattr(trace, "CHUNK", 50)
    monkeypatch.setattr(trace.msgspec.json, "encode", lambda what: seen.append(what) or encode(what), raising=False)
    (again,) = exported(step, "each", "kineto", tmp_path / "b")
    assert gzip.decompress(again.read_bytes()) == gzip.decompress(path.read_bytes())
    assert len(seen) > 5
    assert max(len(piece) for piece in seen) <= 50


def test_every_format_is_whole_or_not_there(tmp_path, monkeypatch):
    step = the_step("data parallel")

    def broken(what, out):
        (out / "half.csv").write_text("half")
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setitem(FORMATS, "csv", replace(FORMATS["csv"], write=broken))
    with pytest.raises(Exception, match="No space left on device; choose another directory with --out"):
        exported(step, "each", "csv", tmp_path / "o")
    assert list((tmp_path / "o").iterdir()) == []
