"""Speed of the engine and of the command, with exact counts as goldens.

    python benchmarks/engine_speed.py [--json] [--update] [--small]

Ops a second on one core for an uncontended chain, for compute and collectives in turn (with a latency), and for
contended streams; bare SimPy callbacks in the same run, and the engine's rate as a share of it. Counts of ops, events
and solves must equal ``golden_counts.json`` (``--update`` rewrites it). ``--small`` leaves the clock out: counts only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import simpy  # noqa: E402
from plans import PlanMaker  # noqa: E402

from sim.engine.core import simulate  # noqa: E402

GOLDEN = Path(__file__).parent / "golden_counts.json"
PROMISES = {"ops_per_s": 150_000, "help_s": 0.3, "demo_s": 2.0}


def chain(maker):
    """Kernels one after another, each alone on its resources."""
    for i in range(100):
        maker.op(f"k{i}", 1.0, {"sm": 1.0, "hbm": 0.5})


def alternating(maker):
    """A kernel, then a collective that waits for it and has a latency, and so on."""
    last = ()
    for i in range(50):
        last = (maker.op(f"k{i}", 1.0, {"sm": 1.0, "hbm": 0.5}, deps=last),)
        last = (maker.op(f"c{i}", 1.0, {"link": 1.0}, stream="comm", latency=0.1, deps=last),)


def contended(maker):
    """Kernels beside collectives that take a tenth of their SMs: every one is solved for."""
    for i in range(50):
        maker.op(f"k{i}", 1.0, {"sm": 1.0, "hbm": 0.5})
        maker.op(f"c{i}", 1.3, {"link": 1.0, "sm": 0.1}, stream="comm", weight=8.0)


def in_step(maker):
    """Two ranks that meet after each kernel, as tensor parallelism does when every rank is simulated."""
    for rank in (0, 1):
        last = ()
        for i in range(24):
            last = (maker.op(f"{rank}.k{i}", 1.0, {f"sm{rank}": 1.0}, rank=rank, deps=last),)
            both = {"sm0": 0.1, "sm1": 0.1}
            last = (maker.op(f"{rank}.c{i}", 1.0, both, rank=rank, stream="comm", group=0, weight=8.0, deps=last),)
        for name in ("norm", "head"):
            last = (maker.op(f"{rank}.{name}", 1.0, {f"sm{rank}": 1.0}, rank=rank, deps=last),)


CASES = {"chain": chain, "alternating": alternating, "contended": contended, "in step": in_step}


def run_case(fill, repeat):
    """(seconds, spans, events, solves) of one case."""
    ranks, groups = (2, (2,)) if fill is in_step else (1, ())
    resources = dict.fromkeys(("sm", "hbm", "link", "sm0", "sm1"), 1.0)
    maker = PlanMaker(resources, ranks=ranks, group_sizes=groups)
    fill(maker)
    plan = maker.plan(repeat)
    begin = time.perf_counter()
    timeline = simulate(plan)
    return time.perf_counter() - begin, len(timeline.spans.op), timeline.events, timeline.solves


def counts():
    """Exact counts of every case, small."""
    return {
        name: dict(zip(("ops", "events", "solves"), run_case(fill, 10)[1:], strict=True))
        for name, fill in CASES.items()
    }


def bare_simpy(callbacks=400_000):
    """SimPy callbacks a second, one scheduling the next: the ceiling of anything built on it."""
    env = simpy.Environment()
    left = callbacks

    def again(_):
        nonlocal left
        left -= 1
        if left:
            event = simpy.Event(env)
            event._ok, event._value = True, None
            event.callbacks.append(again)
            env.schedule(event, delay=1.0)

    again(None)
    begin = time.perf_counter()
    env.run()
    return callbacks / (time.perf_counter() - begin)


def process(*args):
    """Median seconds of five whole processes."""
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sim", *args], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begin)
    return median(seconds)


def measure():
    """Rates, and how they stand to the promises."""
    bare = bare_simpy()
    rates = {}
    for name, fill in CASES.items():
        runs = [run_case(fill, 2000 if name != "contended" else 300) for _ in range(3)]
        rates[name] = max(spans / seconds for seconds, spans, _, _ in runs)
    with tempfile.TemporaryDirectory() as out:
        demo = process("run", "zero-offload-10b-v100", "--out", out)
    return {
        "ops_per_s": {name: round(rate) for name, rate in rates.items()},
        "simpy_callbacks_per_s": round(bare),
        "share_of_simpy": round(rates["chain"] / bare, 3),
        "help_s": round(process("--help"), 3),
        "demo_s": round(demo, 3),
    }


def table(found):
    """The same for people: a line for each number, and the promised ones beside what was found."""
    for key, value in found.items():
        if key.startswith("promises"):
            continue
        if isinstance(value, dict):
            for name, number in value.items():
                print(f"{key:22} {name:12} {number}")
        else:
            print(f"{key:22} {'':12} {value}")
    for name, met in found.get("promises_met", {}).items():
        bound = "at least" if name == "ops_per_s" else "at most"
        print(f"promised: {name} {bound} {PROMISES[name]:,}: {'met' if met else 'NOT MET'}")


def main():
    """Print, compare, and fail where counts differ."""
    now = counts()
    if "--update" in sys.argv:
        GOLDEN.write_text(json.dumps(now, indent=2) + "\n")
    same = now == json.loads(GOLDEN.read_text())
    found = {"counts_as_golden": same, "counts": now}
    if "--small" not in sys.argv:
        found |= measure()
        met = (
            found["ops_per_s"]["chain"] >= PROMISES["ops_per_s"],
            found["help_s"] <= PROMISES["help_s"],
            found["demo_s"] <= PROMISES["demo_s"],
        )
        found["promises"] = PROMISES
        found["promises_met"] = dict(zip(PROMISES, met, strict=True))
    if "--json" in sys.argv:
        print(json.dumps(found))
    else:
        table(found)
    sys.exit(not same)


if __name__ == "__main__":
    main()
