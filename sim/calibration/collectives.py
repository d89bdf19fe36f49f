"""A cluster's collectives fitted to nccl-tests: link efficiencies and latencies, the few parameters of the cost model.

Owns which parameters the logs may decide: those of NVLink (or of PCIe where there is none) by runs inside one node,
those of the adapters by runs on several; and the file that overrides them. Every prediction is
``api.exchange_seconds``: what a simulation of that exchange alone takes. Must not know a log's format, nor an
algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim.api import exchange_seconds
from sim.calibration.least_squares import Fit, Floats, Parameter, cross_validated, fit, folds
from sim.calibration.override import based_on, percent
from sim.errors import Problem, ScenarioError
from sim.importing.nccl_tests import Sweep
from sim.spec.types import ClusterSpec

LARGE = 2**20
"""Sizes (bytes) from which bandwidth matters as well as latency."""
_SMALL_WEIGHT = 0.16
"""Weight of smaller ones: they are half of most logs, and seldom half of a training step."""

_FRACTION, _LATENCY = 0.2, 0.7
"""Width of a prior: shares of a rate are known within a fifth or so, latencies within a factor of two."""

_FILL = 10e-6
"""Where the cost of a chunk between nodes starts (s) if the cluster gives none: as fitted on AWS p5."""

_INSIDE = (
    ("nvlink", "efficiency"), ("nvlink", "base_latency"), ("nvlink", "step_latency"), ("nvlink", "in_switch"),
    ("nvlink", "in_switch_latency"), ("nvlink", "in_switch_fill"), ("nvlink", "all_to_all"),
)  # fmt: skip
_WITHOUT_NVLINK = (("host_link", "duplex"), ("host_link", "latency"), ("host", "socket_link"))
_ACROSS = (
    ("nics", "efficiency"), ("nics", "step_latency"), ("nics", "tree_latency"), ("nics", "fill"),
    ("nics", "all_to_all"),
)  # fmt: skip
_EXCHANGED = "all_to_all"
"""What an all-to-all keeps of the sustained rate: decided by all-to-alls alone."""
_RATES = ("duplex", "socket_link")
_SHARES = ("efficiency", "in_switch", _EXCHANGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One timed size: seconds measured, by the cluster's file, by the fit, and by a fit that never saw it."""

    file: str
    kind: str
    nodes: int
    ranks: int
    size: float
    measured: float
    before: float
    after: float
    unseen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Rows, parameters by name (before, after, standard error as a share), those that the logs do not decide."""

    cluster: str
    rows: tuple[Row, ...]
    parameters: Mapping[str, tuple[float, float, float]]
    held: tuple[str, ...]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Setting:
    """A sweep on its part of the cluster: one time a size."""

    sweep: Sweep
    members: tuple[tuple[int, int], ...]
    sizes: tuple[float, ...]
    measured: tuple[float, ...]


def calibrate(sweeps: Sequence[Sweep], cluster: str, spec: ClusterSpec, out: Path, *, in_place: bool) -> Calibration:
    """Fit what the sweeps decide of ``spec``, which is called ``cluster``; ``out`` is where the override will be.

    Raises:
        ScenarioError: a sweep does not fit the cluster, or has no times of the column asked for.
    """
    settings = [_setting(sweep, spec, in_place=in_place) for sweep in sweeps]
    spec = _with_nodes(spec, settings)
    parameters = _parameters(spec, settings)
    asked = [(s.sweep.kind, s.sizes, s.members) for s in settings]
    measured = np.array([seconds for s in settings for seconds in s.measured])
    sizes = np.array([size for s in settings for size in s.sizes])
    weights = np.where(sizes >= LARGE, 1.0, _SMALL_WEIGHT)

    def model(values: Mapping[str, float]) -> Floats:
        return np.concatenate(exchange_seconds(changed(spec, values), asked))

    found = fit(parameters, model, measured, weights)
    decided = [p for p in parameters if p.name not in found.held]
    before = model({})
    unseen = cross_validated(found, parameters, model, (measured, weights, folds(len(measured))))
    rows = _rows(settings, before, (found.errors + 1) * measured, (unseen + 1) * measured)
    return Calibration(
        cluster=cluster,
        rows=rows,
        parameters={p.name: (p.shipped, found.values[p.name], found.spread[p.name]) for p in decided},
        held=found.held,
        document=_document(cluster, out, rows, found, decided),
    )


def error(rows: Sequence[Row], which: str, *, large: bool) -> float | None:
    """Mean absolute error, as a share, of ``before``, ``after`` or ``unseen`` over sizes from 1 MiB on, or below."""
    chosen = [row for row in rows if (row.size >= LARGE) == large]
    shares = [abs(getattr(row, which) / row.measured - 1.0) for row in chosen]
    return float(np.mean(shares)) if shares else None


def _setting(sweep: Sweep, spec: ClusterSpec, *, in_place: bool) -> _Setting:
    nodes, per = _placed(sweep, spec)
    timed = [(row.size, row.in_place if in_place else row.out_of_place) for row in sweep.rows]
    timed = [(size, seconds) for size, seconds in timed if seconds is not None]
    if not timed:
        column = "in-place" if in_place else "out-of-place"
        _refuse(sweep, f"has no {column} times; {'leave out' if in_place else 'give'} --in-place")
    members = tuple((node, gpu) for node in range(nodes) for gpu in range(per))
    sizes, seconds = zip(*timed, strict=True)
    return _Setting(sweep, members, sizes, tuple(float(s) for s in seconds if s is not None))


def _placed(sweep: Sweep, spec: ClusterSpec) -> tuple[int, int]:
    """Nodes that the ranks sit on, and how many on each: as the log says, else packed."""
    gpus = spec.gpus_per_host
    if len(set(sweep.hosts)) > 1:
        _refuse(sweep, f"ranks are spread unevenly over hosts ({', '.join(map(str, sweep.hosts))}); use an even run")
    nodes, per = (len(sweep.hosts), sweep.hosts[0]) if sweep.hosts else (-(-sweep.ranks // gpus), gpus)
    per = min(per, sweep.ranks)
    if per > gpus or nodes * per != sweep.ranks:
        what = f'{sweep.ranks} ranks, {per} on a host, do not fill nodes of {gpus} GPUs as cluster "{spec.name}" has'
        _refuse(sweep, f"{what}; name another with --cluster")
    if nodes > 1 and spec.nics is None:
        _refuse(sweep, f'ran on {nodes} nodes, but cluster "{spec.name}" has no network (nics); name another')
    if nodes > spec.nodes and spec.others:
        _refuse(sweep, f'ran on {nodes} nodes, but cluster "{spec.name}" has {spec.nodes} of its first type')
    return nodes, per


def _refuse(sweep: Sweep, what: str) -> None:
    raise ScenarioError([Problem(sweep.file, sweep.line, int(sweep.line > 0), "", what)])


def _with_nodes(spec: ClusterSpec, settings: Sequence[_Setting]) -> ClusterSpec:
    """The cluster with as many nodes as the largest run had."""
    nodes = 1 + max(node for s in settings for node, _ in s.members)
    return spec if nodes <= spec.nodes else replace(spec, nodes=nodes)


def _parameters(spec: ClusterSpec, settings: Sequence[_Setting]) -> list[Parameter]:
    across = [len({node for node, _ in s.members}) > 1 for s in settings]
    inside = _INSIDE if spec.nvlink is not None else _WITHOUT_NVLINK
    names = [*(inside if not all(across) else ()), *(_ACROSS if any(across) else ())]
    found = []
    exchanged = any(s.sweep.kind == _EXCHANGED for s in settings)
    for part, key in names if exchanged else [name for name in names if name[1] != _EXCHANGED]:
        start = getattr(getattr(spec, part), key)
        if key == "tree_latency" and not start and spec.nics is not None:
            start = spec.nics.step_latency  # 0 stands for that
        rest = start if key == "fill" and not start else None  # 0: nobody has fitted it yet
        start = start or (_FILL if key == "fill" else 0.0)
        both = spec.host_link.h2d + spec.host_link.d2h
        most = {"efficiency": 1.0, "in_switch": 0.999, _EXCHANGED: 1.0, "duplex": both}.get(key)
        width = _FRACTION if key in (*_SHARES, *_RATES) else _LATENCY
        if start:
            ends = {"least": start * 1e-3, "most": most or start * 1e3}
            found.append(Parameter(name=f"{part}.{key}", start=start, width=width, rest=rest, **ends))
    return found


def changed(spec: ClusterSpec, values: Mapping[str, float]) -> ClusterSpec:
    """The cluster with other values of ``part.key``."""
    for name, value in values.items():
        part, _, key = name.partition(".")
        spec = replace(spec, **{part: replace(getattr(spec, part), **{key: value})})
    return spec


def _rows(settings: Sequence[_Setting], before: Floats, after: Floats, unseen: Floats) -> tuple[Row, ...]:
    timed = [(s, size, seconds) for s in settings for size, seconds in zip(s.sizes, s.measured, strict=True)]
    return tuple(
        Row(
            file=s.sweep.file, kind=s.sweep.kind, nodes=len({node for node, _ in s.members}), ranks=len(s.members),
            size=size, measured=seconds, before=b, after=a, unseen=u,
        )
        for (s, size, seconds), b, a, u in zip(
            timed, before.tolist(), after.tolist(), unseen.tolist(), strict=True
        )
    )  # fmt: skip


def _document(cluster: str, out: Path, rows: Sequence[Row], found: Fit, decided: Sequence[Parameter]) -> dict[str, Any]:
    """The override: the cluster it extends, and the decided parameters with their sources."""
    files = ", ".join(dict.fromkeys(row.file for row in rows))
    runs = ", ".join(dict.fromkeys(f"{row.kind} on {row.ranks} GPUs of {row.nodes} node(s)" for row in rows))
    large = any(row.size >= LARGE for row in rows)
    mean = [percent(error(rows, which, large=large)) for which in ("after", "unseen")]
    document: dict[str, Any] = {
        "extends": based_on(cluster, out),
        "name": out.stem,
        "description": f"{Path(cluster).stem} with collectives calibrated on {files}",
    }
    for p in decided:
        part, _, key = p.name.partition(".")
        block = document.setdefault(part, {"sources": {}})
        block[key] = written(key, found.values[p.name])
        said = f"fit of {files} ({runs}): standard error {percent(found.spread[p.name])}, was {written(key, p.shipped)}"
        block["sources"][key] = f"{said}; mean error of times {mean[0]}, cross-validated {mean[1]}"
    return document


def written(key: str, value: float) -> str | float:
    """A value as a file has it."""
    if key in _SHARES:
        return round(value, 4)
    return f"{value / 1e9:.4g} GB/s" if key in _RATES else f"{value * 1e6:.4g} us"
