"""Tensor, sequence, pipeline and context parallelism: bytes, bubbles, parameters and memory, against closed forms."""

from collections import Counter
from dataclasses import replace

import pytest

from scenarios import A100, TINY, data_parallel, on
from sim.analysis.transfers import sent_bytes
from sim.api import simulate
from sim.spec.load import load
from sim.workload.build import build, mesh_of
from sim.workload.context import context_workspace
from sim.workload.kernels import Kernel, Shape, layer_backward, layer_forward, recompute_items, split_backward
from sim.workload.model import params
from sim.workload.ops import Collective
from sim.workload.stash import layer_stash

WIDE = load("quickstart", [*TINY, "model.layers=8", "model.dropout=0.1"]).scenario
MATH = load("zero-offload-10b-v100", [*TINY, "model.layers=8", "model.head_dim=64"]).scenario
MEGATRON = replace(
    MATH.stack, fused_softmax=True, fused_bias_activation=True, fused_bias_dropout_add=True, fused_cross_entropy=True
)


BIG = replace(
    load("quickstart", ["model=gpt3-13b", "model.layers=8", "model.vocab=1024", "batch.micro=1"]).scenario,
    recompute="none",
)


def big(**layout):
    """A model whose kernels last, so that launches and latencies do not decide: 2048 tokens a microbatch."""
    scenario = parallel(base=BIG, **layout)
    return replace(scenario, batch=replace(scenario.batch, sequence=2048, micro=1, size=scenario.batch.size // 2))


def parallel(*, tp=1, pp=1, cp=1, dp=1, accumulation=1, base=WIDE, **layout):
    nodes = -(-tp * pp * cp * dp // base.cluster.gpus_per_host)
    scenario = data_parallel(dp, base=base, accumulation=accumulation, nodes=max(nodes, 1))
    return replace(scenario, layout=replace(scenario.layout, tp=tp, pp=pp, cp=cp, **layout))


def shape(**layout):
    scenario = parallel(**layout)
    return Shape(
        model=scenario.model, micro=2, sequence=128, stack=scenario.stack, precision=scenario.precision,
        layout=scenario.layout,
    )  # fmt: skip


def exchanged(items):
    """Bytes that one rank sends, by kind."""
    total = Counter()
    for item in items:
        if isinstance(item, Collective):
            n = 4
            total[item.kind] += item.size * (n - 1) / n * (2 if item.kind == "all_reduce" else 1)
    return total


def flops(items):
    return sum(i.flops for i in items if isinstance(i, Kernel) and i.kind in ("gemm", "attention"))


def test_tensor_parallel_bytes_of_a_layer():
    """Megatron-LM: two all-reduces of s b h forward and two backward (Shoeybi et al. 2019, section 3)."""
    one = shape(tp=4)
    part = 2 * 128 * one.hidden * 2 * 2 * 3 / 4  # tokens x h x 2 bytes, 2 (n-1)/n sent
    assert exchanged(layer_forward(one)) == {"all_reduce": 2 * part}
    assert exchanged(layer_backward(one)) == {"all_reduce": 2 * part}


def test_sequence_parallel_moves_the_same_and_gathers_again():
    """Reduce-scatter + all-gather move what an all-reduce does; backward gathers both inputs once more."""
    one = shape(tp=4, sequence_parallel=True)
    half = 2 * 128 * one.hidden * 2 * 3 / 4
    assert exchanged(layer_forward(one)) == {"all_gather": 2 * half, "reduce_scatter": 2 * half}
    assert exchanged(layer_backward(one)) == {"all_gather": 4 * half, "reduce_scatter": 2 * half}


@pytest.mark.parametrize("layout", [{"tp": 4}, {"tp": 2, "sequence_parallel": True}, {"cp": 4}, {"tp": 2, "cp": 2}])
def test_work_is_split(layout):
    """FLOPs of a rank times the ranks are those of one rank alone."""
    whole, part = shape(), shape(**layout)
    ranks = layout.get("tp", 1) * layout.get("cp", 1)
    for of in (layer_forward, layer_backward):
        assert flops(of(part)) * ranks == pytest.approx(flops(of(whole)), rel=1e-12)


@pytest.mark.parametrize("kind", ["ring", "all_gather"])
def test_context_parallel_bytes(kind):
    """Keys and values of the other parts forward; again, with their gradients, backward."""
    one = shape(cp=4, cp_kind=kind)
    kv = 2 * 2 * 32 * one.kv_width * 2  # k and v, micro x local tokens, 2 bytes
    forward, backward = exchanged(layer_forward(one)), exchanged(layer_backward(one))
    if kind == "all_gather":
        assert forward == {"all_gather": 4 * kv * 3 / 4}
        assert backward == {"all_gather": 3 * kv, "reduce_scatter": 3 * kv}
    else:
        count = [i.size for i in layer_forward(one) if isinstance(i, Collective)]
        assert count == [kv] * 3
        assert [i.size for i in layer_backward(one) if isinstance(i, Collective)] == [2 * kv] * 3


def test_context_parallel_by_heads():
    """Ulysses: queries, keys, values of local tokens out, the context back; a quarter of the heads, whole sequences."""
    one = shape(cp=4, cp_kind="all_to_all")
    widths = (one.q_width + one.kv_width + one.value_width, one.context_width)
    inputs, context = (2 * 32 * width * 2 for width in widths)
    for of, sizes in ((layer_forward, [inputs, context]), (layer_backward, [context, inputs])):
        items = of(one)
        assert [(i.kind, i.size) for i in items if isinstance(i, Collective)] == [("all_to_all", s) for s in sizes]
        (kernel,) = (i for i in items if isinstance(i, Kernel) and i.kind == "attention")
        (whole,) = (i for i in of(shape()) if isinstance(i, Kernel) and i.kind == "attention")
        assert (kernel.n, kernel.m, kernel.batch) == (128, 128, whole.batch // 4)
        assert kernel.flops == pytest.approx(whole.flops / 4)
    assert context_workspace(one) == 0


def merges(items):
    return [i for i in items if isinstance(i, Kernel) and ".merge" in i.name]


def test_partial_results_are_added_up_in_fp32():
    """A ring: three results after the first, of three quarters of the rows each; gathered keys: one kernel, no sum."""
    one = shape(cp=4)
    tokens = 2 * 32
    there, back = merges(layer_forward(one)), merges(layer_backward(one))
    rows = 0.75 * tokens * one.context_width
    assert [(k.bytes_read, k.bytes_written) for k in there] == [(rows * 6, rows * 4)] * 3
    width = one.q_width + one.kv_width + one.value_width
    assert [k.bytes_written for k in back] == [0.75 * tokens * width * 4] * 3
    assert merges(layer_forward(shape(cp=4, cp_kind="all_gather"))) == []


def test_pytorch_works_part_by_part_on_gathered_keys_of_every_query_head():
    """38 and 18 bytes an element of what is merged, in eager passes; gradients of keys go round in fp32."""
    one = shape(cp=4, cp_kind="all_gather")
    torch = replace(one, stack=replace(one.stack, context_parts=True))
    keys = 2 * 2 * 32 * one.q_width * 2
    assert exchanged(layer_forward(torch)) == {"all_gather": keys * 3}
    back = [(i.kind, i.size) for i in layer_backward(torch) if isinstance(i, Collective)]
    assert back == [("all_gather", 4 * keys)] + [("ring_step", 2 * keys)] * 3
    for of, width, bytes_ in ((layer_forward, one.context_width, 38), (layer_backward, 3 * one.q_width, 18)):
        assert sum(1 for i in of(torch) if isinstance(i, Kernel) and i.kind == "attention") == 4
        moved = sum(k.bytes_read + k.bytes_written for k in merges(of(torch)))
        assert moved == pytest.approx(3 * 0.75 * 2 * 32 * width * bytes_)
    sums = 2 * 32 * 3 * one.q_width * 4
    assert context_workspace(torch) == 4 * keys + sums


@pytest.mark.parametrize("overlap", [False, True])
def test_exchanges_along_the_second_dimension_are_copied(overlap):
    """PyTorch: after each gather, before each scatter; under products a scatter's parts are added up instead."""
    one = shape(tp=4, sequence_parallel=True, tp_overlap=overlap)
    torch = replace(one, stack=replace(one.stack, second_dimension=True))
    whole = 2 * 128 * one.hidden * 2
    for of in (layer_forward, layer_backward):
        plain, items = of(one), of(torch)
        extra = [i for i in items if isinstance(i, Kernel) and i.name.startswith("region.")]
        assert [i for i in items if i not in extra] == list(plain)
        gathers = [k for k in extra if k.name == "region.gather"]
        scatters = [k for k in extra if k.name == "region.scatter"]
        count = sum(1 for i in plain if isinstance(i, Collective) and i.kind == "all_gather")
        assert len(gathers) == (0 if overlap else count)
        assert [k.bytes_read for k in scatters] == [whole] * 2
        assert {k.bytes_written for k in scatters} == {whole / 4 if overlap else whole}


@pytest.mark.parametrize("t", [1, 2, 4])
@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("selective", [False, True])
def test_activation_bytes_of_korthikanti(t, sequence_parallel, selective):
    """Korthikanti et al. 2022, table 2: sbh(10 + 24/t + 5as/ht), with sequence parallelism sbh/t(34 + 5as/h)."""
    if t == 1 and sequence_parallel:
        pytest.skip("needs tp")
    base = replace(MATH, stack=MEGATRON)
    scenario = parallel(tp=t, base=base, sequence_parallel=sequence_parallel)
    one = Shape(
        model=scenario.model, micro=2, sequence=128, stack=scenario.stack, precision=scenario.precision,
        layout=scenario.layout,
    )  # fmt: skip
    s, b, h, a = 128, 2, one.hidden, scenario.model.heads
    core = 0 if selective else 5 * a * s / (h * t)
    expected = s * b * h * ((34 / t if sequence_parallel else 10 + 24 / t) + core)
    assert sum(layer_stash(one, selective=selective).values()) == pytest.approx(expected, rel=1e-12)


def test_selective_recompute_does_the_core_again():
    one = replace(shape(), stack=MEGATRON)
    core = recompute_items(one, "selective")
    assert flops(core) == 4 * 128**2 * one.hidden * 2
    assert recompute_items(shape(), "selective") == (), "one flash kernel keeps no such matrix"


def test_backward_splits_into_input_and_weight_gradients():
    first, later = split_backward(layer_backward(shape(tp=2)))
    assert flops(later) == pytest.approx(24 * 2 * 128 * WIDE.model.hidden**2 / 2)
    assert any(isinstance(i, Collective) for i in first)
    assert not any(isinstance(i, Collective) for i in later)


def bubble(schedule, p, m, **layout):
    """Idle share of the step with equal stages and free messages, whole simulation."""
    scenario = big(pp=p, accumulation=m, schedule=schedule, **layout)
    fast = replace(scenario.cluster.nvlink, base_latency=0, step_latency=0, bandwidth=1e18)
    host = replace(scenario.cluster.host, launch=1e-12)
    scenario = on(scenario, nvlink=fast, host=host, sm_share=0.0)
    result = simulate(scenario).result
    return result.breakdown.get("bubble", 0.0) / (result.step_time - result.breakdown["optimizer"])


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_bubble_of_gpipe_and_one_f_one_b(schedule):
    """(p - 1) / (m + p - 1): Huang et al. 2019; the embedding and head here are a per mille of a stage."""
    assert bubble(schedule, 4, 8) == pytest.approx(3 / 11, rel=0.05)


def test_interleaving_divides_the_bubble():
    """(p - 1) / (v m + p - 1) of the step: Narayanan et al. 2021, section 2.2."""
    assert bubble("interleaved", 4, 8, virtual_stages=2) == pytest.approx(3 / 19, rel=0.08)


def test_zero_bubble_is_smaller():
    """Qi et al. 2023: (p - 1)(t_F + t_I - t_W) against (p - 1)(t_F + t_I + t_W)."""
    assert bubble("zb-h1", 4, 8) < 0.6 * bubble("1f1b", 4, 8)
    assert bubble("zb-v", 4, 8, virtual_stages=2) < bubble("zb-h1", 4, 8)


def test_pipeline_bytes():
    """One activation forward and one gradient back for each microbatch and boundary."""
    step = simulate(parallel(pp=4, accumulation=3))
    timeline = step.timeline
    one = 2 * 128 * WIDE.model.hidden * 2
    sends = [o for o in timeline.spans.op.tolist() if timeline.ops[o].name.startswith("send")]
    assert len(sends) == 3 * 2 * 3
    assert {timeline.ops[o].size for o in sends} == {one}


@pytest.mark.parametrize("layout", [{"tp": 2}, {"pp": 2}, {"tp": 2, "pp": 4}, {"cp": 2}, {"tp": 2, "cp": 2, "pp": 2}])
def test_parameters_are_all_there(layout):
    """Every parameter lives on some rank; replicated are norms and row biases (tp), tied embeddings (pp), all (cp)."""
    scenario = parallel(**layout)
    workload = build(scenario)
    held = [dict(program.resident_gpu)["parameters"] / 2 for program in workload.programs]
    per_program = len(workload.program_of_rank) // len(held)
    assert sum(held) * per_program >= params(scenario.model) * (layout.get("cp", 1))
    assert sum(held) * per_program <= 1.3 * params(scenario.model) * layout.get("cp", 1)


def test_tied_embedding_gradients_are_exchanged():
    step = simulate(parallel(pp=2, accumulation=2))
    names = [step.timeline.ops[o].name for o in step.timeline.spans.op.tolist()]
    assert names.count("all-reduce tied embedding") == 2, "first and last stage"


def test_async_tensor_parallelism_hides_communication():
    exposed, hidden = (simulate(big(tp=4, tp_overlap=o)).result for o in (False, True))
    assert hidden.breakdown.get("tp", 0.0) < exposed.breakdown["tp"]
    assert hidden.step_time < exposed.step_time


def test_messages_that_do_not_overlap_cost_time():
    free, held = (simulate(big(pp=4, accumulation=8, p2p_overlap=o)).result.step_time for o in (True, False))
    assert held > free


def test_scatter_gather_sends_a_part_from_each_rank():
    whole, parts = (simulate(parallel(tp=4, pp=2, scatter_gather=o)).timeline for o in (False, True))
    size = [next(op.size for op in t.ops if op.name.startswith("send")) for t in (whole, parts)]
    assert size[0] == 4 * size[1]


def test_scatter_gather_is_the_stacks_unless_the_layout_says():
    """Megatron-LM and DeepSpeed do where there are tensor-parallel ranks and stages."""
    few = ["stack=megatron-deepspeed-2022", "model=gpt2-355m", "layout={tp: 2, pp: 2, dp: 2}"]
    asked = {
        "": True, "layout.scatter_gather=false": False, "layout.sequence_parallel=true": False,
        "layout={tp: 1, pp: 2, dp: 4}": False, "layout={tp: 2, pp: 1, dp: 4}": False, "stack=megatron-core-2024": False,
    }  # fmt: skip
    for more, parts in asked.items():
        assert load("quickstart", [*few, *([more] if more else [])]).scenario.layout.scatter_gather is parts, more


def test_uneven_stages_and_partial_recompute():
    scenario = parallel(pp=2, accumulation=2, stage_layers=(6, 2))
    step = simulate(replace(scenario, recompute="full", recompute_layers=1))
    ops, spans = step.timeline.ops, step.timeline.spans
    layers = {(ops[o].rank_class, ops[o].layer) for o in spans.op.tolist() if ops[o].layer >= 0 and ops[o].phase == "F"}
    assert Counter(rank for rank, _ in layers) == {0: 6, 1: 2}
    again = {ops[o].layer for o in spans.op.tolist() if ops[o].phase == "R"}
    assert again == {0, 6}


def test_hybrid_sharding_moves_shards_within_and_all_reduces_across():
    """HSDP, dp 8 = 2 x 4: gather and scatter over 4 ranks, all-reduce a quarter over 2."""
    step = simulate(parallel(dp=8, zero=3, dp_replicate=2))
    total = Counter()
    for o in step.timeline.spans.op.tolist():
        op = step.timeline.ops[o]
        if op.name.startswith(("reduce-scatter", "all-reduce shard")):
            total[op.kind] += sent_bytes(op)
    p = params(WIDE.model)
    assert total["reduce_scatter"] == pytest.approx(2 * p * 3 / 4, rel=1e-6)
    assert total["all_reduce"] == pytest.approx(2 * 2 * p / 4 * 1 / 2, rel=1e-6)


def test_mesh_order_places_tensor_parallelism():
    """tp innermost stays in a node; outermost it crosses nodes, and the step shows it."""
    near = big(tp=8, dp=2)
    far = replace(near, layout=replace(near.layout, order=("dp", "cp", "pp", "tp")))
    assert mesh_of(near).groups("tp")[0].tolist() == list(range(8))
    assert mesh_of(far).groups("tp")[0].tolist() == list(range(0, 16, 2))
    slow, fast = simulate(far).result, simulate(near).result
    assert slow.breakdown["tp"] > 1.25 * fast.breakdown["tp"]
    assert A100.layout.order == ("tp", "cp", "dp", "pp")


def test_a_stage_without_layers_passes_on_what_arrives():
    """Four stages, the third of them empty: the step runs, folds, and that rank does no arithmetic of its own."""
    base = big(pp=4, dp=2)
    layers = base.model.layers
    uneven = replace(base, layout=replace(base.layout, stage_layers=(layers - 2, 1, 0, 1)))
    folded, whole = simulate(uneven), simulate(uneven, fold=False)
    assert folded.result.step_time == pytest.approx(whole.result.step_time, rel=1e-9)
    assert folded.result.step_time > simulate(base).result.step_time
