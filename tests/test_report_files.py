"""The report room: what is printed, drawn and written is what the result and the timeline hold."""

import errno
import gzip
import io
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from sim.api import run
from sim.errors import ScenarioError
from sim.report import figure, memory_plot, result_json, text, timeline_plot, trace
from sim.report.files import write_all
from sim.report.theme import CATEGORIES, colour, ink


@pytest.fixture(scope="module")
def step():
    return run("zero-offload-10b-v100", ["model.layers=4"])


def _print(show, *args, width=80):
    out = io.StringIO()
    show(Console(file=out, width=width, highlight=False, markup=False), *args)
    return out.getvalue()


def test_json_has_the_promised_keys_and_sums(step):
    data = json.loads(result_json.dumps(step.result))
    promised = "step_time_s tokens_per_s_per_gpu mfu hfu fits peak_memory_bytes memory breakdown phases bound_by "
    promised += "ops events wall_s"
    assert set(promised.split()) <= set(data)
    assert sum(data["breakdown"].values()) == pytest.approx(data["step_time_s"], rel=1e-9)
    assert sum(data["phases"].values()) == pytest.approx(data["step_time_s"], rel=1e-9)
    assert sum(data["memory"].values()) == pytest.approx(data["peak_memory_bytes"], rel=1e-9)
    assert set(data["phases"]) == {"forward", "backward", "optimizer"}


def test_text_works_without_a_terminal_at_eighty_columns(step):
    said = _print(text.show, step.result)
    assert "\x1b" not in said
    assert max(len(line) for line in said.splitlines()) <= 80
    assert "bound by" in said
    assert "CPU optimizer" in said


def test_remedies_name_the_largest_owner():
    result = run("zero-offload-10b-v100", ["model.layers=60"]).result
    assert not result.fits
    said = _print(text.show_remedies, result, width=200)
    assert "parameters (" in said
    assert "layout.zero: 3" in said


def test_timeline_bars_cover_what_the_spans_cover(step):
    timeline = step.timeline
    bars = timeline_plot.lane_bars(timeline, 0, (0.0, timeline.makespan))
    spans, ops = timeline.spans, timeline.ops
    for (lane, category), (start, end) in bars.items():
        mine = [
            i
            for i, o in enumerate(spans.op.tolist())
            if timeline.stream_names[ops[o].stream] == lane and ops[o].category == category
        ]
        assert start.min() == spans.start[mine].min()
        assert end.max() == spans.end[mine].max()
        assert (np.diff(start) > 0).all()
        closed = (end - start).sum() - (spans.end - spans.start)[mine].sum()
        assert -1e-9 <= closed <= len(mine) * timeline.makespan / timeline_plot.PIXELS


def test_ten_thousand_spans_become_few_bars():
    timeline = run("zero-offload-10b-v100").timeline
    bars = timeline_plot.lane_bars(timeline, 0, (0.0, timeline.makespan))
    assert len(timeline.spans.op) > 4000
    assert sum(len(start) for start, _ in bars.values()) < 300


def test_figure_has_lanes_memory_and_breakdown(step):
    drawn = figure.step_figure(step.timeline, step.result)
    lanes, gpu, host, breakdown = drawn.axes
    assert [t.get_text() for t in lanes.get_yticklabels()] == ["CPU", "GPU to host", "host to GPU", "GPU compute"]
    assert "GB" in gpu.get_ylabel()
    assert "GB" in host.get_ylabel()
    assert sum(p.get_width() for p in breakdown.patches) == pytest.approx(step.result.step_time)
    assert lanes.get_xlim()[1] == pytest.approx(step.timeline.makespan)


def test_memory_stack_sums_to_the_total(step):
    for use in step.result.memory:
        total = sum(values for _, values in memory_plot.stack(use))
        assert total.max() == pytest.approx(use.peak)


def test_trace_tells_the_same_story_as_the_timeline(step, tmp_path):
    """As Holistic Trace Analysis reads a trace: GPU work by stream, NCCL by name, launch by correlation."""
    trace.write(step.timeline, tmp_path / "t.json.gz")
    document = json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))
    assert {"schemaVersion", "deviceProperties", "distributedInfo", "traceEvents"} <= set(document)
    events = [e for e in document["traceEvents"] if e["ph"] == "X"]
    gpu = [e for e in events if e["cat"] in ("kernel", "gpu_memcpy")]
    launches = {e["args"]["correlation"]: e for e in events if e["cat"] == "cuda_runtime"}
    assert all(launches[e["args"]["correlation"]]["ts"] <= e["ts"] + 1e-6 for e in gpu)
    spans, ops = step.timeline.spans, step.timeline.ops
    busy = sum(e["dur"] for e in gpu if e["cat"] == "kernel") / 1e6
    kernels = np.array(
        [ops[o].kind in ("gemm", "elementwise", "embedding", "attention", "optimizer") for o in spans.op]
    )
    assert busy == pytest.approx((spans.end - spans.start)[kernels].sum(), rel=1e-9)
    for tid in {e["tid"] for e in gpu}:
        lane = sorted((e["ts"], e["ts"] + e["dur"]) for e in gpu if e["tid"] == tid)
        assert all(b[0] >= a[1] - 1e-6 for a, b in pairwise(lane)), "slices of a stream must not overlap"


def test_collectives_are_named_as_nccl_names_them():
    events = trace.events(run("llama3-8b-8xh100-zero3", ["model.layers=2"]).timeline)
    names = {e["name"] for e in events if e.get("cat") == "kernel"}
    assert {"ncclDevKernel_AllGather_RING", "ncclDevKernel_ReduceScatter_Sum_RING"} <= names


def test_files_are_written_whole_and_again(step, tmp_path):
    first = {p.name: p.read_bytes() for p in write_all(tmp_path / "a" / "b", step.timeline, step.result)}
    assert set(first) == {"result.json", "timeline.npz", "timeline.png", "timeline.svg", "trace.json.gz"}
    assert {p.name: p.read_bytes() for p in write_all(tmp_path / "c", step.timeline, step.result)} == first
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted(first), "no part is left behind"


def test_whoever_reads_the_old_file_reads_it_to_its_end(step, tmp_path):
    """A file is put in place of the old one, not written into it."""
    write_all(tmp_path, step.timeline, step.result)
    with (tmp_path / "result.json").open() as reading:
        write_all(tmp_path, step.timeline, replace(step.result, wall=123.0))
        assert json.load(reading)["wall_s"] == step.result.wall
    assert json.loads((tmp_path / "result.json").read_text())["wall_s"] == 123.0


def test_a_write_that_fails_leaves_the_old_file_and_no_part_of_the_new(step, tmp_path, monkeypatch):
    def half(timeline, path, memory):
        path.write_bytes(b"half a trace")
        raise OSError(errno.ENOSPC, "No space left on device")

    write_all(tmp_path, step.timeline, step.result)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(trace, "write", half)
    with pytest.raises(ScenarioError, match="No space left on device"):
        write_all(tmp_path, step.timeline, step.result)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_place_that_cannot_be_written_is_bad_input(step, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="choose another directory with --out"):
        write_all(tmp_path / "file", step.timeline, step.result)


def test_every_category_has_a_colour_of_its_own_and_readable_ink():
    assert len({c for c, _ in CATEGORIES.values()}) == len(CATEGORIES)
    assert {ink(c) for c in CATEGORIES} == {"black", "white"}
    assert colour("unheard of") == "#BBBBBB"
