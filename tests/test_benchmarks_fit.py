"""The list of fits: every one has rows and keys that can be read; its log is what docs/accuracy.md shows."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import fit

from sim.calibration.axes import read as axes_of
from sim.calibration.axes import sustained
from sim.spec.load import load
from sim.validation.scenario import document


@pytest.mark.parametrize("name", fit.TASKS)
def test_every_fit_has_rows_and_keys(name):
    task = fit.TASKS[name]
    rows = fit.rows_of(task)
    assert rows
    assert len(axes_of(task.keys)) == len(task.keys)
    stacks = {document(row)["stack"] for row in rows}
    assert len(stacks) <= 2, stacks  # a number belongs to one stack, or to a machine that two ran on


def test_a_fit_is_kept_and_drawn_up(monkeypatch):
    """A row alone: what the log has of it, and the line of the page."""
    task = fit.Task(tables=("torchtitan",), rows=lambda row: row.text("gpu") == "h200-sxm")
    monkeypatch.setitem(fit.TASKS, "one", task)
    (found,) = fit.fitted("one", 1)
    assert (found["rows"], found["refused"], found["folds"]) == (1, 0, "")
    assert found["after"] < 0.005
    (number,) = found["numbers"].values()
    assert number["error"] is None
    said = fit.page({"one": [found]})
    name = "one: h200-sxm-141gb with torchtitan-compile-2025"
    assert f"| {name} | 1 | `stack.sustained.h200-sxm-141gb` | {number['value']} |" in said


def test_a_fit_without_rows_says_why(monkeypatch):
    """A number beyond what the key may be: every row is refused, and nothing is kept."""
    keys = ("stack.sustained.h200-sxm-141gb=0.6:1.5",)
    task = fit.Task(tables=("torchtitan",), rows=lambda row: row.text("gpu") == "h200-sxm", keys=keys)
    monkeypatch.setitem(fit.TASKS, "one", task)
    with pytest.raises(SystemExit, match=r"one: no row could be simulated: .*at most 1\.2"):
        fit.fitted("one", 1)


def test_a_page_shows_what_was_kept():
    number = {"value": "0.8", "was": ["0.84"], "error": 0.012, "least": "0.79", "most": "0.82"}
    one = {
        "of": "a with b", "tables": ["t"], "rows": 9, "refused": 0, "folds": "models", "groups": 3, "held": [],
        "numbers": {"x": number, "y": {**number, "value": "7"}}, "before": 0.05, "after": 0.04, "unseen": 0.05,
    }  # fmt: skip
    lines = fit.page({"torchtitan": [one]}).splitlines()[-2:]
    assert lines == [
        "| torchtitan: a with b | 9 | `x` | 0.8 | 1.2 % | 0.79 to 0.82 | 5.0 % | 4.0 % | 5.0 % | 1.25 |",
        "|  |  | `y` | 7 | 1.2 % | 0.79 to 0.82 |  |  |  |  |",
    ]
    more = {**one, "rows": 1, "before": 0.15, "after": 0.14, "unseen": 0.15}
    together = fit.page({"torchtitan": [one, more]}).splitlines()[-1]
    assert together == "| t: all of these fits | 10 |  |  |  |  | 6.0 % | 5.0 % | 6.0 % | 1.20 |", "weighed by rows"
    assert "| none decided |" in fit.page({"torchtitan": [{**one, "numbers": {}}]})


def test_the_page_is_that_of_the_log():
    before, _, rest = fit.PAGE.read_text().partition("<!-- begin: fits -->")
    assert before
    assert rest.partition("<!-- end: fits -->")[0].strip() == fit.page(json.loads(fit.LOG.read_text()))


def test_an_unknown_fit_is_told(capsys):
    with pytest.raises(SystemExit):
        fit.main(["no-such-fit"])
    assert "no such fit: no-such-fit; there are llm-foundry on A100" in capsys.readouterr().err


def test_shipped_numbers_are_those_that_were_fitted(tmp_path):
    """To two per cent: a number that somebody changes by hand, or a fit that nobody took over, shows here."""
    log, off = json.loads(fit.LOG.read_text()), []
    for name, task in fit.TASKS.items():
        for one in log.get(name, ()):
            numbers = axes_of(task.keys) or [sustained(key.removeprefix(SHARE)) for key in one["numbers"]]
            scenarios = [load(str(path)).scenario for path in _one_of_each(fit.rows_of(task), tmp_path)]
            for axis in (axis for axis in numbers if axis.key in one["numbers"]):
                fitted = float(one["numbers"][axis.key]["value"].split()[0]) * axis.factor
                shipped = {axis.shipped(scenario) for scenario in scenarios} - {None}
                off += [(name, axis.key, fitted, value) for value in shipped if abs(value / fitted - 1) > 0.02]
    assert off == []


SHARE = "stack.sustained."


def _one_of_each(rows, folder):
    """A scenario of each stack and GPU among some rows."""
    found = {(document(row)["stack"], row.text("gpu")): row for row in rows}
    for number, row in enumerate(found.values()):
        path = folder / f"{number}.yaml"
        path.write_text(json.dumps(document(row)))
        yield path
