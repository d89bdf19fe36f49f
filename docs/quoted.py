"""Numbers quoted in README.md and docs, checked against the simulator and written anew: ``python docs/quoted.py``.

A quoted number carries an invisible mark that says where it is from: ``21.8 %<!--lecture-4096:bubble-->``, the run
before the colon, the figure after it. A run is a shipped scenario or a line of ``RUNS``; a figure is a line of
``PICKS`` or a path such as ``sent.dp`` (``PATHS``); numbers of several runs are ``RATIOS``. Unit and digits are those
of the text.

``python docs/quoted.py`` simulates every run that is named and writes each number as it is now; ``--check`` only says
what is out of date (exit code 1). The tests hold every number to ``TOLERANCE``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import floor, log10
from pathlib import Path

from sim.analysis.result import Verdict
from sim.api import Step, check, run

ROOT = Path(__file__).parent.parent
TOLERANCE = 0.05
"""Of a quoted number; for a percentage also one point, for anything half a unit of its last digit."""
POINT = 0.01

WIDE = (
    "cluster.host_link.h2d=100GB/s", "cluster.host_link.d2h=100GB/s", "cluster.host_link.duplex=200GB/s",
    "cluster.host_link.uplink=100GB/s",
)  # fmt: skip
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "zero1": ("lecture-64-dp", ("layout.zero=1",)),
    "zero2": ("lecture-64-dp", ("layout.zero=2",)),
    "zero3": ("lecture-64-dp", ("layout.zero=3",)),
    "once-dp": ("lecture-64-dp", ("batch.size=64",)),
    "once-zero1": ("lecture-64-dp", ("batch.size=64", "layout.zero=1")),
    "once-zero2": ("lecture-64-dp", ("batch.size=64", "layout.zero=2")),
    "once-zero3": ("lecture-64-dp", ("batch.size=64", "layout.zero=3")),
    "allreduce-8": ("lecture-64-allreduce", ("layout.dp=8", "batch.size=64")),
    "zero3-two-microbatches": ("lecture-64-zero3", ("batch.micro=4",)),
    "one-nic-zero3": ("lecture-64-zero3", ("cluster.nics.count=1",)),
    "pp-fewer": ("lecture-64-pp", ("batch.size=64",)),
    "pp-uneven": ("lecture-64-pp", ("layout.stage_layers=[7,7,7,7,6,6,6,2]",)),
    "gpipe-64": ("lecture-64-pp", ("layout.schedule=gpipe",)),
    "interleaved-64": ("lecture-64-pp", ("layout.schedule=interleaved", "layout.virtual_stages=2")),
    "zb-64": ("lecture-64-pp", ("layout.schedule=zb-h1",)),
    "mp-two": ("lecture-64-mp", ("layout.tp=2", "layout.dp=32")),
    **{f"llama3-70b-{s}": ("llama3-70b-16xh100-offload", (f"batch.sequence={s}",)) for s in (512, 1024, 2048)},
    "layer-long": ("lecture-1t-one-gpu", ("batch.sequence=104880", "model.max_positions=104880", "batch.micro=1")),
    "1t-no-batch": ("lecture-1t-one-gpu", ("batch.micro=1",)),
    "7b": ("lecture-64-dp", ("model=llama2-7b", "layout.zero=3")),
    "wide-link": ("zero-offload-10b-v100", WIDE),
    "wide-memory": ("zero-offload-10b-v100", ("cluster.host.dram_bandwidth=400GB/s",)),
    "wide-both": ("zero-offload-10b-v100", (*WIDE, "cluster.host.dram_bandwidth=400GB/s")),
    "delayed": ("zero-offload-10b-v100", ("offload.update=delayed",)),
    "offload-1": ("zero-offload-10b-v100", ("model.layers=4", "cluster.nodes=1")),
    "offload-8": ("zero-offload-10b-v100", ("model.layers=4", "cluster.nodes=1", "layout.dp=8")),
    "offload-16": ("zero-offload-10b-v100", ("model.layers=4", "cluster.nodes=1", "layout.dp=16")),
    "superchips-16": ("zero-offload-10b-gh200", ("model.layers=4", "cluster=gh200-x16", "layout.dp=16")),
    "superchips-1": ("zero-offload-10b-gh200", ("model.layers=4",)),
    "superchip": (
        "zero-offload-10b-gh200",
        ("offload.update=speculative", "offload.ratio=0.8", "offload.casts=gpu", "layout.grad_bucket=64 MB"),
    ),
}  # fmt: skip
"""Name -> scenario and overrides."""

PICKS: dict[str, Callable[[Step], float]] = {
    "step": lambda s: s.result.step_time,
    "bubble": lambda s: s.result.breakdown.get("bubble", 0.0) / s.result.step_time,
    "mfu": lambda s: s.result.mfu,
    "hfu": lambda s: s.result.hfu,
    "tokens": lambda s: s.result.tokens_per_s_per_gpu,
    "flops": lambda s: s.result.hfu * max(s.roofline().peaks.values()),
    "peak": lambda s: _largest(s, "gpu"),
    "peak-in-gb": lambda s: _largest(s, "gpu") / 1e9,
    "host": lambda s: _largest(s, "host"),
    "exposed": lambda s: sum(s.result.breakdown.get(c, 0.0) for c in ("tp", "cp", "ep", "pp", "dp", "param_gather")),
}
"""Figure -> how it is read from a simulated step, in SI units or as a fraction."""

PATHS: dict[str, Callable[[Step, str], float]] = {
    "seconds": lambda s, c: s.result.breakdown.get(c, 0.0),
    "share": lambda s, c: s.result.breakdown.get(c, 0.0) / s.result.step_time,
    "phase": lambda s, p: s.result.phases[p],
    "bound": lambda s, kind: s.result.bound_by.get(kind, 0.0),
    "sent": lambda s, c: next((t.bytes for t in s.result.transfers if t.category == c), 0.0),
    "times": lambda s, c: next((t.count for t in s.result.transfers if t.category == c), 0.0),
    "rate": lambda s, c: next(t.achieved for t in s.result.transfers if t.category == c),
}
"""Figure.part -> seconds of a category and its share, a phase, a share of the critical path, bytes and exchanges."""

WEIGHED: dict[str, Callable[[Verdict], float]] = {
    "params": lambda v: v.params,
    "layer-params": lambda v: v.layer_params,
    "layer-params-lecture": lambda v: v.lecture_params,
    "layer-products": lambda v: v.layer_multiplications,
    "layer-products-lecture": lambda v: v.lecture_multiplications,
    "weighed": lambda v: next(w.peak for w in v.weights if w.where == "gpu"),
    "capacity": lambda v: next(w.capacity for w in v.weights if w.where == "gpu"),
    "outputs": lambda v: next(c.ours for c in v.published if c.figure == "activations_per_layer"),
}
"""Figures that need no simulation; ``weight.OWNER`` is the memory of an owner at the peak."""

def _sent(name: str) -> float:
    return value(f"{name}:sent.dp") + value(f"{name}:sent.param_gather")


RATIOS: dict[str, Callable[[], float]] = {
    "zero1-shorter": lambda: 1 - value("lecture-64-scatter-gather:step") / value("lecture-64-allreduce:step"),
    "once-zero1-traffic": lambda: _sent("once-zero1") / _sent("once-dp"),
    "once-zero2-traffic": lambda: _sent("once-zero2") / _sent("once-dp"),
    "once-zero3-traffic": lambda: _sent("once-zero3") / _sent("once-dp"),
    "zero3-total": lambda: _sent("lecture-64-zero3"),
    "mp-share": lambda: value("lecture-64-mp:exposed") / value("lecture-64-mp:step"),
    "delayed-faster": lambda: value("zero-offload-10b-v100:step") / value("delayed:step"),
    "wide-link-saves": lambda: value("zero-offload-10b-v100:step") - value("wide-link:step"),
    "wide-memory-saves": lambda: value("zero-offload-10b-v100:step") - value("wide-memory:step"),
    "wide-both-saves": lambda: value("zero-offload-10b-v100:step") - value("wide-both:step"),
    "superchip-faster": lambda: value("zero-offload-10b-gh200:step") / value("superchip:step"),
    "adam-8": lambda: 8 * value("offload-8:seconds.cpu_adam") / value("offload-1:seconds.cpu_adam"),
    "adam-16-superchips": lambda: 16 * value("superchips-16:seconds.cpu_adam") / value("superchips-1:seconds.cpu_adam"),
}
"""Numbers of several runs: ``<!--ratio:NAME-->``."""

UNITS = {
    "%": 0.01, "TB": 1e12, "GB": 1e9, "MB": 1e6, "GB/s": 1e9, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "x": 1.0,
    "TFLOP/s": 1e12, "tokens/s": 1.0,
}  # fmt: skip
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
MARK = re.compile(
    rf"(?P<number>-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?)(?P<unit> ?(?:{_UNIT}))?"
    r"(?P<mark><!--(?P<run>[\w.-]+):(?P<figure>[\w.-]+)-->)"
)
COMMENT = re.compile(r"<!--[\w.-]+:[\w.-]+-->")


@dataclass(frozen=True, slots=True)
class Quoted:
    """A number in a page: where, what is written, and the name of what it quotes."""

    path: Path
    line: int
    text: str
    unit: str
    name: str

    @property
    def said(self) -> float:
        """The number as written, in SI units."""
        return float(self.text.replace(",", "")) * UNITS.get(self.unit.strip(), 1.0)

    @property
    def step(self) -> float:
        """A unit of its last digit."""
        digits, _, power = self.text.replace(",", "").partition("e")
        return 10.0 ** (int(power or 0) - len(digits.partition(".")[2])) * UNITS.get(self.unit.strip(), 1.0)

    def holds(self, now: float) -> bool:
        """Whether the number is still right, within what is said above."""
        allowed = max(TOLERANCE * abs(now), 0.51 * self.step, POINT if self.unit.strip() == "%" else 0.0)
        return abs(self.said - now) <= allowed

    def written(self, now: float) -> str:
        """``now`` as the page writes it: with as many significant digits, commas and an exponent where it has them."""
        number, was = now / UNITS.get(self.unit.strip(), 1.0), self.text.replace(",", "")
        digits, _, power = was.partition("e")
        count = len(digits.replace(".", "").lstrip("-0")) or 1
        if power:
            short, _, exponent = f"{number:.{count - 1}e}".partition("e")
            return f"{short}e{int(exponent)}"
        if "." not in digits and ("," in self.text or count > 3):
            return f"{number:,.0f}" if "," in self.text else f"{number:.0f}"
        rounded = float(f"{number:.{max(count, 1) - 1}e}")
        places = max(0, count - 1 - floor(log10(abs(rounded)))) if rounded else 0
        return f"{rounded:.{places}f}"


def pages() -> list[Path]:
    """README and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def quoted(path: Path) -> Iterator[Quoted]:
    """Every marked number of a page. A mark without a number before it is an error."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        found = list(MARK.finditer(line))
        if len(found) != len(COMMENT.findall(line)):
            msg = f"{path}:{number}: a mark needs a number before it, with a unit of {', '.join(UNITS)} or none"
            raise ValueError(msg)
        for one in found:
            yield Quoted(path, number, one["number"], one["unit"] or "", f"{one['run']}:{one['figure']}")


def asked(name: str) -> tuple[str, tuple[str, ...]]:
    """Scenario and overrides of a run."""
    return RUNS.get(name, (name, ()))


@cache
def simulated(name: str) -> Step:
    """A run, simulated once."""
    source, sets = asked(name)
    return run(source, sets)


@cache
def weighed(name: str) -> Verdict:
    """A run, weighed only."""
    source, sets = asked(name)
    return check(source, sets)


def value(name: str) -> float:
    """What a name stands for now."""
    run_, _, figure = name.partition(":")
    if run_ == "ratio":
        return RATIOS[figure]()
    if figure in WEIGHED:
        return float(WEIGHED[figure](weighed(run_)))
    if figure in PICKS:
        return PICKS[figure](simulated(run_))
    head, _, rest = figure.partition(".")
    if head == "weight":
        return next(w.at_peak[rest.replace("_", " ")] for w in weighed(run_).weights if w.where == "gpu")
    if head in PATHS:
        return PATHS[head](simulated(run_), rest)
    msg = f"{name}: no such figure; there are {', '.join([*PICKS, *WEIGHED, *(f'{path}.PART' for path in PATHS)])}"
    raise KeyError(msg)


def _largest(step: Step, where: str) -> float:
    return max((use.peak for use in step.result.memory if use.where == where), default=0.0)


def refresh(path: Path, *, write: bool) -> list[str]:
    """What changed (or, without ``write``, what is out of date) in a page, as lines for people."""
    told: list[str] = []
    lines = path.read_text("utf-8").splitlines(keepends=True)

    def anew(number: int, line: str) -> str:
        def one(match: re.Match[str]) -> str:
            name = f"{match['run']}:{match['figure']}"
            old = Quoted(path, number, match["number"], match["unit"] or "", name)
            now = value(name)
            new = old.written(now)
            if new != old.text and (write or not old.holds(now)):
                told.append(f"{path.relative_to(ROOT)}:{number}: {name}: {old.text}{old.unit} -> {new}{old.unit}")
            return f"{new}{old.unit}{match['mark']}"

        return MARK.sub(one, line)

    text = "".join(anew(number, line) for number, line in enumerate(lines, 1))
    if write:
        path.write_text(text, "utf-8")
    return told


if __name__ == "__main__":
    checking = "--check" in sys.argv
    stale = [line for page in pages() for line in refresh(page, write=not checking)]
    print("\n".join(stale) or "every number is up to date")
    sys.exit(1 if checking and stale else 0)
