"""``stepline schedule``: the grid on a terminal, cut where it is too wide, and the CSV. Goldens for the words.

``pytest tests/test_report_schedule_text.py --update-golden`` rewrites them; review the difference.
"""

import io
from pathlib import Path

import pytest
from rich.console import Console
from test_cli import stepline

from sim.api import schedule
from sim.report.schedule_text import show_schedule
from sim.workload.schedules.csv_text import from_csv

GOLDEN = Path(__file__).parent / "golden" / "schedule_text"
NAMED = ["layout.schedule_file=null"]
CASES = {
    "own-order": ([], 0),
    "own-order-cut": ([], 60),
    "dualpipe": ([*NAMED, "layout.schedule=dualpipe"], 120),
    "one-stage": ([*NAMED, "layout.pp=1", "layout.dp=8", "batch.accumulation=2"], 80),
}


def shown(sets, width):
    stream = io.StringIO()
    show_schedule(
        Console(file=stream, width=80, highlight=False, markup=False), schedule("own-order", sets, width=width)
    )
    return stream.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_schedule_is_shown_as_ever(case, update_golden):
    text = shown(*CASES[case])
    path = GOLDEN / f"{case}.txt"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("width", [1, 20, 59, 60, 61, 100, 10_000])
def test_a_wide_grid_is_cut_with_a_notice(width):
    whole, cut = schedule("own-order"), schedule("own-order", width=width)
    lines = [line[:width].rstrip() for line in whole.grid.splitlines()]
    assert cut.grid.splitlines() == lines
    assert cut.width == whole.width == max(map(len, whole.grid.splitlines()))
    assert ("Cut: " in shown([], width)) == (width < whole.width)


def test_rows_are_cut_where_ranks_are_idle():
    """Cut to the first columns, in which the last rank has nothing to do yet: nothing is drawn beyond."""
    cut = schedule("own-order", [*NAMED, "layout.schedule=gpipe"], width=16)
    assert [len(line) for line in cut.grid.splitlines()] == [14, 16, 16, 14, 14]


def test_dropped_cells_are_told(tmp_path):
    (tmp_path / "comms.csv").write_text("0F0,0SEND_F0,0F1,0B0,0B1\n1RECV_F0,1F0,1B0,1F1,1B1\n")
    sets = [f"layout.schedule_file={tmp_path}/comms.csv", "layout.pp=2", "layout.dp=4", "batch.accumulation=2"]
    assert "2 cells for messages and parameters were left out" in shown(sets, 0)


def test_the_command_draws_and_writes(tmp_path):
    done = stepline("schedule", "own-order", "--csv", "mine.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    order = schedule("own-order")
    assert order.grid in done.stdout, "no terminal: nothing is cut"
    assert "wrote mine.csv" in done.stdout
    assert (tmp_path / "mine.csv").read_text() == order.csv
    assert to_set(tmp_path) == from_csv(order.csv).schedule.orders
    again = stepline("schedule", "own-order", "--csv", "mine.csv", cwd=tmp_path)
    assert again.returncode == 2
    assert "mine.csv: it exists already and is left alone; choose another name" in again.stderr


def to_set(folder):
    return from_csv((folder / "mine.csv").read_text()).schedule.orders


def test_the_command_cuts_to_a_width_and_refuses_bad_input(tmp_path):
    done = stepline("schedule", "own-order", "--width", "40", cwd=tmp_path)
    assert "of 140 characters of a line are shown. --width N shows more" in done.stdout
    assert stepline("schedule", "own-order", "--set", "layout.schedule_file=gone.csv").returncode == 2
