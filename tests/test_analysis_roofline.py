"""Kernels under the roofs: what was put in comes out, and no kernel of a real step is above them."""

import pytest

from sim.analysis.roofline import bandwidth, kernel_points
from sim.api import run
from sim.timeline.columns import OpRow, RankClassRow, ResourceRow
from tests import report_fixture as made

RESOURCES = (
    ResourceRow(name="n0.gpu0.sm", kind="sm", capacity=1.0, unit="s", members=1),
    ResourceRow(name="n0.gpu0.hbm", kind="hbm", capacity=2e12, unit="B", members=1),
    ResourceRow(name="n0.gpu0.nvlink", kind="nvlink", capacity=3e11, unit="B", members=1),
)


def _op(name, flops, size, seconds, demands=((0, 1.0), (1, 1e9)), **more):
    fields = {
        "kind": "gemm", "category": "forward", "phase": "F", "rank_class": 0, "stream": 0, "layer": 0, "latency": 0.0,
        "bound_by": 0, "memory": (), **more,
    }  # fmt: skip
    return OpRow(name=name, flops=flops, size=size, duration=seconds, demands=demands, **fields)


def _timeline(ops, times):
    """Each op so many times, one after another."""
    spans = [(number, 0, float(i), float(i + 1)) for i, number in enumerate(n for n, t in times for _ in range(t))]
    drawn = made.timeline(spans, ops)
    fields = {name: getattr(drawn, name) for name in drawn.__dataclass_fields__}
    row = RankClassRow(name="rank 0", members=1, representative=0, device="n0.gpu0", resident_gpu=(), resident_host=())
    return type(drawn)(**{**fields, "resources": RESOURCES, "rank_classes": (row,)})


def test_points_are_runs_of_like_kernels_with_their_shares():
    ops = (
        _op("mlp.up", 4e12, 2e9, 0.02),
        _op("norm", 0.0, 1e9, 0.01, kind="elementwise"),
        _op("mlp.up", 4e12, 2e9, 0.02, layer=1),
        _op("reduce", 0.0, 5e9, 9.0, kind="all_reduce", group_size=8, demands=((0, 1.0), (1, 1.0), (2, 5e9))),
        _op("copy", 0.0, 5e9, 9.0, kind="d2h", demands=((1, 5e9),)),
        _op("other rank", 1e12, 1e9, 9.0, rank_class=1),
    )
    points = kernel_points(_timeline(ops, [(0, 2), (1, 1), (2, 1), (3, 1), (4, 1)]))
    assert [(point.name, point.runs) for point in points] == [("mlp.up", 3), ("norm", 1)]
    assert [point.share for point in points] == pytest.approx([6 / 7, 1 / 7])
    assert (points[0].intensity, points[0].flops_per_s) == (2000.0, 2e14)
    assert points[1].bytes_per_s == 1e11


def test_the_bandwidth_is_that_of_the_memory_the_kernels_use():
    assert bandwidth(_timeline((_op("mlp.up", 4e12, 2e9, 0.02),), [(0, 1)])) == 2e12


@pytest.mark.parametrize("scenario", ["quickstart", "zero-offload-10b-v100"])
def test_no_kernel_is_above_the_roofs(scenario):
    step = run(scenario)
    found = step.roofline()
    peak = max(found.peaks.values())
    assert found.kernels
    for point in found.kernels:
        assert point.bytes_per_s <= found.bandwidth
        assert point.flops_per_s <= min(peak, point.intensity * found.bandwidth) * (1 + 1e-9)
    assert sum(point.share for point in found.kernels) == pytest.approx(1.0)
    flops = sum(point.flops * point.runs for point in found.kernels)
    counted = step.result.hfu * peak * step.result.step_time  # attention as if nothing were masked
    assert 0.8 * counted < flops <= counted * (1 + 1e-9)
