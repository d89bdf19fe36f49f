"""What PyTorch's FSDP does beside its collectives: closed forms of bytes, order and memory."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from scenarios import A100, data_parallel
from sim.api import simulate
from sim.workload.build import build
from sim.workload.kernels import (
    Shape,
    embedding_backward,
    head_backward,
    head_forward,
    layer_backward,
    layer_forward,
    recompute_items,
)
from sim.workload.model import layer_params, params
from sim.workload.ops import Collective, Kernel
from sim.workload.stash import head_backward_workspace, head_stash

N = 4


def fsdp(copies="flat", *, comm="fp32", **layout):
    """Full sharding over ``N`` ranks in bf16, gradients reduced in ``comm``."""
    scenario = data_parallel(N, 3, **layout)
    stack = replace(scenario.stack, zero3_copies=copies, sharded_master=True)
    precision = replace(scenario.precision, compute="bf16", grads="bf16", grad_comm=comm, master=True)
    return replace(scenario, stack=stack, precision=precision)


def passes(scenario, *names):
    """Bytes that kernels of these names move in one microbatch."""
    works = [op.work for block in build(scenario).programs[0].blocks for op in block.ops]
    return sum(w.bytes_read + w.bytes_written for w in works if isinstance(w, Kernel) and w.name in names)


@pytest.mark.parametrize(("comm", "wire"), [("fp32", 4), ("bf16", 2)])
def test_flat_gradients_are_joined_cast_and_divided(comm, wire):
    """4 B a parameter to join, 2 + w to cast if the wire is wider, 2 w to divide."""
    scenario, total = fsdp(comm=comm), params(A100.model)
    assert passes(scenario, "gradient.join") == 4 * total
    assert passes(scenario, "cast gradients") == (6 * total if wire == 4 else 0)
    assert passes(scenario, "gradient.divide") == 2 * wire * total


def test_per_parameter_shards_are_copied_in_and_out():
    """FSDP2: 2 + 4 B a parameter into the reduction's buffer, 2 + 2 out of each gather; the root is gathered once."""
    scenario, model = fsdp("per_parameter"), A100.model
    layers = model.layers * layer_params(model)
    assert passes(scenario, "gradient.join") == 6 * params(model)
    assert passes(scenario, "parameters.copy_out") == 4 * (params(model) + layers)
    assert passes(scenario, "gradient.divide") == 0


