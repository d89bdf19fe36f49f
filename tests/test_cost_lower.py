"""From workload to plan: times alone, shared links, and units that scale."""

from dataclasses import replace

import pytest

from scenarios import V100, data_parallel, on, spans_of
from sim.api import simulate


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_uncontended_spans_last_latency_plus_duration(zero):
    timeline = simulate(data_parallel(8, zero)).timeline
    slowed = {span for span, _, _ in timeline.contended}
    rows = [i for i in range(len(timeline.spans.op)) if i not in slowed]
    assert len(rows) > 50
    for i in rows:
        op = timeline.ops[timeline.spans.op[i]]
        assert timeline.spans.end[i] - timeline.spans.start[i] == pytest.approx(
            op.latency + op.duration, rel=1e-9, abs=1e-12
        )


def test_gpus_on_one_uplink_copy_at_half_rate_each():
    """Two GPUs, one uplink as fast as one GPU's own link: gradients take twice as long as on two uplinks."""

    def busy(per_uplink):
        link = replace(V100.cluster.host_link, gpus_per_uplink=per_uplink, uplink=V100.cluster.host_link.d2h)
        scenario = on(data_parallel(2, 2, base=V100, offload=True, grad_bucket=1e12), host_link=link, gpus_per_host=4)
        timeline = simulate(scenario).timeline
        copies = spans_of(timeline, kind="d2h")
        return sum(timeline.spans.end[i] - timeline.spans.start[i] for i in copies) - len(copies) * link.latency

    assert busy(2) == pytest.approx(2 * busy(1), rel=1e-6)


def test_ranks_share_the_cores_of_their_socket():
    """Twice the ranks on a socket, half the cores and half the parameters each: CPU Adam takes as long."""
    seconds = []
    for dp in (1, 8):
        timeline = simulate(data_parallel(dp, 1, base=V100, offload=True)).timeline
        seconds.append(sum(timeline.spans.end[i] - timeline.spans.start[i] for i in spans_of(timeline, kind="adam")))
    assert seconds[1] == pytest.approx(seconds[0], rel=1e-3)


def test_a_collective_takes_its_share_of_the_sms_from_a_kernel():
    timeline = simulate(data_parallel(8, grad_bucket=5e5)).timeline
    kinds = {timeline.resources[r].kind for _, r, _ in timeline.contended}
    assert kinds == {"sm"}


@pytest.mark.parametrize("k", [0.1, 7.0])
@pytest.mark.parametrize("scenario", [data_parallel(16, 2, nodes=2), data_parallel(4, 2, base=V100, offload=True)])
def test_all_rates_times_k_and_latencies_over_k(scenario, k):
    one, other = simulate(scenario).result, simulate(_faster(scenario, k)).result
    assert other.step_time == pytest.approx(one.step_time / k, rel=1e-9)
    assert other.mfu == pytest.approx(one.mfu, rel=1e-9)


def _faster(scenario, k):
    """Every rate of the machine times k, every latency, floor and launch over k."""
    rates = [
        "hbm_bandwidth",
        "vector_flops_per_s",
        "unaligned_flops_per_s",
        "dram_bandwidth",
        "socket_link",
        "h2d",
        "d2h",
        "duplex",
        "pageable",
        "uplink",
        "bandwidth",
        "peak",
        "p_inf",
        "read",
        "write",
    ]
    times = ("t0", "kernel_floor", "launch", "latency", "base_latency", "step_latency")

    def scale(spec):
        if isinstance(spec, dict):
            return {key: scale(value) for key, value in spec.items()}
        if isinstance(spec, tuple):
            return tuple(scale(value) for value in spec)
        if not hasattr(spec, "__dataclass_fields__"):
            return spec
        changed = {}
        for name in spec.__dataclass_fields__:
            value = getattr(spec, name)
            changed[name] = value * k if name in rates else value / k if name in times else scale(value)
        return replace(spec, **changed)

    return replace(scenario, cluster=scale(scenario.cluster))


def test_utilisation_is_a_share():
    for scenario in (data_parallel(8, 3), data_parallel(4, 2, base=V100, offload=True)):
        used = simulate(scenario).result.utilisation
        assert used
        assert all(0 < share <= 1 + 1e-9 for share in used.values()), used
