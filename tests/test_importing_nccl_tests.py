"""Logs of nccl-tests: public ones with what launchers add, JSON, what is inferred, what is refused with its line."""

import json
import time
from pathlib import Path

import pytest
from nccl_logs import log, report

from sim.errors import ScenarioError
from sim.importing.nccl_tests import read

SAMPLE = Path(__file__).parent / "fixtures" / "nccl-tests" / "p5-x2.txt"
ROWS = [(2.0**k, 2e-5 + 2.0**k / 1e11) for k in range(10, 33)]


def of(tmp_path, text, **options):
    path = tmp_path / "log"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, **options)


def test_a_page_that_names_neither_program_nor_ranks():
    """Two p5 nodes, tagged by srun: the ratio 1.875 of the bandwidths is that of an all-reduce over 16."""
    (sweep,) = read(SAMPLE)
    assert (sweep.kind, sweep.ranks, sweep.hosts, sweep.product) == ("all_reduce", 16, (), "")
    assert len(sweep.rows) == 32
    assert sweep.rows[0].out_of_place == pytest.approx(69.12e-6)
    assert (sweep.rows[-1].size, sweep.rows[-1].in_place) == (2.0**34, pytest.approx(66109e-6))


@pytest.mark.parametrize("prefix", ["", "0: ", "[1,0]<stdout>:", " 12: ", "\x1b[0m"])
def test_text_with_what_launchers_add(prefix, tmp_path):
    (sweep,) = of(tmp_path, log(ROWS, "all_gather", 2, 8, prefix=prefix))
    assert (sweep.kind, sweep.ranks, sweep.hosts, sweep.product) == ("all_gather", 16, (8, 8), "NVIDIA H100 80GB HBM3")
    assert [(row.size, row.out_of_place) for row in sweep.rows] == [(s, pytest.approx(t, rel=1e-4)) for s, t in ROWS]


def test_several_runs_in_one_log(tmp_path):
    text = log(ROWS, "all_reduce", 1, 8) + log(ROWS[:5], "broadcast", 1, 4)
    found = of(tmp_path, text)
    assert [(s.kind, s.ranks, len(s.rows)) for s in found] == [("all_reduce", 8, len(ROWS)), ("broadcast", 4, 5)]


def test_the_json_report(tmp_path):
    (sweep,) = of(tmp_path, report(ROWS, "reduce_scatter", 2, 4))
    assert (sweep.kind, sweep.ranks, sweep.hosts) == ("reduce_scatter", 8, (4, 4))
    assert sweep.rows[3].out_of_place == pytest.approx(ROWS[3][1])
    assert sweep.rows[3].in_place == pytest.approx(2 * ROWS[3][1])


def test_columns_of_other_versions(tmp_path):
    """Before root was a column, a row of an all-gather had no redop; reports may add times of day."""
    old = "#  size  count  type  redop  time  algbw  busbw  error  time  algbw  busbw  error\n"
    row = " 1048576 262144 float 50.1 20.9 18.3 0e+00 49.9 21.0 18.4 0e+00\n"
    (sweep,) = of(tmp_path, f"all_gather_perf -g 8\n{old}{row}", ranks=8)
    assert (sweep.rows[0].out_of_place, sweep.rows[0].in_place) == (pytest.approx(50.1e-6), pytest.approx(49.9e-6))
    dated = log(ROWS, "all_reduce", 1, 8).replace("#wrong\n", "#wrong timestamp\n")
    (sweep,) = of(tmp_path, dated.replace("N/A\n", "N/A 2026-01-01 00:00:00\n"))
    assert sweep.rows[0].out_of_place == pytest.approx(ROWS[0][1], rel=1e-4)


def test_what_cannot_be_inferred_is_asked_for(tmp_path):
    bare = "\n".join(line for line in log(ROWS, "all_gather", 1, 8, devices=False).splitlines() if "perf" not in line)
    with pytest.raises(ScenarioError, match="--collective"):
        of(tmp_path, bare)
    (sweep,) = of(tmp_path, bare, kind="all_gather")
    assert sweep.ranks == 8
    with pytest.raises(ScenarioError, match="--ranks"):
        of(tmp_path, log(ROWS[:3], "all_reduce", 1, 8, devices=False))


def test_a_root_that_is_no_number_is_none(tmp_path):
    (sweep,) = of(tmp_path, log(ROWS, "all_reduce", 1, 8).replace(" -1 ", " --5 "))
    assert len(sweep.rows) == len(ROWS)


GOOD = log(ROWS, "all_reduce", 1, 8)
LAST = GOOD.splitlines()[-3]
JSON = report(ROWS, "all_reduce", 1, 8)
HOSTILE = {
    "empty": ("", "is empty"),
    "no rows": ("# nThread 1\nhello\n", "holds no results"),
    "binary": (b"\x7fELF\0\0", "zero byte"),
    "latin": (GOOD.replace("host0", "h\u00f4te").encode("latin-1"), "UTF-8"),
    "cut": (GOOD[: GOOD.index(LAST) + 30], "columns where the heading has 13"),
    "nan": (GOOD.replace(LAST.split()[5], "nan", 1), "'nan' is no time"),
    "negative": (GOOD.replace(LAST.split()[5], "-3.5", 1), "'-3.5' is no time"),
    "zero": (GOOD.replace(LAST.split()[5], "0.00", 1), "'0.00' is no time"),
    "endless": (GOOD.replace(LAST.split()[5], "1e99", 1), "'1e99' is no time"),
    "words": (GOOD.replace(LAST.split()[5], "fast", 1), "'fast' is no time"),
    "size": (GOOD.replace(LAST.split()[0], "9" * 30, 1), "no buffer's size"),
    "superscript": ("\u00b2 \u00b2 float sum -1 1 1 1 0 1 1 1 0\n", "holds no results"),
    "alone": (GOOD.replace("Rank  1", "Rank  0"), "rank 0 is there twice"),
    "other": (GOOD.replace("all_reduce_perf", "gather_perf"), "gather_perf times an exchange that is not modelled"),
    "rows": (GOOD + (LAST + "\n") * 11_000, "more than 10000 rows"),
    "json cut": (JSON[:-40], "is no JSON report"),
    "json other": ('{"a": 1}', "is no JSON report"),
    "json deep": ('{"results":' + "[" * 100_000, "is no JSON report"),
    "json type": (JSON.replace('"size": 1024', '"size": "many"'), "is no JSON report"),
    "json time": (JSON.replace('"time": ', '"time": -', 1), "is no time"),
    "json nan": (json.dumps({"results": [{"size": 8, "out_of_place": {"time": "nan"}}]}), "'nan' is no time"),
    "json endless": (JSON.replace('"size": 1024', '"size": 1' + "0" * 5000), "is no JSON report"),
    "json size": (JSON.replace('"size": 1024', '"size": -1'), "a size that no buffer has"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_logs_are_refused_at_once(name, tmp_path):
    text, words = HOSTILE[name]
    began = time.perf_counter()
    with pytest.raises(ScenarioError) as caught:
        of(tmp_path, text)
    assert time.perf_counter() - began < 3
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
