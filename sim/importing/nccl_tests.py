"""Logs of nccl-tests (and rccl-tests) as sweeps: seconds by size of one collective over so many ranks.

Owns the two forms: text (a heading of columns, a row a size, out of place and in place; whatever launchers and
NCCL_DEBUG put between) and the JSON report of ``-J``. Sizes are kept as nccl-tests counts them: the whole
buffer of a rank. Fits nothing and knows no cluster.

What a log leaves out is inferred where it can only be one thing: ranks from the ratio of bus to algorithm bandwidth
(2(n-1)/n of an all-reduce, (n-1)/n of most others: nccl-tests, doc/PERFORMANCE.md), the collective from that ratio and
the columns ``redop`` and ``root``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sim.importing.reading import read_bytes, read_lines, refuse

MAX_BYTES = 64 << 20
MAX_ROWS = 10_000
_LARGEST = 1e15  # bytes
_LONGEST = 3600.0  # seconds

KINDS = {
    "all_reduce_perf": "all_reduce",
    "all_gather_perf": "all_gather",
    "reduce_scatter_perf": "reduce_scatter",
    "broadcast_perf": "broadcast",
    "alltoall_perf": "all_to_all",
    "sendrecv_perf": "ring_step",
}
"""Program of nccl-tests -> the exchange that it times, in Stepline's words."""

