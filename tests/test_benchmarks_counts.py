"""The engine does the same number of things as ever: event, op and solve counts are goldens, unlike seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_counts_equal_the_goldens():
    done = subprocess.run(
        [sys.executable, "benchmarks/engine_speed.py", "--small", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["chain"] == {"ops": 1000, "events": 10, "solves": 0}, "a hundred ops that follow each other an event"
    assert counts["alternating"]["events"] < counts["alternating"]["ops"], (
        "a latency costs no event where there is room"
    )
    assert counts["in step"]["events"] < counts["in step"]["ops"] / 8, "members in step are one sum"


def test_a_changed_count_fails(monkeypatch, tmp_path, capsys):
    """One solve more in the golden than there are: exit 1, and the numbers still printed."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import engine_speed

    golden = json.loads(engine_speed.GOLDEN.read_text())
    golden["contended"]["solves"] += 1
    wrong = tmp_path / "golden_counts.json"
    wrong.write_text(json.dumps(golden))
    monkeypatch.setattr(engine_speed, "GOLDEN", wrong)
    monkeypatch.setattr(sys, "argv", ["engine_speed.py", "--small", "--json"])
    with pytest.raises(SystemExit) as left:
        engine_speed.main()
    assert left.value.code == 1
    assert json.loads(capsys.readouterr().out)["counts_as_golden"] is False
