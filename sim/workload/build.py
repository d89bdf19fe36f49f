"""WHAT must happen: from a scenario to the program of every rank.

Owns the order of a training step: forward and backward blocks of each microbatch, then the optimizer block. Knows what
is moved and computed, never how fast. Each capability sits in its own module (``gather``: ZeRO-3; ``grads``:
reduction and gradient offload; ``step_end``: optimizer and ZeRO-Offload); this one only strings them together.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.spec.types import Scenario
from sim.workload import residency
from sim.workload.block import BlockBuilder
from sim.workload.gather import Gathers
from sim.workload.grads import GradientStream, policy_for
from sim.workload.kernels import accumulate_grads
from sim.workload.model import model_flops_per_token, params
from sim.workload.ops import Action, Block, RankProgram, Workload
from sim.workload.step_end import optimizer_block
from sim.workload.units import Unit, cut

ALLOCATOR = "allocator"
WORKSPACE = "activations.workspace"


def build(scenario: Scenario) -> Workload:
    """The whole step. Data-parallel ranks all run the same program, over one process group."""
    units = cut(scenario)
    accumulation = scenario.batch.accumulation
    blocks = [_forward(scenario, units), _backward(scenario, units, last=True, first=accumulation == 1)]
    middle = []
    if accumulation > 1:
        blocks += [_backward(scenario, units, last=False, first=first) for first in (True, False)]
        middle = [2] + [3] * (accumulation - 2)
    blocks.append(optimizer_block(scenario, params(scenario.model)))
    actions: list[Action] = []
    for microbatch, backward in enumerate([*middle, 1]):
        actions += [Action(block=0, microbatch=microbatch), Action(block=backward, microbatch=microbatch)]
    actions.append(Action(block=len(blocks) - 1, microbatch=accumulation - 1))
    program = RankProgram(
        name="data-parallel rank" if scenario.layout.dp > 1 else "the rank",
        blocks=tuple(blocks),
        actions=tuple(actions),
        resident_gpu=residency.on_gpu(scenario),
        resident_host=residency.on_host(scenario),
    )
    tokens = scenario.batch.size * scenario.batch.sequence
    model_flops = tokens * model_flops_per_token(scenario.model, scenario.batch.sequence)
    return Workload(
        programs=(program,),
        program_of_rank=(0,) * scenario.layout.world,
        groups={"dp": (tuple(range(scenario.layout.dp)),)},
        tokens=tokens,
        model_flops=model_flops,
        hardware_flops=model_flops + _recomputed(units) * accumulation * scenario.layout.dp,
    )


def _recomputed(units: tuple[Unit, ...]) -> float:
    """FLOPs that one microbatch on one rank does again, in GEMMs and attention."""
    return sum(k.flops for u in units for k in u.recompute if k.kind in ("gemm", "attention"))


def _gathers(scenario: Scenario, block: BlockBuilder, units: tuple[Unit, ...], *, forward: bool) -> Gathers:
    """Gathers of a pass under ZeRO-3; of nothing otherwise."""
    layout = scenario.layout
    gathers = Gathers(
        block,
        units,
        phase="F" if forward else "B",
        param_bytes=scenario.precision.param_bytes,
        prefetch=layout.prefetch,
        sharded=layout.zero == 3 and layout.dp > 1,
    )
    if not forward:
        (gathers.skip_roots if layout.reshard_after_forward else gathers.skip_all)()
        gathers.follow()
    return gathers


def _forward(scenario: Scenario, units: tuple[Unit, ...]) -> Block:
    block = BlockBuilder("forward")
    layout = scenario.layout
    gathers = _gathers(scenario, block, units, forward=True)
    for position, unit in enumerate(units):
        deps = gathers.need(position)
        first, last = block.kernels(unit.forward, "F", layer=unit.layer, deps=deps)
        _take(block, first, unit.kept, scenario)
        block.takes(first, WORKSPACE, unit.forward_workspace)
        block.frees(last, WORKSPACE, unit.forward_workspace)
        gathers.done(position, last, free=layout.reshard_after_forward and not unit.root)
    gathers.announce()
    return block.block()


def _backward(scenario: Scenario, units: tuple[Unit, ...], *, last: bool, first: bool) -> Block:
    """Backward of one microbatch. ``first``/``last``: of the step; gradients of later ones are added to the first's.

    With ZeRO 0 and 1 gradients are reduced on the last microbatch only; from ZeRO 2 on (or with gradients on the CPU)
    every microbatch's are, since no rank keeps the whole (adding a reduced part to the shard is not counted: it is
    1/dp of the bytes).
    """
    block = BlockBuilder("backward")
    order = units[::-1]
    policy = policy_for(scenario)
    stream = GradientStream(block, policy)
    gathers = _gathers(scenario, block, order, forward=False)
    sends = last or policy.transient
    for position, unit in enumerate(order):
        deps = gathers.need(position)
        begin = len(block.ops)
        if unit.recompute:
            block.kernels(unit.recompute, "R", layer=unit.layer, deps=deps)
            deps = ()
        opening, end = block.kernels(unit.backward, "B", layer=unit.layer, deps=deps)
        adds = accumulate_grads(unit.params, scenario.precision, unit.tensors, first=first or policy.transient)
        if adds:
            _, end = block.kernels(adds, "B", layer=unit.layer)
        _take(block, begin, unit.restored, scenario)
        block.takes(opening, WORKSPACE, unit.workspace)
        block.frees(end, WORKSPACE, unit.workspace)
        for kept in (unit.restored, unit.kept):
            _free(block, end, kept, scenario)
        gathers.done(position, end, free=True)
        if sends:
            stream.unit_done(unit, opening, end)
    stream.finish()
    gathers.hold()
    return block.block()


def _take(block: BlockBuilder, index: int, sizes: Mapping[str, float], scenario: Scenario) -> None:
    for owner, size in sizes.items():
        block.takes(index, owner, size)
        block.takes(index, ALLOCATOR, size * scenario.stack.fragmentation)


def _free(block: BlockBuilder, index: int, sizes: Mapping[str, float], scenario: Scenario) -> None:
    for owner, size in sizes.items():
        block.frees(index, owner, size)
        block.frees(index, ALLOCATOR, size * scenario.stack.fragmentation)
