"""The page of a run, read as a program reads it: what it says is what was computed, and nothing in it can run."""

import gzip
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as changed

from sim.analysis.explain import explain
from sim.analysis.explanation import Delta, RunDifference
from sim.api import run
from sim.report import result_json
from sim.report.page import page as whole
from sim.report.page.columns import TICKS, timeline_data
from sim.report.page.markup import json_text, render, tag
from sim.report.page.shown import Shown
from sim.study.why import Suggestion, WhatIf, Why
from sim.units import format as quantity

ROOT = Path(__file__).parent.parent
NASTY = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!-- ",
    "a\u2028b",
    "\"'`${1}&amp;",
    "]]>",
]


def shown(step, **more):
    given = {
        "result": step.result, "timeline": step.timeline,  "explanation": explain(step.timeline, step.result),
        "settings": step.settings, "described": str(step.document.get("description", "")),
    }  # fmt: skip
    return Shown(**{**given, **more})


@pytest.fixture(scope="module")
def step():
    return run("zero-offload-10b-v100", ["model.layers=4"])


class Reader(HTMLParser):
    """Elements, texts and the tables of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.tables, self.words, self.scripts = [], [], [], [], {}
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "input", "line", "br"):
            self.open.append((name, dict(attributes)))
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
        elif name in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, name):
        while self.open and self.open.pop()[0] != name:
            pass

    def handle_data(self, text):
        names = [name for name, _ in self.open]
        if "script" in names:
            key = self.open[-1][1].get("id", "code")
            self.scripts[key] = self.scripts.get(key, "") + text
        elif "style" not in names:
            self.words.append(text)
            if ("td" in names or "th" in names) and "title" not in names and "text" not in names:
                self.tables[-1][-1][-1] += text


def differing(*keys):
    return RunDifference(
        a="one", b="two", step=Delta(name="step", a=1.0, b=2.0), breakdown=(), path=(Delta(name="sm", a=1.0, b=2.0),),
        phases=(), sent=(), memory=(), keys=keys,
    )  # fmt: skip


def columns_of(told):
    """What unpack.js does, in Python."""
    raw, offset, found = gzip.decompress(b64decode(told["blob"])), 0, {}
    for name, kind, count in told["columns"]:
        size = int(kind[1:])
        shuffled = np.frombuffer(raw, np.uint8, count * size, offset).reshape(size, count)
        found[name] = np.ascontiguousarray(shuffled.T).view(f"<{kind}").ravel()
        offset += count * size
    assert offset == len(raw)
    return found


def test_figures_and_breakdown_are_those_of_result_json(step):
    said = json.loads(result_json.dumps(step.result))
    read = Reader(whole.page([shown(step)]))
    words = " ".join(read.words)
    assert quantity(said["step_time_s"], "seconds").split()[0] in read.words
    for figure in (f"{said['mfu']:.1%}", f"{said['hfu']:.1%}", f"{said['tokens_per_s_per_gpu']:,.1f}"):
        assert figure in read.words
    assert (
        f"{quantity(said['peak_memory_bytes'], 'bytes')} of {quantity(said['memory_capacity_bytes'], 'bytes')}" in words
    )
    [table] = [t for t in read.tables if t[0][:3] == ["category", "seconds", "share"]]
    by_label = {row[0]: row[1:3] for row in table[1:]}
    for category, seconds in said["breakdown"].items():
        if seconds >= 0.0005 * said["step_time_s"]:
            share = f"{seconds / said['step_time_s']:.1%}"
            assert by_label[whole.label(category)] == [quantity(seconds, "seconds"), share]
    assert all(owner in words for owner, size in said["memory"].items() if size > 0.002 * said["peak_memory_bytes"])


def test_the_path_table_adds_up_to_the_step(step):
    read = Reader(whole.page([shown(step)]))
    [table] = [t for t in read.tables if t[0][:3] == ["resource or cause", "on the path", "share"]]
    assert sum(float(row[2].rstrip("%")) for row in table[1:]) == pytest.approx(100.0, abs=0.1 * len(table))


def test_columns_give_back_every_span(step):
    told = timeline_data(step.timeline, step.result.memory)
    found, spans, tick = columns_of(told), step.timeline.spans, step.timeline.makespan / TICKS
    end = np.cumsum(found["gap"].astype(np.uint64) + found["length"]) % 2**32
    start = (end - found["length"]) % 2**32
    ours = sorted(
        zip(spans.op.tolist(), spans.microbatch.tolist(), spans.start.tolist(), spans.end.tolist(), strict=True)
    )
    theirs = sorted(
        zip(
            found["op"].tolist(),
            found["microbatch"].tolist(),
            (start * tick).tolist(),
            (end * tick).tolist(),
            strict=True,
        )
    )
    assert np.allclose(np.array(ours), np.array(theirs), rtol=0, atol=tick)
    assert sum(count for _, _, count in told["lanes"]) == len(spans.op)
    ops = step.timeline.ops
    names = [told["words"]["name"][n] for n in found["op_name"]]
    assert names == [op.name for op in ops]
    assert found["op_flops"].tolist() == [op.flops for op in ops]
    path = found["path_end"].astype(float) - found["path_start"]
    assert path.sum() * tick == pytest.approx(step.result.step_time, rel=1e-9)
    assert (found["path_start"][1:] == found["path_end"][:-1]).all()


def test_causes_and_memory_come_along(step):
    told = timeline_data(step.timeline, step.result.memory)
    found, spans = columns_of(told), step.timeline.spans
    assert np.count_nonzero(found["cause_span"]) == np.count_nonzero(spans.cause_span >= 0)
    order = np.argsort(spans.end, kind="stable")
    last = order[-1]
    there = np.flatnonzero(found["op"] == spans.op[last])[-1]
    cause = there + found["cause_span"][there]
    assert found["op"][cause] == spans.op[spans.cause_span[last]]
    for number, use in enumerate(step.result.memory):
        rows = found[f"memory{number}_bytes"].reshape(len(told["memory"][number]["owners"]), -1)
        assert rows.sum(axis=0).max() == pytest.approx(use.peak, rel=1e-6)
        assert told["memory"][number]["capacity"] == use.capacity


@pytest.mark.parametrize("text", NASTY)
def test_text_is_text(text):
    read = Reader(render(tag("p", text, title=text)) + f'<script id="data">{json_text({text: text})}</script>')
    assert [name for name, _ in read.elements] == ["p", "script"]
    assert read.elements[0][1]["title"] == text
    assert "".join(read.words) == text
    assert json.loads(read.scripts["data"]) == {text: text}
    assert not set("<>&\u2028") & set(read.scripts["data"])


@pytest.mark.parametrize("text", NASTY)
def test_whatever_a_scenario_says_cannot_run(step, text):
    """In every place that takes words from a file: names of scenario, ranks, devices, ops, sources."""
    row = replace(step.timeline.rank_classes[0], name=text, device=text)
    ops = tuple(changed(op, name=text) for op in step.timeline.ops)
    resources = tuple(replace(one, name=f"{text}{i}") for i, one in enumerate(step.timeline.resources))
    timeline = replace(step.timeline, rank_classes=(row,), ops=ops, resources=resources)
    result = replace(step.result, scenario=text, placement=text)
    evil = replace(step, timeline=timeline, result=result)
    given = shown(evil, settings=[(text, text, text)], described=text)
    read = Reader(whole.page([given, given], differing((text, text, text))))
    clean = Reader(whole.page([shown(step), shown(step)], differing(("a", "b", "c"))))
    assert {name for name, _ in read.elements} == {name for name, _ in clean.elements}
    assert sum(name == "script" for name, _ in read.elements) == 2
    assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)
    assert json.loads(read.scripts["data"])["runs"][0]["name"] == f"{text} (1)"


def test_half_a_surrogate_pair_is_no_fault(step):
    given = shown(replace(step, result=replace(step.result, scenario="\ud800x")))
    assert "?x" in whole.page([given]).encode("utf-8").decode()


def test_only_its_own_script_and_style_may_run_and_nothing_is_loaded(step):
    text = whole.page([shown(step)])
    read = Reader(text)
    policy = next(a["content"] for n, a in read.elements if n == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL).group(1)
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL).group(1)
    for content in (script, style):
        assert whole.b64encode(sha256(content.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    outside = [a for _, a in read.elements if "src" in a or a.get("href", "#")[0] != "#" or "style" in a]
    assert not outside
    assert not re.search(r"url\(|@import|@font-face|innerHTML|eval\(|fetch\(|XMLHttp", script + style)


def test_without_its_data_a_page_is_small(step):
    read = Reader(whole.page([shown(step)]))
    assert len(whole.page([shown(step)])) - len(read.scripts["data"]) < 1.5e6
    assert len(whole.javascript()) + len(whole.stylesheet()) < 150e3


def test_modules_share_one_scope():
    """They are joined by leaving imports out: names are unique, and what is imported comes before."""
    declared = {}
    for name in whole.SCRIPTS:
        text = whole._read(f"assets/{name}")
        for module in re.findall(r'from "\./([\w.]+)"', text):
            assert module in list(whole.SCRIPTS)[: whole.SCRIPTS.index(name)], f"{name} needs {module} before it"
        for word in re.findall(r"^(?:export )?(?:async )?(?:function|class|const) (\w+)", text, re.MULTILINE):
            assert word not in declared, f"{word} is in {declared[word]} and in {name}"
            declared[word] = name
    assert not re.search(r"^(import|export) ", whole.javascript(), re.MULTILINE)
    assert {path.name for path in files("sim.report.page").joinpath("assets").iterdir()} == {*whole.SCRIPTS, "page.css"}


def test_vendored_files_are_those_of_their_page():
    folder = files("sim.report.page").joinpath("vendor/uplot")
    table = dict(re.findall(r"\| `([\w.]+)` \| `(\w{64})` \|", folder.joinpath("README.md").read_text()))
    assert len(table) == 2
    for name, digest in table.items():
        assert sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest
    assert "MIT" in folder.joinpath("LICENSE").read_text()


def test_two_runs_stand_side_by_side(step):
    other = run("zero-offload-10b-v100", ["model.layers=4", "batch.micro=5"])
    read = Reader(whole.page([shown(step), shown(other)], differing(("batch.micro", "10", "5"))))
    words = " ".join(read.words)
    assert f"{other.result.step_time / step.result.step_time - 1:+.1%}" in words
    assert any(["batch.micro", "10", "5"] in table for table in read.tables)
    assert {"timeline-0", "timeline-1"} <= {a.get("id") for _, a in read.elements}
    assert {"zero-offload-10b-v100 (1)", "zero-offload-10b-v100 (2)"} <= set(read.words)
    [table] = [t for t in read.tables if t[0][0] == "category" and t[0][-1] == "change"]
    changes = [row[-1] for row in table[1:]]
    assert any(change.startswith("-") for change in changes)


def test_what_would_be_gained_is_said_first(step):
    base = step.result.step_time
    gain = WhatIf(resource="cpu", says="CPU", path=0.3, base=base, step_times=(0.97 * base, 0.8 * base, 0.7 * base))
    none = WhatIf(resource="nvlink", says="NVLink", path=0.0, base=base, step_times=(base, base, base))
    tip = Suggestion(
        kind="batch", says="larger microbatches", sets=("layout.stage_layers=[6, 7]",), step_time=0.9 * base, gain=0.1,
        peak=30e9, capacity=34e9,
    )  # fmt: skip
    why = Why(what_if=(none, gain), suggestions=(tip,), refused=(("tp: 2", "one GPU"),))
    words = " ".join("".join(Reader(whole.page([shown(step, why=why)])).words).split())
    assert "CPU 10 % faster" in words
    assert "(3.0%) less; twice as fast, 20% less; if it never held anything up, 30% less" in words
    assert "Larger microbatches: 10.0% less time" in words
    assert "--set 'layout.stage_layers=[6, 7]'" in words


def test_a_stage_with_far_more_to_compute_is_said_at_the_top(step):
    """The last stage of eight has the head too; one GPU alone has nobody to differ from."""
    uneven = shown(run("lecture-64-pp", ["batch.size=null", "batch.accumulation=8"]))
    most = max(uneven.explanation.balance.ranks, key=lambda one: one.computing)
    words = " ".join("".join(Reader(whole.page([uneven])).words).split())
    assert f"Stage {most.stage}" in words.split("Uneven work")[1].split("By how much")[0]
    assert f"{uneven.explanation.balance.imbalance:.0%} more than the mean" in words
    assert "Uneven work" not in "".join(Reader(whole.page([shown(step)])).words)


def test_too_big_is_said_with_what_would_help():
    step = run("zero-offload-10b-v100", ["model.layers=60"])
    words = " ".join(Reader(whole.page([shown(step)])).words)
    assert "It does not fit" in words
    assert "layout.zero: 3" in words


def test_every_number_of_hardware_has_its_source(step):
    read = Reader(whole.page([shown(step)]))
    [table] = [t for t in read.tables if t[0] == ["key", "value", "source"]]
    rows = {row[0]: row[1:] for row in table[1:]}
    assert rows["cluster.device.hbm_bandwidth"][1]
    assert rows["model.layers"] == ["4", "--set"]
    numbers = [k for k, (v, s) in rows.items() if k.startswith(("cluster.", "stack.")) and v[:1].isdigit() and not s]
    assert not numbers


def stepline(*args, cwd, seed="1"):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "PYTHONHASHSEED": seed}
    return subprocess.run(
        [sys.executable, "-m", "sim", *args], cwd=cwd, env=settings, capture_output=True, text=True, check=False
    )


def test_a_folder_is_reported_as_its_scenario_is(tmp_path):
    """And the bytes depend on the run alone."""
    few = ["--set", "model.layers=2"]
    done = stepline("run", "quickstart", *few, "--out", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = stepline("report", "there", cwd=tmp_path, seed="77")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "there" / "report.html").read_text()
    read = Reader(text)
    [row] = [row for table in read.tables for row in table if row[0] == "model.layers"]
    assert row == ["model.layers", "2", "--set"]
    assert json.loads((tmp_path / "there" / "explain.json").read_text())["why"]["what_if"]
    assert stepline("report", "there", "--out", "b.html", cwd=tmp_path).returncode == 0
    assert (tmp_path / "b.html").read_text() == text


def test_what_does_not_fit_is_reported_and_exits_one(tmp_path):
    big = ["--set", "model.layers=60", "--recorded", "--out", "big.html"]
    done = stepline("report", "zero-offload-10b-v100", *big, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "does not fit" in (tmp_path / "big.html").read_text()


def test_what_cannot_be_reported_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for args, words in (
        (["./empty"], "holds no run"),
        (["a", "b", "c"], "one or two"),
        (["quickstart", "--recorded", "--out", "empty"], "cannot be written"),
    ):
        done = stepline("report", *args, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
