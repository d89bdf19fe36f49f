"""Small scenarios for tests of workload, cost and analysis: shipped ones, shrunk."""

import random
from dataclasses import replace

from sim.spec.load import load
from sim.spec.types import BatchSpec, CollectivesSpec, NicSpec, OffloadSpec

PAPER = [
    "stack.sharded_master=false",
    "stack.zero3_copies=none",
    "stack.recompute_stops=false",
    "stack.vectorised=false",
]
"""ZeRO and recompute as papers count them, whatever the scenario's stack does beside."""
TINY = [
    "model.layers=3", "model.hidden=256", "model.heads=4", "model.kv_heads=4", "model.ffn=1024", "model.vocab=2048",
    *PAPER,
]  # fmt: skip
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


def rings(scenario):
    """Every collective by rings with NCCL's Simple protocol, for which there are closed forms."""
    return on(scenario, collectives=CollectivesSpec(all_reduce="ring", protocol="simple"))


def one_nic(scenario):
    """One network adapter for a whole node."""
    return on(scenario, nics=NicSpec(count=1, bandwidth=12.5e9, efficiency=1.0, step_latency=14e-6))


def spans_of(timeline, **where):
    """Indexes of spans whose op has the given attributes."""
    rows = [i for i, op in enumerate(timeline.ops) if all(getattr(op, k) == v for k, v in where.items())]
    return [i for i, o in enumerate(timeline.spans.op.tolist()) if o in set(rows)]


def random_system(seed):
    """A small cluster and a small job on it, drawn from ``seed``: DP, ZeRO 0-3 or ZeRO-Offload on 1-32 ranks."""
    draw = random.Random(seed)
    nodes, gpus = draw.choice(((1, 1), (1, 2), (1, 4), (1, 6), (1, 8), (2, 1), (2, 2), (2, 4), (3, 2), (4, 2), (4, 8)))
    offload = draw.random() < 0.4
    zero = draw.choice((1, 2)) if offload else draw.choice((0, 1, 2, 3))
    base = draw.choice((A100, V100))
    per_uplink = draw.choice([n for n in (1, 2, 3, 4, 8) if gpus % n == 0])
    sockets = draw.choice([n for n in (1, 2) if (gpus // per_uplink) % n == 0])
    spec = replace(
        base.cluster,
        nodes=nodes,
        gpus_per_host=gpus,
        host=replace(base.cluster.host, sockets=sockets, launch=draw.choice((1e-7, 6e-6)), dram_bandwidth=2e10),
        host_link=replace(
            base.cluster.host_link, gpus_per_uplink=per_uplink, uplink=draw.choice((5e9, 12.8e9, 60e9)),
            duplex=draw.choice((14e9, 23e9)), h2d=12e9, d2h=12.8e9, pageable=6e9,
        ),
        nvlink=draw.choice((None, base.cluster.nvlink)),
        nics=NicSpec(count=draw.choice((1, gpus, max(gpus // 2, 1))), bandwidth=12.5e9, efficiency=0.9,
                     step_latency=5e-6),
        sm_share=draw.choice((0.0, 0.1)),
    )  # fmt: skip
    dp = nodes * gpus if nodes > 1 else draw.randint(1, gpus)
    model = replace(
        base.model, layers=draw.randint(1, 4 if dp <= 8 else 2), hidden=128, heads=2, kv_heads=2, ffn=512, vocab=512
    )
    micro, accumulation = draw.randint(1, 3), draw.choice((1, 1, 2, 3))
    return replace(
        base,
        model=model,
        cluster=spec,
        layout=replace(
            base.layout, dp=dp, zero=zero, grad_bucket=draw.choice((1e5, 5e5, 1e9)),
            gather_bucket=draw.choice((1e5, 1e9)), overlap_grad_reduce=draw.random() < 0.8,
            prefetch=draw.randint(0, 3), reshard_after_forward=draw.random() < 0.7,
        ),
        batch=BatchSpec(size=micro * accumulation * dp, micro=micro, accumulation=accumulation, sequence=64),
        recompute=draw.choice(("none", "full")),
        offload=OffloadSpec(optimizer="cpu", gradients="cpu", pinned=draw.random() < 0.8) if offload else OffloadSpec(),
        stack=replace(base.stack, copy_back=draw.choice(("after", "tiled")), fused_softmax=True,
                      fused_bias_activation=True, fused_bias_dropout_add=True, fused_norm=True),
    )  # fmt: skip


def spans_by_rank(timeline):
    """Representative rank -> (op name, stream, layer, phase, action) -> sorted (start, end) of its spans."""
    found = {}
    spans = timeline.spans
    for i, o in enumerate(spans.op.tolist()):
        op = timeline.ops[o]
        rank = timeline.rank_classes[op.rank_class].representative
        key = (op.name, op.stream, op.layer, op.phase, int(spans.action[i]))
        found.setdefault(rank, {}).setdefault(key, []).append((float(spans.start[i]), float(spans.end[i])))
    return {rank: {key: sorted(times) for key, times in of.items()} for rank, of in found.items()}
