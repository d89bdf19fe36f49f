"""The engine does the same number of things as ever: event, op and solve counts are goldens, unlike seconds."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_counts_equal_the_goldens():
    done = subprocess.run(
        [sys.executable, "benchmarks/engine_speed.py", "--small", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["chain"] == {"ops": 1000, "events": 1000, "solves": 0}, "one event an uncontended op, and no solve"
    assert counts["alternating"]["events"] == counts["alternating"]["ops"], (
        "a latency costs no event where there is room"
    )
