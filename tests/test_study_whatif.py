"""What if: a faster part is faster where it says and nowhere else; gains are those that the critical path foretells."""

from dataclasses import replace

import numpy as np
import pytest

from scenarios import A100, TINY, data_parallel
from sim.api import run, scenario_of, simulate, step_time
from sim.cluster.build import build
from sim.cost.kernels import kernel_cost
from sim.spec.faster import PARTS, faster
from sim.study import short
from sim.study.short import Way, time_of, way_for
from sim.study.whatif import AXES, FACTORS, used, what_if
from sim.workload.ops import Kernel

OFFLOAD = run("zero-offload-10b-v100", ["model.layers=4"])
MACHINES = {
    "drives and sockets": scenario_of("zero-offload-10b-v100"),
    "leaves": scenario_of("llama3-8b-8xh100-zero3", [
        "cluster=dgx-h100-x64", "cluster.nodes=8", "cluster.fabric={nodes_per_leaf: 2, oversubscription: 2}",
    ]),
    "unlike nodes": scenario_of("quickstart", [
        "cluster={extends: dgx-a100, nodes: 2, others: [{node: dgx-h100, count: 2}]}", "layout.placement=[0]",
    ]),
}  # fmt: skip


def test_the_two_tables_name_the_same_things():
    assert set(AXES) == {*PARTS, "latency"}
    kinds = [kind for axis in AXES.values() for kind in axis.kinds]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("part", [part for part in PARTS if part not in ("sm", "launch")])
def test_a_faster_part_has_more_capacity_and_nothing_else_has(machine, part):
    scenario = MACHINES[machine]
    before, after = build(scenario.cluster), build(faster(scenario, part, 3.0).cluster)
    for node in range(len(before.kind_of)):
        numbers = before.at(node, 0) + np.arange(len(before.node(node).resources))
        kinds = [resource.kind for resource in before.node(node).resources]
        ratio = after.capacities(numbers) / before.capacities(numbers)
        held = {"cores", "nvme.busy"}  # time, not bytes: their work is what takes less of it
        expected = [3.0 if kind in AXES[part].kinds and kind not in held else 1.0 for kind in kinds]
        assert ratio == pytest.approx(expected), part


def test_faster_arithmetic_leaves_a_kernel_its_start_and_its_bytes():
    device = A100.cluster.device
    faster_device = faster(A100, "sm", 1e9).cluster.device
    gemm = Kernel(name="g", kind="gemm", flops=2 * 4096**3, bytes_read=4 * 4096**2, bytes_written=2 * 4096**2, m=4096,
                  n=4096, k=4096, dtype="bf16")  # fmt: skip
    fit = device.gemm["bf16"]
    cost = kernel_cost(gemm, faster_device, "flash2", 1.0)
    assert cost.duration == pytest.approx(fit.t0 + 6 * 4096**2 / (device.hbm_bandwidth * fit.eb))
    assert cost.bound_by == "hbm"


FIRST_ORDER = [
    (OFFLOAD, "cpu", 0.01),
    (OFFLOAD, "host_link", 0.05),
    (OFFLOAD, "hbm", 0.05),  # a kernel's fixed start is counted to what binds it, and gets no faster
    (OFFLOAD, "sm", 0.05),
    (run("quickstart", [*TINY, "batch.micro=1"]), "launch", 0.01),
    (run("lecture-64-dp", ["batch.size=null", "batch.accumulation=2", "model.layers=12"]), "latency", 0.02),
]


@pytest.mark.parametrize(("step", "part", "tolerance"), FIRST_ORDER, ids=[part for _, part, _ in FIRST_ORDER])
def test_one_percent_faster_gains_its_share_of_the_path(step, part, tolerance):
    """``T' = T - share T (1 - 1/1.01)``, as long as the path stays where it is."""
    share = sum(step.result.bound_by.get(kind, 0.0) for kind in AXES[part].kinds)
    gain = 1.0 - step_time(step.scenario, part, 1.01) / step.result.step_time
    assert share > 1e-4, "there is something to gain"
    assert gain == pytest.approx(share * (1.0 - 1.0 / 1.01), rel=tolerance)


def test_a_part_in_use_but_off_the_path_gains_nothing():
    step = run("lecture-64-dp", ["batch.size=null", "batch.accumulation=2", "model.layers=12"])
    assert "nvlink" in used(step)
    assert not set(AXES["nvlink"].kinds) & set(step.result.bound_by)
    (row,) = what_if(step, axes=["nvlink"])
    assert row.gains == pytest.approx((0.0, 0.0, 0.0), abs=1e-9 * step.result.step_time)


def test_rows_are_what_is_simulated_sorted_by_gain():
    step = simulate(data_parallel(4, 1, accumulation=2))
    told = []
    rows = what_if(step, lambda done, of, what: told.append((done, of, what)), jobs=1)
    assert {row.resource for row in rows} == set(used(step)) == {"sm", "hbm", "nvlink", "launch", "latency"}
    for row in rows:
        again = [step_time(step.scenario, row.resource, by) for by in FACTORS]
        assert row.step_times == pytest.approx(again, rel=1e-12)
        assert row.base == step.result.step_time
    assert [row.gains[2] for row in rows] == sorted((row.gains[2] for row in rows), reverse=True)
    assert told[0][:2] == (1, 5)
    assert told[0][2].endswith("never binding")


def test_processes_find_what_one_process_finds():
    step = run("lecture-64-pp", ["batch.size=null", "batch.accumulation=8", "model.layers=8"])
    assert len(step.timeline.spans.op) > 2000, "enough to be worth processes"
    assert what_if(step, jobs=1, axes=["sm", "latency"]) == what_if(step, jobs=2, axes=["sm", "latency"])


# -- long steps, asked the short way


PIPE = ["batch.size=null", "batch.accumulation=24", "model.layers=8"]


def test_a_full_pipeline_is_a_straight_line_in_its_microbatches(monkeypatch):
    step = run("lecture-64-pp", PIPE)
    monkeypatch.setattr(short, "MANY", 1000)
    monkeypatch.setattr(short, "cut_of", lambda scenario: (9, 10))
    way, base = way_for(step)
    assert way == Way(merged=True, at=(9, 10))
    assert base == pytest.approx(step.result.step_time, rel=1e-9)
    assert time_of(step.scenario, way, "sm", 2.0) == pytest.approx(step_time(step.scenario, "sm", 2.0), rel=1e-6)


def test_a_short_way_that_is_wrong_is_not_taken(monkeypatch):
    step = run("lecture-64-pp", PIPE)
    monkeypatch.setattr(short, "MANY", 1000)
    monkeypatch.setattr(short, "cut_of", lambda scenario: (1, 2))  # the pipeline is not full yet
    assert way_for(step) == (short.WHOLE, step.result.step_time)


def test_microbatches_are_left_out_only_where_that_saves_enough():
    scenario = scenario_of("lecture-4096")
    few = replace(scenario, batch=replace(scenario.batch, accumulation=192))
    a, b = short.cut_of(scenario)
    assert scenario.layout.pp < a < b
    assert a + b < 0.6 * scenario.batch.accumulation == 0.6 * 256
    assert short.cut_of(few) == ()
    assert short.cut_of(scenario_of("own-order")) == (), "an order from a file is for so many microbatches"
    assert short.cut_of(scenario_of("llama3-405b-16k")) == ()
