"""Rules that propose changes of a scenario, as ``--set`` texts. They know what may help, not whether or how much.

Every rule keeps the batch (sequences a step). Owns no simulation: ``suggest`` tries what is proposed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sim.analysis.breakdown import breakdowns
from sim.api import Step
from sim.spec.types import LayoutSpec, Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One change: its kind, in words, and as overrides."""

    says: str
    sets: tuple[str, ...]
    kind: str = ""


def _batch(scenario: Scenario, micro: int, dp: int) -> tuple[str, ...]:
    """The same number of sequences with another micro-batch or another number of replicas; none: it does not divide."""
    size = scenario.batch.size
    if micro < 1 or dp < 1 or size % (micro * dp):
        return ()
    return (f"batch.size={size}", f"batch.micro={micro}", f"batch.accumulation={size // (micro * dp)}")


def micro_batch(step: Step) -> Iterator[Candidate]:
    """Larger products and fewer passes, or smaller ones and a shorter bubble. An order from a file stays as it is."""
    if step.scenario.layout.schedule_file is not None:
        return
    batch, dp = step.scenario.batch, step.scenario.layout.dp
    for micro in (batch.micro * 4, batch.micro * 2, batch.micro // 2, batch.micro // 4):
        if sets := _batch(step.scenario, micro, dp):
            yield Candidate(says=f"micro-batch of {micro} instead of {batch.micro}", sets=sets)


def recompute(step: Step) -> Iterator[Candidate]:
    """Keep more or less of forward."""
    scenario = step.scenario
    now, some = scenario.recompute, scenario.recompute_layers
    per_stage = scenario.model.layers // (scenario.layout.pp * scenario.layout.virtual_stages)
    modules = scenario.recompute_modules
    for kind in ("none", "selective", "full"):
        if kind != now or (kind == "full" and some >= 0) or (kind == "selective" and modules):
            word = "every layer" if kind == "full" else "nothing" if kind == "none" else "only the core of attention"
            sets = (f"recompute={kind}", "recompute_layers=null", "recompute_modules=null")
            yield Candidate(says=f"recompute {word}", sets=sets)
    if scenario.model.experts and modules != ("layernorm", "moe_act"):
        some_of_it = ("recompute=selective", "recompute_layers=null", "recompute_modules=[layernorm, moe_act]")
        yield Candidate(says="recompute only norms and activations of experts", sets=some_of_it)
    if per_stage > 1:
        half = per_stage // 2
        if (now, some) != ("full", half):
            yield Candidate(
                says=f"recompute {half} of {per_stage} layers of a stage",
                sets=("recompute=full", f"recompute_layers={half}", "recompute_modules=null"),
            )


def zero_stage(step: Step) -> Iterator[Candidate]:
    """Shard less (fewer exchanges) or more (less memory)."""
    layout = step.scenario.layout
    ungathered = ("layout.prefetch=null", "layout.reshard_after_forward=null", "layout.live_parameters=null",
                  "layout.persistence_threshold=null", "layout.gather_bucket=null",
                  "layout.overlap_param_gather=null")  # fmt: skip
    for zero in (0, 1, 2, 3):
        if zero != layout.zero and layout.dp * layout.cp > 1:
            yield Candidate(
                says=f"ZeRO stage {zero} instead of {layout.zero}", sets=(f"layout.zero={zero}", *ungathered)
            )


def pipeline(step: Step) -> Iterator[Candidate]:
    """More stages a rank, or another order of actions."""
    layout, layers = step.scenario.layout, step.scenario.model.layers
    if layout.pp == 1 or layout.schedule_file is not None:
        return
    even = "layout.stage_layers=null"
    for virtual in (2, 3, 4, 5, 6, 8):
        if layers % (layout.pp * virtual) == 0 and (layout.schedule, layout.virtual_stages) != ("interleaved", virtual):
            yield Candidate(
                says=f"interleave {virtual} stages a rank",
                sets=("layout.schedule=interleaved", f"layout.virtual_stages={virtual}", even),
            )
    for name, virtual in (("1f1b", 1), ("zb-h1", 1), ("zb-v", 2), ("dualpipev", 2)):
        if name != layout.schedule and layers % (layout.pp * virtual) == 0:
            kept = () if virtual == layout.virtual_stages else (even,)
            yield Candidate(
                says=f"schedule {name}", sets=(f"layout.schedule={name}", f"layout.virtual_stages={virtual}", *kept)
            )


def layout(step: Step) -> Iterator[Candidate]:
    """Trade tensor, pipeline and data parallelism against each other by a factor of two."""
    scenario = step.scenario
    now = {axis: getattr(scenario.layout, axis) for axis in ("dp", "tp", "pp")}
    if scenario.layout.schedule_file is not None:
        return
    fixed = bool(scenario.layout.stage_layers)
    for more, less in (("dp", "tp"), ("tp", "dp"), ("dp", "pp"), ("pp", "dp"), ("tp", "pp"), ("pp", "tp")):
        if now[less] % 2 or now[less] < 2 or (fixed and "pp" in (more, less)):
            continue
        new = {**now, more: now[more] * 2, less: now[less] // 2}
        if sets := _batch(scenario, scenario.batch.micro, new["dp"]):
            axes = tuple(f"layout.{axis}={size}" for axis, size in new.items() if size != now[axis])
            words = " x ".join(f"{size} {axis.upper()}" for axis, size in new.items())
            sets = (*axes, *sets, *_alone(scenario.layout, new))
            yield Candidate(says=f"{words} instead of {' x '.join(str(size) for size in now.values())}", sets=sets)


def _alone(layout: LayoutSpec, new: dict[str, int]) -> Iterator[str]:
    """Keys that mean nothing on an axis of one rank, taken back."""
    if new["tp"] == 1:
        yield from ("layout.sequence_parallel=null", "layout.tp_overlap=null", "layout.scatter_gather=null")
    if new["pp"] == 1:
        yield from ("layout.schedule=null", "layout.virtual_stages=null", "layout.p2p_overlap=null")
    if new["dp"] * layout.cp == 1:
        yield "layout.zero=0"


def mesh_order(step: Step) -> Iterator[Candidate]:
    """Who is a neighbour of whom: which exchanges stay inside a node."""
    layout = step.scenario.layout
    long = [axis for axis in ("tp", "cp", "dp", "pp") if getattr(layout, axis) > 1]
    tried = {_seen(layout.order, long)}
    for order in (
        ("tp", "cp", "dp", "pp"),
        ("tp", "cp", "pp", "dp"),
        ("cp", "tp", "dp", "pp"),
        ("dp", "tp", "cp", "pp"),
    ):
        if _seen(order, long) not in tried:
            tried.add(_seen(order, long))
            words = ", ".join(axis.upper() for axis in _seen(order, long))
            yield Candidate(says=f"neighbouring ranks along {words}", sets=(f"layout.order=[{', '.join(order)}]",))


def _seen(order: Sequence[str], long: Sequence[str]) -> tuple[str, ...]:
    return tuple(axis for axis in order if axis in long)


def overlap(step: Step) -> Iterator[Candidate]:
    """Let exchanges run beside computing."""
    layout = step.scenario.layout
    switches = (
        ("overlap_grad_reduce", layout.dp > 1, "reduce gradients under backward"),
        ("overlap_param_gather", layout.zero in (1, 2) and layout.dp > 1, "gather parameters under the next forward"),
        ("tp_overlap", layout.tp > 1, "tensor-parallel exchanges under their GEMMs"),
        ("sequence_parallel", layout.tp > 1, "sequence parallelism between attention and MLP"),
        ("p2p_overlap", layout.pp > 1, "messages between stages under computing"),
        ("scatter_gather", layout.pp > 1 and layout.tp > 1, "a part of each message from every tensor-parallel rank"),
    )
    for key, able, says in switches:
        if able and not getattr(layout, key):
            yield Candidate(says=says, sets=(f"layout.{key}=true",))
    if layout.zero == 3:
        yield Candidate(
            says=f"gather {layout.prefetch + 1} layers ahead", sets=(f"layout.prefetch={layout.prefetch + 1}",)
        )
        if layout.reshard_after_forward:
            yield Candidate(says="keep gathered layers until backward", sets=("layout.reshard_after_forward=false",))


def offload(step: Step) -> Iterator[Candidate]:
    """Host memory for GPU memory, or back; and the ways to make it cheap."""
    now = step.scenario.offload
    if now.optimizer == now.gradients == now.parameters == now.activations == "none":
        yield Candidate(says="optimizer on the CPU", sets=("offload={optimizer: cpu, gradients: cpu}",))
        yield Candidate(says="activations in host memory", sets=("offload={activations: cpu}",))
        return
    yield Candidate(says="no offload", sets=("offload=none",))
    if now.optimizer == "cpu":
        if now.update == "after":
            yield Candidate(says="update under the next step (one step stale)", sets=("offload.update=delayed",))
            yield Candidate(says="update bucket by bucket under backward", sets=("offload.update=speculative",))
        for ratio in (0.9, 0.75, 0.5):
            if ratio < now.ratio:
                yield Candidate(says=f"only {ratio:.0%} of the update on the CPU", sets=(f"offload.ratio={ratio}",))
        if now.casts == "host":
            yield Candidate(says="cast gradients on the GPU", sets=("offload.casts=gpu",))
        if now.accumulate == "host" and step.scenario.batch.accumulation > 1:
            yield Candidate(says="add gradients up on the GPU", sets=("offload.accumulate=gpu",))


def balance(step: Step) -> Iterator[Candidate]:
    """Layers from the busiest stage to idle ones; slow parts replaced."""
    scenario = step.scenario
    if scenario.cluster.variations:
        yield Candidate(says="no slow or missing parts", sets=("cluster.variations=null",))
    layers = _balanced(step)
    if layers:
        yield Candidate(
            says=f"layers of the stages: {', '.join(map(str, layers))}",
            sets=(f"layout.stage_layers=[{', '.join(map(str, layers))}]",),
        )


def _balanced(step: Step) -> tuple[int, ...]:
    """Layers of each stage such that the busiest has least to do; none where that changes nothing.

    What a stage computes is its layers and something of its own (embedding, head, loss): ``busy = layers x t + rest``,
    t from the stage with the least of a rest.
    """
    scenario = step.scenario
    layout, count = scenario.layout, scenario.model.layers
    if layout.pp == 1 or layout.virtual_stages > 1 or layout.copies > 1 or scenario.model.first_dense_layers:
        return ()
    now = layout.stage_layers or (count // layout.pp,) * layout.pp
    busy = _computing(step)
    if len(busy) != layout.pp or min(now) < 1:
        return ()
    each = min(seconds / layers for seconds, layers in zip(busy, now, strict=True))
    rest = [seconds - each * layers for seconds, layers in zip(busy, now, strict=True)]
    new = [0] * layout.pp
    for _ in range(count):
        least = min(range(layout.pp), key=lambda stage: (rest[stage] + each * (new[stage] + 1), stage))
        new[least] += 1
    return tuple(new) if tuple(new) != tuple(now) else ()


def _computing(step: Step) -> list[float]:
    """Seconds of forward and backward of each stage, of the rank class that has most."""
    found: dict[int, float] = {}
    for row, part in zip(step.timeline.rank_classes, breakdowns(step.timeline), strict=True):
        seconds = sum(part.get(name, 0.0) for name in ("forward", "backward", "recompute"))
        found[row.stage] = max(found.get(row.stage, 0.0), seconds)
    return [found[stage] for stage in sorted(found)]
