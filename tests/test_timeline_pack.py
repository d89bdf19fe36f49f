"""A run's folder opens again to the same step; a file that lies, breaks off or carries code is refused in words."""

import io
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scenarios import data_parallel, random_system
from sim.api import kept, reopen, run, simulate
from sim.errors import ScenarioError
from sim.report.files import write_all
from sim.timeline import pack
from sim.timeline.columns import Spans


@pytest.mark.parametrize("seed", [3, 11, 17])
def test_what_is_read_is_what_was_written(seed, tmp_path):
    timeline = simulate(random_system(seed)).timeline
    pack.write(timeline, tmp_path / "t.npz")
    found = pack.read(tmp_path / "t.npz")
    for field in fields(Spans):
        one, other = getattr(timeline.spans, field.name), getattr(found.spans, field.name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert list(found.contended) == list(timeline.contended)
    assert replace(found, spans=timeline.spans, contended=timeline.contended) == timeline
    pack.write(timeline, tmp_path / "again.npz")
    assert (tmp_path / "t.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


@pytest.fixture
def file(tmp_path):
    pack.write(simulate(data_parallel(4, 2)).timeline, tmp_path / "t.npz")
    return tmp_path / "t.npz"


def rewritten(file, **arrays):
    """The file with some arrays replaced; ``None`` takes one out."""
    with zipfile.ZipFile(file) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    for name, array in arrays.items():
        data = io.BytesIO()
        if array is not None:
            np.lib.format.write_array(data, array, allow_pickle=True)
        parts[f"{name}.npy"] = data.getvalue()
    with zipfile.ZipFile(file, "w") as new:
        for name, data in parts.items():
            if data:
                new.writestr(name, data)
    return file


class Trap:
    """Unpickled, it would leave a mark."""

    def __reduce__(self):
        return (Path("trapped").touch, ())


def test_arrays_with_code_in_them_are_not_unpacked(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rewritten(file, start=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        pack.read(file)
    assert not Path("trapped").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": None}, "has no start"),
        ({"tables": None}, "has no tables"),
        ({"tables": np.zeros(9, np.uint8)}, "trailing characters|Expected"),
        ({"start": np.zeros(3)}, "not of one length"),
        ({"start": np.zeros((2, 2))}, "start is 2-dimensional float64, not a column of float64"),
        ({"op": np.zeros(3)}, "op is 1-dimensional float64, not a column of int32"),
        ({"contended_span": np.array([10**9]), "contended_resource": np.array([0]), "contended_seconds": np.ones(1)},
         "contended_span is out of its range"),
    ],
)  # fmt: skip
def test_what_a_file_claims_is_checked(file, change, said):
    with pytest.raises(ValueError, match=said):
        pack.read(rewritten(file, **change))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("op", 10**6, "op is out of its range"),
        ("cause", 9, "cause is out of its range 0 to 3"),
        ("cause_span", -5, "cause_span is out of its range"),
        ("peer", 10**9, "peer is out of its range"),
        ("action", 10**9, "action is out of its range"),
        ("action", -1, "action is out of its range"),
        ("end", np.nan, "a time is not a number of seconds"),
        ("start", -1.0, "a time is not a number of seconds"),
    ],
)
def test_places_and_times_are_checked(file, column, value, said):
    array = getattr(pack.read(file).spans, column).copy()
    array[len(array) // 2] = value
    with pytest.raises(ValueError, match=said):
        pack.read(rewritten(file, **{column: array}))


def with_tables(file, change):
    """The file with its tables changed in place by a function."""
    with zipfile.ZipFile(file) as old:
        tables = np.lib.format.read_array(io.BytesIO(old.read("tables.npy")))
    document = msgspec.msgpack.decode(tables.tobytes())
    change(document)
    return rewritten(file, tables=np.frombuffer(msgspec.msgpack.encode(document), np.uint8))


def test_another_format_is_said(file):
    with pytest.raises(ValueError, match="has format 99, not 1"):
        pack.read(with_tables(file, lambda document: document.update(format=99)))


def test_causes_go_back_in_time(file):
    """Else whoever follows them would never come to an end."""
    spans = pack.read(file).spans
    for column in ("cause_span", "peer"):
        array = getattr(spans, column).copy()
        array[3] = 4
        with pytest.raises(ValueError, match="a span waited on itself or on a later one"):
            pack.read(rewritten(file, **{column: array}))
        rewritten(file, **{column: getattr(spans, column)})


@pytest.mark.parametrize(
    ("table", "key", "value", "said"),
    [
        ("ops", "phase", "X", "there is no phase 'X'"),
        ("ops", "rank_class", 99, "rank_class is out of its range"),
        ("ops", "bound_by", 999, "resource of an op is out of its range"),
        ("ops", "duration", "long", "Expected `float`"),
        ("rank_classes", "members", 0, "stands for nobody"),
        ("rank_classes", "representative", -1, "stands for nobody"),
        ("resources", "capacity", 0.0, "is not an amount"),
        ("resources", "capacity", float("nan"), "is not an amount"),
    ],
)
def test_tables_are_checked(file, table, key, value, said):
    with pytest.raises(ValueError, match=said):
        pack.read(with_tables(file, lambda document: document[table][0].update({key: value})))


def test_a_torn_file_and_one_of_another_kind(file):
    whole = file.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"name: not a zip"):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"\w"):
            pack.read(file)


def test_a_file_that_unpacks_to_too_much_is_a_trap(file, monkeypatch):
    monkeypatch.setattr(pack, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="unpacks to more than 1000 bytes"):
        pack.read(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    step = run("own-order", ["model.layers=4"])
    out = tmp_path_factory.mktemp("run") / "own"
    write_all(out, step.timeline, step.result, kept(step))
    return step, out


def test_a_folder_opens_again_to_the_same_step_wherever_it_is_moved(folder, tmp_path):
    step, out = folder
    moved = out.rename(tmp_path / "moved")
    again = reopen(moved)
    moved.rename(out)
    for figure in ("step_time", "breakdown", "phases", "bound_by", "transfers", "utilisation", "mfu", "published"):
        assert getattr(again.result, figure) == getattr(step.result, figure), figure
    assert run(str(out / "scenario.yaml")).result.step_time == step.result.step_time


def test_folders_that_are_no_run(folder, tmp_path):
    _, out = folder
    with pytest.raises(ScenarioError, match=r"holds no run \(no scenario.yaml and no timeline.npz\); make one with"):
        reopen(tmp_path)
    for name in ("scenario.yaml", "schedule.csv"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    (tmp_path / "timeline.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(ScenarioError, match=r"timeline.npz: is no timeline of this version of Stepline: has no tables"):
        reopen(tmp_path)
    step = run("quickstart")
    pack.write(step.timeline, tmp_path / "timeline.npz")
    with pytest.raises(
        ScenarioError, match=r"is a step of 1 ranks, not the 8 of scenario.yaml; run the scenario again"
    ):
        reopen(tmp_path)
