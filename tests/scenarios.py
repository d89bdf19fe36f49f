"""Small scenarios for tests of workload, cost and analysis: shipped ones, shrunk."""

from dataclasses import replace

from sim.spec.load import load
from sim.spec.types import BatchSpec, NicSpec, OffloadSpec

TINY = ["model.layers=3", "model.hidden=256", "model.heads=4", "model.kv_heads=4", "model.ffn=1024", "model.vocab=2048"]
A100 = load("quickstart", TINY).scenario
V100 = load("zero-offload-10b-v100", TINY).scenario


def data_parallel(dp, zero=0, *, base=A100, accumulation=1, nodes=1, offload=False, **layout):
    """``base`` on dp ranks; buckets of 1 MB unless said otherwise."""
    micro = 2
    batch = BatchSpec(size=micro * accumulation * dp, micro=micro, accumulation=accumulation, sequence=128)
    spread = {"grad_bucket": 1e6, "gather_bucket": 1e6, **layout}
    return replace(
        base,
        cluster=replace(base.cluster, nodes=nodes),
        layout=replace(base.layout, dp=dp, zero=zero, **spread),
        batch=batch,
        offload=OffloadSpec(optimizer="cpu", gradients="cpu") if offload else OffloadSpec(),
    )


def on(scenario, **cluster):
    """The scenario with parts of its cluster replaced."""
    return replace(scenario, cluster=replace(scenario.cluster, **cluster))


def one_nic(scenario):
    """One network adapter for a whole node."""
    return on(scenario, nics=NicSpec(count=1, bandwidth=12.5e9, efficiency=1.0, step_latency=14e-6))


def spans_of(timeline, **where):
    """Indexes of spans whose op has the given attributes."""
    rows = [i for i, op in enumerate(timeline.ops) if all(getattr(op, k) == v for k, v in where.items())]
    return [i for i, o in enumerate(timeline.spans.op.tolist()) if o in set(rows)]
