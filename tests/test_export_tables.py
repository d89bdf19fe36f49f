"""Memory snapshots and tables, replayed: the same bytes and seconds as the step's; and who is exported."""

import csv
import json
import pickle

import numpy as np
import pytest

from scenarios import V100, data_parallel, random_system, spans_by_rank
from sim.api import class_of_rank, run, simulate
from sim.cli.exporting import Format
from sim.errors import ScenarioError
from sim.export.export import FORMATS, export
from sim.export.ranks import chosen, lives
from tests.test_cli import stepline
from tests.test_export_kineto import exported

STEPS = {
    "ddp": simulate(data_parallel(4, 0, accumulation=2)),
    "zero3": simulate(data_parallel(4, 3)),
    "offload": simulate(data_parallel(2, 2, base=V100, offload=True)),
    "pipeline": run("lecture-64-pp", ["batch.size=null", "batch.accumulation=4", "model.layers=8"]),
}


def replayed(trace):
    """(time in us, bytes held) after each event; every free is of a block that is there, whole."""
    held, total, found = {}, 0, []
    for event in trace:
        if event["action"] == "alloc":
            assert event["addr"] not in held
            held[event["addr"]] = event["size"]
            total += event["size"]
        elif event["action"] == "free_completed":
            assert held.pop(event["addr"]) == event["size"]
            total -= event["size"]
        else:
            assert event["action"] == "free_requested"
            assert event["addr"] in held
        found.append((event["time_us"], total))
        assert event["frames"]
        assert event["size"] > 0
    return found


@pytest.mark.parametrize("name", STEPS)
def test_a_snapshot_holds_what_the_step_holds(name, tmp_path):
    step = STEPS[name]
    (path,) = exported(step, "each", "memory", tmp_path)
    snapshot = pickle.loads(path.read_bytes())  # our own, of a moment ago
    assert snapshot["segments"] == []
    gpus = [use for use in step.result.memory if use.where == "gpu"]
    assert len(snapshot["device_traces"]) == len(gpus)
    for use, trace in zip(gpus, snapshot["device_traces"], strict=True):
        curve = replayed(trace)
        assert max(total for _, total in curve) == pytest.approx(use.peak, rel=1e-6, abs=200)
        assert [time for time, _ in curve] == sorted(time for time, _ in curve)
        total = np.sum(list(use.by_owner.values()), axis=0)
        assert curve[-1][1] == pytest.approx(float(total[-1]), rel=1e-6, abs=200)


def test_frames_name_the_owner_and_the_op(tmp_path):
    (path,) = exported(STEPS["ddp"], "0", "memory", tmp_path)
    (trace,) = pickle.loads(path.read_bytes())["device_traces"]
    said = {(event["frames"][0]["filename"], event["frames"][0]["name"]) for event in trace}
    assert ("parameters", "held before the step") in said
    assert any(owner.startswith("activations") and name != "held before the step" for owner, name in said)


def test_tables_are_the_spans_and_the_memory(tmp_path):
    step = STEPS["pipeline"]
    spans, memory = exported(step, "0,1,63", "csv", tmp_path)
    with spans.open() as file:
        rows = list(csv.DictReader(file))
    timeline, of = step.timeline, class_of_rank(step)
    for rank in (0, 1, 63):
        mine = [row for row in rows if row["rank"] == str(rank)]
        ours = [n for n, op in enumerate(timeline.spans.op.tolist()) if timeline.ops[op].rank_class == of[rank]]
        assert [int(row["span"]) for row in mine] == ours
        assert [float(row["end_s"]) for row in mine] == timeline.spans.end[ours].tolist(), "to the last bit"
        assert {row["waited_on"] for row in mine} <= {"none", "dependency", "stream", "launch"}
    late = next(row for row in rows if row["last_member_span"])
    assert float(late["start_s"]) >= float(late["ready_s"])
    with memory.open() as file:
        held = {}
        for row in csv.DictReader(file):
            held.setdefault((row["rank"], row["where"]), {}).setdefault(row["owner"], []).append(float(row["bytes"]))
    use = next(use for use in step.result.memory if use.rank_class == of[63] and use.where == "gpu")
    assert {owner: max(sizes) for owner, sizes in held["63", "gpu"].items()} == pytest.approx(
        {owner: sizes.max() for owner, sizes in use.by_owner.items()}
    )


# -- which ranks


@pytest.mark.parametrize("seed", [2, 5, 9, 14])
def test_a_rank_lives_the_life_of_its_class(seed):
    folded, whole = (simulate(random_system(seed), fold=fold) for fold in (True, False))
    of, alone = class_of_rank(folded), spans_by_rank(whole.timeline)
    assert class_of_rank(whole).tolist() == list(range(len(of))), "nobody is folded"
    together = spans_by_rank(folded.timeline)
    for rank, number in enumerate(of.tolist()):
        twin = together[folded.timeline.rank_classes[number].representative]
        assert {key[:1] for key in twin} == {key[:1] for key in alone[rank]}
        for key, times in twin.items():
            assert np.array(times) == pytest.approx(np.array(alone[rank][key]), rel=1e-9)


def test_ranks_are_named_in_numbers_and_ranges():
    timeline = STEPS["pipeline"].timeline
    assert chosen("each", timeline) == (0, 8, 16, 24, 32, 40, 48, 56)
    assert chosen("all", timeline) == tuple(range(64))
    assert chosen("63, 0-2,1", timeline) == (0, 1, 2, 63)


@pytest.mark.parametrize("text", ["64", "-1", "3-1", "a", "", "0,,1", "0-64", "1.5", "99999999999"])
def test_what_is_no_rank_is_said(text):
    with pytest.raises(ScenarioError, match=r"not ranks of this step, which has 0 to 63; give numbers and ranges"):
        chosen(text, STEPS["pipeline"].timeline)


# -- the command


def test_the_command_writes_programs_and_names_the_files(tmp_path):
    sets = ("--set", "model.layers=4")
    done = stepline("export", "own-order", "--format", "chakra", "--ranks", "0-1", *sets, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "own-order" / "chakra"
    assert sorted(path.name for path in folder.iterdir()) == ["chakra.0.et", "chakra.1.et", "comm_groups.json"]
    assert "2 rank(s) of 8" in done.stdout
    groups = json.loads((folder / "comm_groups.json").read_text())
    assert all(0 in members or 1 in members for members in groups.values())


def test_the_command_and_the_table_name_the_same_formats():
    assert [one.value for one in Format] == list(FORMATS)


def test_the_command_refuses_in_words(tmp_path):
    done = stepline("export", "quickstart", "--format", "csv", "--ranks", "7", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "7: not ranks of this step" in done.stderr
    (tmp_path / "file").write_text("")
    step = STEPS["ddp"]
    with pytest.raises(ScenarioError, match="choose another directory with --out"):
        export(_what(step), "csv", tmp_path / "file")


def _what(step):
    from sim.export.export import Exported

    some = chosen("each", step.timeline)
    return Exported(
        timeline=step.timeline, result=step.result, lives=lives(step.timeline, some, class_of_rank(step)), program=None
    )
