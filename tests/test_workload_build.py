"""What must happen: bytes and order of DP, ZeRO and ZeRO-Offload, against closed forms."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from scenarios import A100, V100, data_parallel, on, spans_of
from sim.analysis.transfers import sent_bytes
from sim.api import simulate
from sim.workload.block import BlockBuilder
from sim.workload.build import build
from sim.workload.model import embedding_params, head_params, layer_params, params
from sim.workload.ops import Collective, Kernel
from sim.workload.peak import peak

P = params(A100.model)
ROOT = embedding_params(A100.model) + head_params(A100.model)


def sent(scenario):
    """Bytes one rank sends, by category, from the spans of a simulated step."""
    timeline = simulate(scenario).timeline
    total = Counter()
    for o in timeline.spans.op.tolist():
        total[timeline.ops[o].category] += sent_bytes(timeline.ops[o])
    return total


def resident(scenario):
    return dict(build(scenario).programs[0].resident_gpu)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_state_bytes_by_stage(zero):
    """ZeRO paper, section 3: 2 + 2 + 12 bytes a parameter, of which stage 1, 2, 3 divide 12, 2, 2 by the ranks."""
    n = 8
    held = resident(data_parallel(n, zero))
    grads = held.get("gradients", held.get("gradients.shard"))
    assert held["optimizer states"] == pytest.approx(12 * P / (n if zero >= 1 else 1), rel=1e-5)
    assert grads == pytest.approx(2 * P / (n if zero >= 2 else 1), rel=1e-5)
    assert held["parameters"] == pytest.approx(2 * P / (n if zero >= 3 else 1), rel=1e-5)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_bytes_of_data_parallelism(zero, accumulation):
    """All-reduce 2P(n-1)/n of 2-byte gradients, once a step; with ZeRO the same as reduce-scatter + all-gather.

    From ZeRO 2 on every microbatch is reduced: no rank keeps whole gradients.
    """
    n = 8
    found = sent(data_parallel(n, zero, accumulation=accumulation))
    one_way = 2 * P * (n - 1) / n
    reductions = (2 if zero == 0 else 1) * (accumulation if zero == 2 else 1)
    norm = 2 * 4 * (n - 1) / n if zero else 0.0  # one fp32 sum of squares over the shards
    assert found["dp"] == pytest.approx(one_way * reductions + norm, rel=1e-9)
    assert found["param_gather"] == pytest.approx(one_way if zero else 0.0, rel=1e-9)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_bytes_of_zero_three(accumulation):
    """Layers are gathered twice a microbatch, embedding and head (FSDP's root) once; every microbatch is reduced."""
    n = 4
    found = sent(data_parallel(n, 3, accumulation=accumulation))
    part = 2 * (n - 1) / n * accumulation
    assert found["dp"] == pytest.approx(part * P + 2 * 4 * (n - 1) / n, rel=1e-9)
    assert found["param_gather"] == pytest.approx(part * (2 * (P - ROOT) + ROOT), rel=1e-6)


def test_zero_three_without_resharding_gathers_once():
    found = sent(data_parallel(4, 3, reshard_after_forward=False))
    assert found["param_gather"] == pytest.approx(2 * 3 / 4 * P, rel=1e-6)


@pytest.mark.parametrize("dp", [1, 2])
def test_zero_offload_moves_four_bytes_a_parameter_and_twenty_eight_of_dram(dp):
    """ZeRO-Offload paper, section 3: 2M down and 2M up over the link, /n; CPU Adam 28 bytes of DRAM a parameter."""
    scenario = data_parallel(dp, 2, base=V100, offload=True)
    total = params(scenario.model)
    step = simulate(scenario)
    found = sent(scenario)
    assert found["d2h"] == pytest.approx(2 * total / dp, rel=1e-5)
    assert found["h2d"] == pytest.approx(2 * total / dp, rel=1e-5)
    ops = step.timeline.ops
    dram = {kind: sum(op.size for op in ops if op.kind == kind) for kind in ("adam", "stream")}
    assert dram["adam"] == pytest.approx(28 * total / dp, rel=1e-5)
    assert dram["stream"] == pytest.approx(8 * total / dp, rel=1e-5), "unscale and clip: fp32 gradients, in and out"
    host = dict(build(scenario).programs[0].resident_host)
    assert sum(host.values()) == pytest.approx((14 + 2) * total / dp, rel=1e-5)


def test_cpu_adam_waits_for_every_gradient_and_the_norm():
    timeline = simulate(data_parallel(1, 2, base=V100, offload=True, grad_bucket=2e5)).timeline
    spans = timeline.spans
    copies, adam = spans_of(timeline, kind="d2h"), spans_of(timeline, kind="adam")
    (norm,) = spans_of(timeline, name="read norm")
    assert len(copies) > 3
    assert spans.start[adam].min() >= max(spans.end[copies].max(), spans.end[norm])
    back = spans_of(timeline, kind="h2d")
    assert spans.start[back].min() >= spans.end[adam].max(), "copy_back: after"


def test_tiled_copy_back_overlaps_the_update():
    base = replace(V100, stack=replace(V100.stack, copy_back="tiled"), model=replace(V100.model, layers=400))
    timeline = simulate(data_parallel(1, 2, base=base, offload=True)).timeline
    adam, back = spans_of(timeline, kind="adam"), spans_of(timeline, kind="h2d")
    assert len(adam) == len(back) > 1
    assert timeline.spans.start[back].min() < timeline.spans.end[adam].max()


def test_buckets_follow_backward_and_overlap_it():
    timeline = simulate(data_parallel(8, grad_bucket=5e5)).timeline
    spans = timeline.spans
    reduces = spans_of(timeline, kind="all_reduce", category="dp")
    backward = spans_of(timeline, category="backward")
    assert spans.start[reduces].min() < spans.end[backward].max(), "the first bucket goes while backward runs"
    sizes = [timeline.ops[spans.op[i]].size for i in reduces]
    assert sum(sizes) == pytest.approx(2 * P)
    assert all(size >= 5e5 for size in sizes[:-1]), "a bucket is sent when it is full"


@pytest.mark.parametrize("ahead", [False, True])
def test_without_overlap_nothing_is_reduced_before_backward_ends(ahead):
    scenario = data_parallel(8, grad_bucket=5e5, overlap_grad_reduce=False)
    timeline = simulate(host_far_ahead(scenario) if ahead else scenario).timeline
    reduces = spans_of(timeline, kind="all_reduce", category="dp")
    backward = spans_of(timeline, category="backward")
    assert len(reduces) > 1
    assert timeline.spans.start[reduces].min() >= timeline.spans.end[backward].max()


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_no_more_than_prefetch_plus_one_layers_are_gathered(prefetch):
    base = replace(A100, model=replace(A100.model, layers=8))
    step = simulate(data_parallel(4, 3, base=base, prefetch=prefetch))
    model = base.model
    layer = 2 * (params(model) - embedding_params(model) - head_params(model)) / model.layers
    root = 2 * (embedding_params(model) + head_params(model))
    gathered = step.result.memory[0].by_owner["parameters.gathered"]
    assert gathered.max() <= root + (prefetch + 1) * layer + 1
    assert gathered.max() >= (prefetch + 1) * layer


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_memory_returns_to_where_it_began(zero, recompute, accumulation):
    scenario = replace(data_parallel(4, zero, accumulation=accumulation), recompute=recompute)
    step = simulate(scenario)
    before = resident(scenario)
    for owner, values in step.result.memory[0].by_owner.items():
        assert values.min() >= -1.0, owner
        assert values[-1] == pytest.approx(before.get(owner, 0.0), abs=1.0), owner


def test_recompute_runs_the_layers_forward_once_more_and_keeps_their_inputs():
    plain, again = (replace(data_parallel(1), recompute=r) for r in ("none", "full"))
    one, two = simulate(plain), simulate(again)

    def flops(step, **where):
        return sum(step.timeline.ops[step.timeline.spans.op[i]].flops for i in spans_of(step.timeline, **where))

    layers = sum(
        one.timeline.ops[one.timeline.spans.op[i]].flops
        for i in spans_of(one.timeline, phase="F")
        if one.timeline.ops[one.timeline.spans.op[i]].layer >= 0
    )
    assert flops(two, phase="R") == pytest.approx(layers)
    assert build(again).hardware_flops - build(again).model_flops == pytest.approx(layers)
    assert build(plain).hardware_flops == build(plain).model_flops
    assert peak(build(again).programs[0], "gpu").size < peak(build(plain).programs[0], "gpu").size


def host_far_ahead(scenario):
    """Launches cost nothing and kernels take a millisecond: the host has issued everything before much has run."""
    slow = replace(scenario.cluster.device, kernel_floor=1e-3)
    return on(scenario, host=replace(scenario.cluster.host, launch=1e-9), device=slow)


@pytest.mark.parametrize("reshard", [True, False])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("prefetch", [0, 1, 2, 3, 20])
def test_the_limit_of_gathers_holds_between_passes_too(prefetch, accumulation, reshard):
    """FSDP's rate limiter does not know passes: backward's first gathers wait for forward's last layers."""
    base = replace(A100, model=replace(A100.model, layers=8))
    scenario = data_parallel(
        4, 3, base=base, prefetch=prefetch, accumulation=accumulation, reshard_after_forward=reshard
    )
    step = simulate(host_far_ahead(scenario))
    layer = 2 * layer_params(base.model)
    root = 2 * (embedding_params(base.model) + head_params(base.model))
    alive = min(prefetch + 1, 8) if reshard else 8
    gathered = step.result.memory[0].by_owner["parameters.gathered"]
    assert gathered.max() <= root + alive * layer + 1
    if prefetch in (1, 2, 3) and reshard:
        assert gathered.max() >= alive * layer, "the limit is reached"
    assert gathered[-1] == 0.0


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_one_rank_gives_back_all_that_it_took(zero, accumulation):
    scenario = data_parallel(1, zero, accumulation=accumulation)
    before = resident(scenario)
    for owner, values in simulate(scenario).result.memory[0].by_owner.items():
        assert values[-1] == pytest.approx(before.get(owner, 0.0), abs=1.0), owner
    found = sent(scenario)
    assert not any(found.values()), "nobody to talk to"


@pytest.mark.parametrize("bucket", [1.0, 3e5, 2.0 * layer_params(A100.model), 2e6, 3.3e6, 1e12])
@pytest.mark.parametrize("overlap", [True, False])
def test_buckets_are_filled_from_the_last_layer_on(bucket, overlap):
    """Greedy filling in backward order: head, layers from the last, embedding; sent when full, the rest at the end."""
    model = A100.model
    order = [head_params(model), *[layer_params(model)] * model.layers, embedding_params(model)]
    expected, open_ = [], 0
    for count in order:
        open_ += 2 * count
        if open_ >= bucket:
            expected, open_ = [*expected, open_], 0
    expected += [open_] if open_ else []
    timeline = simulate(data_parallel(8, grad_bucket=bucket, overlap_grad_reduce=overlap)).timeline
    reduces = sorted(spans_of(timeline, category="dp"), key=lambda i: timeline.spans.start[i])
    assert [timeline.ops[timeline.spans.op[i]].size for i in reduces] == expected


def test_a_bucket_waits_for_the_last_of_its_layers():
    """One unit a bucket: each reduction begins no earlier than the end of the unit's last backward kernel."""
    base = replace(A100, model=replace(A100.model, layers=4))
    timeline = simulate(data_parallel(8, base=base, grad_bucket=1.0)).timeline
    spans = timeline.spans
    reduces = sorted(spans_of(timeline, category="dp"), key=lambda i: spans.start[i])
    assert len(reduces) == 4 + 2
    for reduce, layer in zip(reduces[1:-1], (3, 2, 1, 0), strict=True):
        assert spans.start[reduce] >= spans.end[spans_of(timeline, phase="B", layer=layer)].max()


def test_gradients_on_the_wire_have_their_own_type():
    """fp32 on the wire: 4 bytes a parameter, and a cast of every bucket before it is sent."""
    wide = replace(A100, precision=replace(A100.precision, grad_comm="fp32"))
    scenario = data_parallel(8, base=wide, grad_bucket=5e5)
    assert sent(scenario)["dp"] == pytest.approx(2 * 4 * P * 7 / 8, rel=1e-9)
    timeline = simulate(scenario).timeline
    casts, reduces = spans_of(timeline, name="cast gradients"), spans_of(timeline, category="dp")
    assert len(casts) == len(reduces)
    assert sum(timeline.ops[timeline.spans.op[i]].size for i in casts) == pytest.approx((2 + 4) * P)


@pytest.mark.parametrize("zero", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_offload_over_several_ranks_and_microbatches(zero, accumulation):
    """Gradients go to the CPU after every microbatch (2/n bytes a parameter each); parameters return once.

    From the second microbatch on the sum so far comes back to be added to (DeepSpeed accumulates on the GPU).

    Ranks then gather each other's part, 2 P (n-1)/n bytes, and reduce-scatter every microbatch.
    """
    n = 4
    found = sent(data_parallel(n, zero, base=V100, offload=True, accumulation=accumulation))
    total = params(V100.model)
    one_way = 2 * total * (n - 1) / n
    assert found["d2h"] == pytest.approx(2 * total / n * accumulation, rel=1e-5)
    assert found["h2d"] == pytest.approx(2 * total / n * accumulation, rel=1e-5)
    assert found["param_gather"] == pytest.approx(one_way, rel=1e-9)
    assert found["dp"] == pytest.approx(one_way * accumulation + 2 * 4 * (n - 1) / n, rel=1e-9)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_flops_of_a_step(accumulation):
    """Narayanan et al. 2021, equation 2: 72 B s l h^2 (1 + s/6h + V/12lh) without recompute; 96 = 72 + 24 with.

    Recompute does the layers' forward again, not the head: 24 B s l h^2 (1 + s/6h). B counts all ranks' sequences.
    """
    n, base = 2, replace(V100, model=replace(V100.model, head_dim=V100.model.hidden // V100.model.heads))
    for recompute in ("none", "full"):
        scenario = replace(data_parallel(n, base=base, accumulation=accumulation), recompute=recompute)
        work, model = build(scenario), scenario.model
        s, h, layers, vocab = scenario.batch.sequence, model.hidden, model.layers, model.vocab
        unit = scenario.batch.size * s * layers * h**2
        assert work.tokens == scenario.batch.size * s == 2 * accumulation * n * 128
        expected = 72 * unit * (1 + s / (6 * h) + vocab / (12 * layers * h))
        again = 24 * unit * (1 + s / (6 * h)) if recompute == "full" else 0.0
        assert work.model_flops == pytest.approx(expected)
        assert work.hardware_flops - work.model_flops == pytest.approx(again)


@pytest.mark.parametrize(("zero", "grads", "adds"), [(0, "bf16", 2), (1, "bf16", 2), (2, "bf16", 0), (0, "fp32", 3)])
def test_gradients_of_later_microbatches_are_added(zero, grads, adds):
    """Three microbatches: into 16-bit gradients from the second on, into an fp32 buffer from the first.

    From ZeRO 2 on nobody keeps whole gradients, so none are added: each microbatch is reduced by itself.
    An addition reads the new gradient and the sum and writes the sum: 2 + 2 + 2 bytes, or 2 + 4 + 4.
    """
    wide = replace(A100, precision=replace(A100.precision, grads=grads, grad_comm=grads))
    timeline = simulate(data_parallel(2, zero, base=wide, accumulation=3)).timeline
    found = spans_of(timeline, name="gradient.accumulate")
    moved = sum(timeline.ops[timeline.spans.op[i]].size for i in found)
    assert moved == pytest.approx(adds * P * (6 if grads == "bf16" else 10))


@pytest.mark.parametrize("offload", [True, False])
def test_the_host_reads_the_norm_before_it_goes_on(offload):
    """Overflow or not decides what is launched next: nothing of the optimizer is launched before the norm is known."""
    timeline = simulate(data_parallel(4, 2, base=V100, offload=offload)).timeline
    spans = timeline.spans
    (norm,) = spans_of(timeline, name="read norm")
    later = spans_of(timeline, kind="adam") + spans_of(timeline, name="optimizer.adam")
    assert later
    assert spans.launched[later].min() >= spans.end[norm]


@pytest.mark.parametrize("dp", [1, 2])
@pytest.mark.parametrize("copy_back", ["after", "tiled"])
def test_the_optimizer_of_zero_offload_is_a_sum(dp, copy_back):
    """What ZeRO-Offload adds after backward, in closed form, once all gradients are on the host.

    Unscale 8 M / 0.7 STREAM, Adam 28 M / (fraction x STREAM), copy 2 M / h2d: each of 1/n of the parameters by a rank
    that has 1/n of the socket (a small model is one tile, so tiling changes nothing); then ranks gather 2 M (n-1)/n.
    Launches (1 ns) and latencies of the copy, the collectives: what is left over is under a per mille.
    """
    base = replace(V100, stack=replace(V100.stack, copy_back=copy_back), model=replace(V100.model, vocab=200_000))
    scenario = host_far_ahead(data_parallel(dp, 2, base=base, offload=True, gather_bucket=1e12))
    link = replace(scenario.cluster.host_link, gpus_per_uplink=1, latency=0.0)
    nvlink = replace(scenario.cluster.nvlink, base_latency=0.0, step_latency=0.0)
    scenario = on(scenario, host=replace(scenario.cluster.host, sockets=1), host_link=link, nvlink=nvlink)
    total, host = params(scenario.model), scenario.cluster.host
    stream = host.dram_bandwidth
    cpu = 8 * total / (0.7 * stream) + 28 * total / (scenario.stack.cpu_adam_fraction * stream)
    back = 2 * total / dp / link.h2d
    gather = 2 * total * (dp - 1) / dp / (nvlink.bandwidth * nvlink.efficiency)
    assert simulate(scenario).result.phases["optimizer"] == pytest.approx(cpu + back + gather, rel=1e-3)


@pytest.mark.parametrize(("prefetch", "beside_head"), [(0, 0), (1, 0), (2, 1), (3, 2)])
def test_backwards_first_gathers_run_beside_the_head(prefetch, beside_head):
    """prefetch - 1 layers may be gathered again while forward ends: the head is still to go, backward's comes first.

    A layer is not gathered twice at a time: the last one waits for its own forward.
    """
    base = replace(A100, model=replace(A100.model, layers=8))
    timeline = simulate(host_far_ahead(data_parallel(4, 3, base=base, prefetch=prefetch))).timeline
    spans = timeline.spans
    forward_end = spans.end[spans_of(timeline, phase="F")].max()
    last_layer_end = spans.end[spans_of(timeline, phase="F", layer=7, stream=0)].max()
    begins = np.sort(spans.start[spans_of(timeline, kind="all_gather", phase="B")])
    assert (begins[:beside_head] >= last_layer_end).all()
    assert np.count_nonzero(begins < forward_end) == beside_head


def test_gradients_go_to_the_host_in_their_own_type():
    """fp32 on the wire between ranks, fp16 down to the CPU: DeepSpeed's ``communication_data_type`` only reduces."""
    wide = replace(V100, precision=replace(V100.precision, grads="fp16", grad_comm="fp32"))
    found, total = sent(data_parallel(2, 2, base=wide, offload=True)), params(V100.model)
    assert found["d2h"] == pytest.approx(2 * total / 2, rel=1e-5)
    assert found["dp"] == pytest.approx(4 * total / 2 + 4, rel=1e-5)


def test_parameters_are_gathered_once_every_tile_is_back(monkeypatch):
    """Tiled copy back: tile by tile to the GPU while the CPU goes on; ranks gather each other's part after the last."""
    monkeypatch.setattr("sim.workload.host_step.TILE", 2e5)
    base = replace(V100, stack=replace(V100.stack, copy_back="tiled"))
    timeline = simulate(data_parallel(2, 2, base=base, offload=True)).timeline
    spans = timeline.spans
    back, gathers = spans_of(timeline, kind="h2d"), spans_of(timeline, category="param_gather", kind="all_gather")
    assert len(back) == -(-params(V100.model) // 2 // 200_000) > 2
    assert spans.start[gathers].min() >= spans.end[back].max()


def test_the_cpu_touches_nothing_before_the_last_gradient_has_come_down():
    """A link of 100 MB/s: copies far outlast backward, and even unscaling waits for the last of them."""
    link = replace(V100.cluster.host_link, d2h=1e8)
    timeline = simulate(on(data_parallel(1, 2, base=V100, offload=True, grad_bucket=2e5), host_link=link)).timeline
    spans = timeline.spans
    copies, backward = spans_of(timeline, kind="d2h"), spans_of(timeline, phase="B", stream=0)
    assert spans.end[copies].max() > 2 * spans.end[backward].max()
    cpu = [i for kind in ("stream", "adam") for i in spans_of(timeline, kind=kind)]
    assert spans.start[cpu].min() >= spans.end[copies].max()


@pytest.mark.parametrize("n", [3, 7])
def test_shards_are_padded_up(n):
    """P is no multiple of n: every rank holds ceil(P / n) parameters' states, as flat buffers are padded."""
    assert P % n
    share = -(-P // n)
    held = resident(data_parallel(n, 3))
    owners = {"parameters": 2, "gradients.shard": 2, "optimizer states": 12}
    assert {owner: held[owner] for owner in owners} == {owner: size * share for owner, size in owners.items()}


@pytest.mark.parametrize("zero", [1, 2])
def test_with_replicas_the_shards_of_one_replica_are_gathered(zero):
    """8 ranks in 2 replicas of 4: reduce-scatter over 4, all-reduce of the quarter over 2, all-gather over 4."""
    found = sent(data_parallel(8, zero, dp_replicate=2))
    norm = 2 * 4 * 3 / 4
    assert found["param_gather"] == pytest.approx(2 * P * 3 / 4, rel=1e-9)
    assert found["dp"] == pytest.approx(2 * P * 3 / 4 + 2 * (2 * P / 4) * 1 / 2 + norm, rel=1e-9)


@pytest.mark.parametrize(
    ("order", "deps"),
    [
        ("k c k k", [(), (0,), (1,), ()]),  # exposed: between its neighbours
        ("k n k k", [(), (0,), (), (1,)]),  # beside the next kernel; the one after waits for both
        ("k k p k", [(), (), (0,), (2,)]),  # beside the previous kernel: starts when that one may
        ("c k", [(9,), (9, 0)]),
        ("k n k", [(), (0,), (), (1,)]),  # a marker at the end stands for both
        ("k c c k", [(), (0,), (1,), (1, 2)]),
    ],
)
def test_collectives_between_kernels(order, deps):
    """c: neither neighbour runs meanwhile; n, p: beside the next or the previous one. The first waits for op 9."""
    kernel = Kernel(name="k", kind="elementwise", flops=0.0, bytes_read=1.0, bytes_written=1.0)
    beside = {"c": {}, "n": {"overlap": "next"}, "p": {"overlap": "previous"}}
    block = BlockBuilder("b")
    names = order.split()
    side = {name: Collective(kind="all_gather", axis="tp", size=1.0, **more) for name, more in beside.items()}
    block.items([side.get(name, kernel) for name in names], "F", deps=(9,))
    assert [op.deps for op in block.ops] == [(9,), *deps[1:]]
    streams = [op.stream for op in block.ops][: len(names)]
    assert streams == ["compute" if name == "k" else "tp" for name in names]
