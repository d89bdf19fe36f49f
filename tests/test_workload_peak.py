"""Memory found by walking a program, without time: by hand, against closed forms and against the simulated peak."""

from dataclasses import replace

import numpy as np
import pytest

from scenarios import A100, V100, data_parallel, spans_of
from sim.api import simulate
from sim.workload.build import build
from sim.workload.model import layer_params, params
from sim.workload.ops import Action, Block, MemoryEffect, Op, RankProgram
from sim.workload.peak import peak
from sim.workload.units import stages


def op(*effects):
    memory = tuple(MemoryEffect(owner=o, size=s, at=at, where=where) for o, s, at, where in effects)
    return Op(name="o", work=None, stream="compute", phase="F", category="forward", memory=memory)


def program(*blocks, actions=None, gpu=(), host=()):
    return RankProgram(
        name="p",
        blocks=tuple(Block(name="b", ops=ops) for ops in blocks),
        actions=tuple(Action(block=b, microbatch=0) for b in (actions or range(len(blocks)))),
        resident_gpu=gpu,
        resident_host=host,
    )


def test_a_walk_by_hand():
    """10 held; +5 +7 (the peak, 22) -7; +6 while the 5 are still there makes 21; the host's 3 do not count."""
    one = program(
        (
            op(("a", 5.0, "start", "gpu")),
            op(("b", 7.0, "start", "gpu"), ("b", -7.0, "end", "gpu"), ("h", 3.0, "start", "host")),
            op(("c", 6.0, "start", "gpu"), ("a", -5.0, "end", "gpu")),
        ),
        gpu=(("w", 10.0),),
    )
    assert peak(one, "gpu").size == 22.0
    assert list(peak(one, "gpu").by_owner.items()) == [("w", 10.0), ("b", 7.0), ("a", 5.0)]
    assert peak(one, "host").by_owner == {"h": 3.0}


def test_what_an_op_gives_back_at_its_end_is_there_until_then():
    assert peak(program((op(("a", 4.0, "start", "gpu"), ("a", -4.0, "end", "gpu")),)), "gpu").size == 4.0


def test_blocks_repeat_as_often_as_actions_say():
    """A block that leaks 2 bytes, three times."""
    assert peak(program((op(("a", 2.0, "start", "gpu")),), actions=[0, 0, 0]), "gpu").size == 6.0


def test_of_two_equal_peaks_the_first_is_told():
    one = program(tuple(op((name, 4.0, "start", "gpu"), (name, -4.0, "end", "gpu")) for name in "ab"))
    assert peak(one, "gpu").by_owner == {"a": 4.0}


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("base", [A100, V100])
def test_one_rank_alone_needs_what_the_walk_finds(base, accumulation, recompute):
    """Everything on one stream, one after the other: the walk and the simulation see the same sequence."""
    for zero in (0, 2, 3):
        scenario = replace(data_parallel(1, zero, base=base, accumulation=accumulation), recompute=recompute)
        found = peak(build(scenario).programs[0], "gpu")
        (use,) = simulate(scenario).result.memory
        assert found.size == pytest.approx(use.peak, rel=1e-12)
        assert found.by_owner == pytest.approx(use.at_peak, rel=1e-12)


@pytest.mark.parametrize("dp", [1, 4])
def test_a_copy_that_takes_time_holds_its_gradients_longer(dp):
    """The walk frees a bucket at once; the simulated copy holds it while backward goes on."""
    scenario = data_parallel(dp, 2, base=V100, offload=True)
    use = simulate(scenario).result.memory[0]
    assert use.peak >= peak(build(scenario).programs[0], "gpu").size * (1 - 1e-12)


def test_full_recompute_keeps_one_input_a_layer():
    """At the end of forward: layers x tokens x hidden x 2 bytes and no other activation of a layer."""
    scenario = replace(data_parallel(1, base=replace(A100, model=replace(A100.model, layers=12))), recompute="full")
    use = simulate(scenario).result.memory[0]
    tokens = scenario.batch.micro * scenario.batch.sequence
    kept = use.by_owner["activations.checkpoints"].max()
    assert kept == 12 * tokens * scenario.model.hidden * 2
    assert use.by_owner["activations.checkpoints"][-1] == 0.0


@pytest.mark.parametrize("n", [2, 8])
def test_zero_three_holds_a_share_and_what_is_gathered(n):
    """Model states 16 P / n; beside them never more than the root and prefetch + 1 layers."""
    scenario = data_parallel(n, 3, prefetch=1)
    model, total = scenario.model, params(scenario.model)
    found = peak(build(scenario).programs[0], "gpu").by_owner
    states = found["parameters"] + found["gradients.shard"] + found["optimizer states"]
    assert states == pytest.approx(16 * total / n, rel=1e-9)
    root = total - model.layers * layer_params(model)
    assert found["parameters.gathered"] <= 2 * (root + 2 * layer_params(model))


def test_offload_keeps_only_parameters_on_the_gpu():
    """ZeRO-Offload, section 3: 2 bytes a parameter on the GPU beside activations, 14 (+ 2 staged) on the host."""
    one = build(data_parallel(1, 2, base=V100, offload=True)).programs[0]
    total = params(V100.model)
    held = dict(one.resident_gpu)
    assert held.pop("framework") == V100.stack.context
    assert held == {"parameters": 2.0 * total}
    host = peak(one, "host")
    assert host.size == pytest.approx(16 * total)
    assert host.size - host.by_owner["parameters.staging"] == pytest.approx(14 * total)


@pytest.mark.parametrize("base", [A100, V100])
def test_recompute_brings_back_what_was_not_kept_and_no_more(base):
    """A pre-norm layer's input is what its first norm keeps; with the rest restored its stash is whole again."""
    full, none = (stages(replace(data_parallel(1, base=base), recompute=r), apart=False)[0] for r in ("full", "none"))
    for again, plain in zip(full, none, strict=True):
        assert plain.restored == {}
        assert sum(again.kept.values()) + sum(again.restored.values()) == pytest.approx(sum(plain.kept.values()))
        assert bool(again.restored) == (plain.layer >= 0)


def test_restored_activations_are_there_from_the_first_recomputed_kernel_on():
    """And gone when the layer's backward has ended; the head's workspace is there from the head's first kernel on."""
    scenario = replace(data_parallel(1), recompute="full")
    units = stages(scenario, apart=False)[0]
    step = simulate(scenario)
    spans, (use,) = step.timeline.spans, step.result.memory

    def held(owners, when):
        return sum(use.by_owner[owner][np.searchsorted(use.times, when, side="right") - 1] for owner in owners)

    last, owners = units[-2], list(units[-2].restored)
    again = spans_of(step.timeline, phase="R", layer=last.layer)
    before = held(owners, np.nextafter(spans.start[again].min(), 0.0))
    assert held(owners, spans.start[again].min()) - before == pytest.approx(sum(last.restored.values()))
    back = spans_of(step.timeline, phase="B", layer=last.layer, stream=0)
    assert held(owners, spans.end[back].max()) == pytest.approx(before, abs=1.0)
    layers = spans_of(step.timeline, phase="F", layer=last.layer)
    head = [i for i in spans_of(step.timeline, phase="F", layer=-1) if spans.start[i] >= spans.end[layers].max()]
    assert held(["activations.workspace"], spans.start[head].min()) == pytest.approx(units[-1].forward_workspace)
    assert units[-1].forward_workspace > 0
