"""The figures that README.md gives of collectives against published sweeps, and that every row left out says why."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import collectives
import collectives_fit

SOME = [system for system in collectives.systems() if system.nodes <= 64]  # the larger ones are the same curve
OFF = {system.name: collectives.errors(system, collectives.spec_of(system)) for system in SOME}


def of(system, *, large):
    return np.abs(OFF[system.name][[(size >= collectives.LARGE) == large for size, _ in system.rows]])


def test_sweeps_from_one_mebibyte_are_within_eight_per_cent_and_none_above_twelve():
    assert np.concatenate([of(system, large=True) for system in SOME]).mean() < 0.08
    assert {system.name: of(system, large=True).mean() for system in SOME if of(system, large=True).mean() > 0.12} == {}


def test_sweeps_below_one_mebibyte_are_within_twenty_per_cent():
    small = {system.name: of(system, large=False) for system in SOME}
    assert {name: off.mean() for name, off in small.items() if len(off) and off.mean() > 0.20} == {}


def test_single_rates_of_gathers_and_exchanges_behind_switches_are_within_eight_per_cent_on_average():
    peaks = [peak for peak in collectives.peaks() if peak.kind != "all_reduce" and peak.cluster != "a100-pcie-x8"]
    assert {peak.kind for peak in peaks} == {"all_gather", "reduce_scatter", "all_to_all"}
    assert np.mean([abs(collectives.errors(peak, collectives.spec_of(peak))[0]) for peak in peaks]) < 0.08


def test_what_is_left_out_says_why():
    assert all(len(entry["why"]) > 10 for entry in collectives.document()["left_out"])


def test_a_fit_finds_what_a_system_was_made_with(capsys):
    """Rows simulated with a shorter hop of trees than shipped: the fit comes back to it."""
    system = next(s for s in SOME if s.name == "2 x 8 H100, p5")
    spec = collectives.spec_of(system)
    trial = collectives_fit.Trial(system, spec)
    true = {("nics", "tree_latency"): 60e-6}
    seconds = np.exp(trial.log_errors(true)) * [s for _, s in system.rows]
    rows = [(size, float(s)) for (size, _), s in zip(system.rows, seconds, strict=True)]
    collectives_fit.fit([collectives.System(**{**vars(system), "rows": rows})], [spec])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "nics." in line]
    fitted = {name: float(value) for name, _, value in lines}
    assert trial.log_errors({("nics", "tree_latency"): 85e-6}) == pytest.approx(trial.log_errors({}))
    assert fitted["nics.tree_latency"] == pytest.approx(60e-6, rel=0.1)
    assert fitted["nics.fill"] == pytest.approx(spec.nics.fill, rel=0.1)