_PROGRAM = re.compile(r"\b([a-z_]+_perf)\b")
_RANK = re.compile(r"#\s+Rank\s+(\d{1,7})\s+(?:Group\s+\d+\s+)?Pid\s+\d+ on\s+(\S+) device\s+\d+ \[[^]]*\] (.{1,80})")
_COLUMNS = ("size", "count", "type", "redop", "root", *("time", "algbw", "busbw", "#wrong") * 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One row: bytes, seconds out of place and in place (None: not there), where it stands."""

    size: float
    out_of_place: float | None
    in_place: float | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One run of one program. ``hosts``: ranks of each host, empty where the log names none; ``product``: its GPU."""

    file: str
    line: int
    kind: str
    ranks: int
    hosts: tuple[int, ...]
    product: str
    rows: tuple[Timing, ...]


@dataclass(slots=True)
class _Run:
    """A sweep while it is read."""

    line: int = 0
    program: str = ""
    ranks: dict[int, str] = field(default_factory=dict)
    product: str = ""
    rows: list[Timing] = field(default_factory=list)
    words: tuple[str, int] = ("", -1)  # redop, root
    ratios: list[tuple[float, float]] = field(default_factory=list)  # (algorithm, bus) bandwidth


def read(path: Path, kind: str = "", ranks: int = 0) -> list[Sweep]:
    """The sweeps of a log; ``kind`` (a value of ``KINDS``) and ``ranks`` are for one that does not name its own.

    Raises:
        ScenarioError: it holds no results, a row is cut or holds a number that no machine gives, a collective is not
            modelled, or it or the number of ranks cannot be told.
    """
    first = read_bytes(path, MAX_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    runs = _of_json(path) if first == b"{" else _of_text(path)
    runs = [run for run in runs if run.rows]
    if not runs:
        refuse(path, 0, "holds no results of nccl-tests: no row of size, count, type, ..., time, algbw, busbw")
    return [_sweep(path, run, kind, ranks) for run in runs]


# -- text


def _of_text(path: Path) -> list[_Run]:
    runs, columns = [_Run()], tuple[str, ...]()
    for number, line in enumerate(read_lines(path, MAX_BYTES), start=1):
        run = runs[-1]
        words = line.split()
        if not words:
            continue
        program = _PROGRAM.search(line) if "_perf" in line else None
        rank = _RANK.search(line) if "Rank" in line else None
        if program or "# nThread" in line or words[:3] == ["#", "Using", "devices"]:
            if run.rows:
                run = _Run()
                runs.append(run)
            run.program = program.group(1) if program else run.program
        if rank:
            _add_rank(path, number, run, rank)
        elif words[0] == "#" and words[1:3] == ["size", "count"]:
            columns = tuple(words[1:])
            if run.rows:
                runs.append(_Run(program=run.program, ranks=run.ranks, product=run.product))
        elif all(word.isdecimal() for word in words[:2]) and (columns or len(words) == len(_COLUMNS)):
            _add_row(path, number, runs[-1], words, columns or _COLUMNS)
    return runs


def _add_rank(path: Path, number: int, run: _Run, found: re.Match[str]) -> None:
    rank, host, product = int(found.group(1)), found.group(2), found.group(3).strip()
    if rank in run.ranks:
        what = f"rank {rank} is there twice: several processes ran alone (tests built without MPI), which times nothing"
        refuse(path, number, what)
    run.ranks[rank], run.product = host, product


def _add_row(path: Path, number: int, run: _Run, words: list[str], columns: tuple[str, ...]) -> None:
    """Take a row in; some versions leave ``redop`` or ``root`` out of rows, so times are counted from the right."""
    times = [i for i, column in enumerate(columns) if column in ("time", "cputime")]
    tail = len(columns) - times[0] if times else 0
    if not times or len(words) < tail + 3 or len(words) > len(columns) + 1:
        what = f"{len(words)} columns where the heading has {len(columns)}: the log is cut or mixed; take the line out"
        refuse(path, number, what)
    skip = max(0, len(words) - len(columns)) if "timestamp" in columns else 0  # a date and a time of day
    start = len(words) - tail - skip
    seconds = [_time(path, number, words[start + i - times[0]]) for i in times[:2]]
    size = float(words[0])
    if len(run.rows) >= MAX_ROWS or not size <= _LARGEST:
        what = f"more than {MAX_ROWS} rows" if size <= _LARGEST else f"{words[0][:40]} bytes is no buffer's size"
        refuse(path, number, what)
    run.line = run.line or number
    if size > 0:
        run.rows.append(Timing(size=size, out_of_place=seconds[0], in_place=(*seconds, None)[1], line=number))
        run.words = next((w for w in words[3:start] if not _is_int(w)), "none"), _root(words[3:start])
        run.ratios.append((_bandwidth(words[start + 1]), _bandwidth(words[start + 2])))


def _root(words: list[str]) -> int:
    return next((int(word) for word in words if _is_int(word)), -1)


def _is_int(word: str) -> bool:
    return re.fullmatch(r"-?\d{1,8}", word) is not None


def _bandwidth(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        return 0.0
    return value if 0 < value < 1e6 else 0.0


def _time(path: Path, number: int, word: str) -> float | None:
    """Microseconds as seconds; ``N/A`` is a column that was not measured."""
    if word.upper() == "N/A":
        return None
    try:
        seconds = float(word) * 1e-6
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        refuse(path, number, f"{word[:40]!r} is no time of a collective, in microseconds above 0")
    return seconds


# -- JSON


class _Times(msgspec.Struct, frozen=True):
    alg_bw: float | str = 0.0
    bus_bw: float | str = 0.0
    time: float | str | None = None
    cpu_time: float | str | None = None


class _Result(msgspec.Struct, frozen=True):
    size: int
    out_of_place: _Times | None = None
    in_place: _Times | None = None
    redop: str = "none"
    root: str | int = "-1"


class _Device(msgspec.Struct, frozen=True):
    rank: int
    hostname: str = ""
    device_info: str = ""


class _Config(msgspec.Struct, frozen=True):
    devices: tuple[_Device, ...] = ()


class _Report(msgspec.Struct, frozen=True):
    results: list[_Result]
    args: tuple[str, ...] = ()
    config: _Config = _Config()


def _of_json(path: Path) -> list[_Run]:
    try:
        report = msgspec.json.decode(read_bytes(path, MAX_BYTES), type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse(path, 0, f"is no JSON report of nccl-tests (-J): {error}"[:300])
    run = _Run(line=1, program=_program(report.args))
    for device in report.config.devices:
        if device.rank in run.ranks:
            refuse(path, 0, f"rank {device.rank} is there twice", "config.devices")
        run.ranks[device.rank], run.product = device.hostname, device.device_info
    for number, result in enumerate(report.results):
        where = f"results.{number}"
        if len(run.rows) >= MAX_ROWS or not 0 <= result.size <= _LARGEST:
            refuse(path, 0, f"more than {MAX_ROWS} rows, or a size that no buffer has", where)
        if result.size:
            both = [_json_time(path, times, where) for times in (result.out_of_place, result.in_place)]
            run.rows.append(Timing(size=float(result.size), out_of_place=both[0], in_place=both[1], line=0))
            run.words = result.redop, _root([str(result.root).strip()])
            times = result.out_of_place or result.in_place or _Times()
            run.ratios.append((_bandwidth(str(times.alg_bw)), _bandwidth(str(times.bus_bw))))
    return [run]


def _program(args: Sequence[str]) -> str:
    found = (_PROGRAM.search(arg) for arg in args)
    return next((match.group(1) for match in found if match), "")


def _json_time(path: Path, times: _Times | None, where: str) -> float | None:
    said = None if times is None else times.time if times.time is not None else times.cpu_time
    if said is None:
        return None
    try:
        seconds = float(said) * 1e-6
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        refuse(path, 0, f"{str(said)[:40]!r} is no time of a collective, in microseconds above 0", where)
    return seconds


# -- what it was


def _sweep(path: Path, run: _Run, kind: str, asked: int) -> Sweep:
    if run.program and run.program not in KINDS and not kind:
        known = ", ".join(KINDS)
        refuse(path, run.line, f"{run.program} times an exchange that is not modelled; take its rows out ({known} are)")
    found = kind or KINDS.get(run.program) or _guessed(run)
    if not found:
        what = f"does not name its collective; say it with --collective: {', '.join(sorted(set(KINDS.values())))}"
        refuse(path, run.line, what)
    ranks = len(run.ranks) or asked or _ranks(run, found)
    if ranks < 2:
        what = "does not tell how many ranks took part" if not run.ranks else f"has {ranks} rank"
        refuse(path, run.line, f"{what}; keep the lines '# Rank ... on HOST device ...', or give --ranks")
    hosts = tuple(Counter(run.ranks[rank] for rank in sorted(run.ranks)).values())
    return Sweep(
        file=path.name, line=run.line, kind=found, ranks=ranks, hosts=hosts, product=run.product, rows=tuple(run.rows)
    )


def _factor(run: _Run) -> float:
    """Bus over algorithm bandwidth, from the rows that print them with most digits."""
    best = max(run.ratios, default=(0.0, 0.0))
    return best[1] / best[0] if best[0] > 1.0 else 0.0


def _guessed(run: _Run) -> str:
    """The collective that alone has this factor and these columns; empty: there are several."""
    (redop, root), factor = run.words, _factor(run)
    if redop not in ("none", "") and factor > 1.02:
        return "all_reduce"
    if redop not in ("none", "") and 0.4 < factor < 0.98 and root < 0:
        return "reduce_scatter"
    return "broadcast" if redop == "none" and root >= 0 and abs(factor - 1) < 0.02 else ""


def _ranks(run: _Run, kind: str) -> int:
    """Ranks whose factor this is, if the printed digits leave but one; 0 otherwise."""
    algorithm, bus = max(run.ratios, default=(0.0, 0.0))
    if algorithm < 1.0 or kind not in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        return 0
    passes = 2.0 if kind == "all_reduce" else 1.0
    slack = 0.006 * (1 / algorithm + 1 / bus) * bus / algorithm
    fits = [n for n in range(2, 4097) if abs(passes * (n - 1) / n - bus / algorithm) <= slack]
    return fits[0] if len(fits) == 1 else 0
