"""The same plan gives the same bytes: in another process, under another hash seed, and again in this one."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plans import PlanMaker

from sim.engine.core import simulate

ROOT = Path(__file__).parent.parent
PRINT = "import sys; sys.path[:0] = ['.', 'tests']; import test_engine_determinism as t; print(t.digest(t.entangled()))"


def entangled():
    """Two ranks; kernels, collectives and copies that contend, meet, launch late, wait for tokens and hold the host."""
    maker = PlanMaker({"a": 1.0, "b": 1.0, "c": 1.0}, ranks=2, group_sizes=(2,), launch_queue=16)
    for r in range(2):
        for i in range(20):
            maker.op(f"k{i}", 1.0 + i / 7 + r / 3, {"a": 0.7, "b": 0.4}, rank=r, launch=0.1, signals=("done",))
            maker.op(f"c{i}", 0.9, {"b": 0.8, "c": 0.3}, rank=r, stream="comm", latency=0.01, group=0, weight=8.0)
            maker.op(f"h{i}", 0.3, {"c": 1.0}, rank=r, stream="copy", waits=("done",), sync=i % 5 == 4)
    return maker.plan(3)


def digest(plan):
    timeline = simulate(plan)
    spans = timeline.spans
    whole = b"".join(getattr(spans, name).tobytes() for name in spans.__slots__)
    rest = repr((list(timeline.contended), timeline.makespan, timeline.events, timeline.solves)).encode()
    return hashlib.sha256(whole + rest).hexdigest()


def test_the_plan_is_worth_it():
    timeline = simulate(entangled())
    assert timeline.solves > 100, "contention"
    assert len(timeline.contended) > 100
    assert (timeline.spans.peer >= 0).any(), "rendezvous"
    assert set(timeline.spans.cause.tolist()) >= {1, 2, 3}, "dependencies, streams and launches all decide somewhere"


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_same_bytes_in_another_process_under_another_hash_seed(seed):
    done = subprocess.run(
        [sys.executable, "-c", PRINT], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == digest(entangled())


def test_a_plan_is_not_used_up():
    plan = entangled()
    assert digest(plan) == digest(plan)