def test_shards_are_master_weights():
    """4 B of parameter, 4 of gradient, 8 of moments: 16 P / N, and each gather first casts the shard to 16 bits."""
    held, total = dict(build(fsdp()).programs[0].resident_gpu), params(A100.model)
    share = -(-total // N)
    assert held["parameters"] == 4 * share
    assert held["gradients.shard"] == 4 * share
    assert held["optimizer states"] == 8 * share
    layers = A100.model.layers * layer_params(A100.model)
    assert passes(fsdp(), "parameters.cast") == pytest.approx(6 * (total + layers) / N)


def test_gathers_and_reductions_share_one_queue():
    """One communicator: no gather runs beside a reduce-scatter, and gradients' memory is given back in the end."""
    step = simulate(fsdp())
    ops, spans = step.timeline.ops, step.timeline.spans
    mine = sorted(
        (spans.start[i], spans.end[i])
        for i in range(len(spans.op))
        if ops[spans.op[i]].kind in ("all_gather", "reduce_scatter")
    )
    assert len(mine) > 2 * A100.model.layers
    assert all(a[1] <= b[0] + 1e-12 for a, b in itertools.pairwise(mine))
    assert step.result.memory[0].by_owner["gradients"][-1] == pytest.approx(0.0, abs=1.0)


def shape(**stack):
    scenario = replace(A100, stack=replace(A100.stack, **stack))
    return Shape(
        model=scenario.model, micro=2, sequence=128, stack=scenario.stack,
        precision=scenario.precision, layout=scenario.layout,
    )  # fmt: skip


def test_recompute_stops_at_the_last_saved_tensor():
    """All of forward but the second MLP product and what follows it; a post-norm layer needs its output."""
    early, whole = (recompute_items(shape(recompute_stops=stops), "full") for stops in (True, False))
    forward = layer_forward(shape())
    assert whole == forward
    assert early == forward[: len(early)]
    assert next(item.name for item in forward[len(early) :]) == "mlp.down"
    post = replace(shape(recompute_stops=True), model=replace(A100.model, post_norm=True))
    assert recompute_items(post, "full") == layer_forward(post)


def test_metric_losses_pass_over_the_logits():
    """After backward: to fp32 (2 + 4), log-softmax (4 + 4), 14 B a logit each, and a number a token."""
    plain, metered = (embedding_backward(shape(metric_losses=count)) for count in (0, 2))
    extra = [item for item in metered if item not in plain and not isinstance(item, Collective)]
    logits = 2 * 128 * A100.model.vocab
    assert sum(k.bytes_read + k.bytes_written for k in extra) == 2 * (14 * logits + 8 * 2 * 128)


def test_biases_ride_on_products_and_plain_gelu_keeps_no_tanh():
    """No pass for a bias; GELU reads one tensor and writes one."""
    model = replace(A100.model, qkv_bias=True, out_bias=True, mlp_bias=True, activation="gelu", gated_mlp=False)
    plain = replace(
        shape(fused_linear_bias=True, scripted_gelu=False, fused_bias_activation=False, fused_bias_dropout_add=False),
        model=model,
    )
    names = [item.name for item in layer_forward(plain)]
    assert not [name for name in names if name.endswith(".bias")]
    gelu = next(item for item in layer_forward(plain) if item.name == "mlp.gelu")
    assert gelu.bytes_read == gelu.bytes_written == plain.act(model.ffn)


def llama(**more):
    """A gated layer over two tensor-parallel ranks, its products kept apart, in a recipe."""
    keys = {"separate_products": True, "recompute_stops": True, "selective": "products", "attention": "flash2"} | more
    fp8 = keys.pop("fp8", "none")
    base = shape(**keys)
    model = replace(A100.model, gated_mlp=True, activation="silu", norm="rmsnorm", positions="rotary")
    layout = replace(base.layout, tp=2, sequence_parallel=True)
    precision = replace(base.precision, compute="bf16", fp8=fp8)
    return replace(base, model=model, layout=layout, precision=precision)


def flops(items):
    return sum(item.flops for item in items if isinstance(item, Kernel) and item.kind == "gemm")


def test_products_apart_do_the_same_work():
    """Five products instead of two, as many FLOPs each way, and the same gradients' bytes written."""
    apart, merged = llama(), llama(separate_products=False)
    for build_items in (layer_forward, layer_backward):
        assert flops(build_items(apart)) == flops(build_items(merged))
    names = [i.name for i in layer_forward(apart) if isinstance(i, Kernel) and i.kind == "gemm"]
    assert names == ["attention.q", "attention.k", "attention.v", "attention.out", "mlp.gate_in", "mlp.up", "mlp.down"]


def test_every_second_product_is_done_again():
    """Keys, output projection and up, no attention, no exchange; whether products are merged or not."""
    for one in (llama(), llama(separate_products=False)):
        again = recompute_items(one, "selective")
        names = [item.name for item in again if item.kind == "gemm"]
        assert names == ["attention.k", "attention.out", "mlp.up"]
        tokens, h = one.tokens, one.hidden
        assert flops(again) == 2 * tokens * (h * one.kv_width + one.q_width * h + h * one.ffn)
        assert not any(item.kind == "attention" for item in again)


@pytest.mark.parametrize(("fp8", "share"), [("none", 1.0), ("tensorwise", 0.5), ("rowwise", 1.0)])
def test_one_scale_a_tensor_lets_ranks_gather_bytes(fp8, share):
    """An fp8 input is half of a bf16 one; a scale a row holds along one direction only, so 16 bits travel."""
    one = llama(narrow_tp_gather=True, fp8=fp8)
    gathers = [i.size for i in layer_forward(one) if isinstance(i, Collective) and i.kind == "all_gather"]
    assert gathers == [share * one.act(one.hidden)] * 2


def test_the_librarys_loss_compiled():
    """One kernel each way: 2 B a logit read, then 2 read and 2 written; the logits stay beside their gradient."""
    one = shape(library_loss=True, fused_cross_entropy=True, fp32_logits=True)
    one = replace(one, precision=replace(one.precision, compute="bf16"))
    count, rows = 2 * 128 * A100.model.vocab, 2 * 128 * 4
    there, back = ([i for i in way(one) if i.name.startswith("loss.")] for way in (head_forward, head_backward))
    assert [(k.bytes_read, k.bytes_written) for k in there] == [(2 * count, rows)]
    assert [(k.bytes_read, k.bytes_written) for k in back] == [(2 * count + rows, 2 * count)]
    assert (head_stash(one)["activations.logits"], head_backward_workspace(one)) == (2 * count, 2 * count)


def test_the_librarys_loss():
    """To fp32 2 + 4, log-softmax 4 + 4; back 4 written, 4 + 4 + 4, 4 + 2: 36 B a logit."""
    one = shape(library_loss=True, fused_cross_entropy=False, fp32_logits=True)
    one = replace(one, precision=replace(one.precision, compute="bf16"))
    kernels = [i for i in (*head_forward(one), *head_backward(one)) if i.name.startswith("loss.")]
    assert sum(k.bytes_read + k.bytes_written for k in kernels) == 36 * 2 * 128 * A100.model.vocab
