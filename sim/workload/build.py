"""WHAT must happen: from a scenario to the program of every rank.

Strings the room together: stages of the model, the pipeline schedule, the program of each pipeline rank, the process
groups. Knows what is moved and computed, never how fast. Each capability sits in its own module (``gather``: ZeRO-3;
``grads``: reduction and gradient offload; ``pipeline``: an action's block; ``step_end``: optimizer and ZeRO-Offload).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sim.mesh import Mesh, Ranks
from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload import residency
from sim.workload.model import model_flops_per_token
from sim.workload.ops import Action, Kernel, RankProgram, Workload
from sim.workload.pipeline import PipelineRank
from sim.workload.schedules.table import make
from sim.workload.schedules.types import Schedule
from sim.workload.shares import Share
from sim.workload.step_end import optimizer_block
from sim.workload.units import Unit, stages


def mesh_of(scenario: Scenario) -> Mesh:
    """The mesh of a layout."""
    layout = scenario.layout
    return Mesh(
        sizes={"tp": layout.tp, "cp": layout.cp, "dp": layout.dp, "pp": layout.pp},
        order=layout.order,
        replicate=layout.dp_replicate,
        experts=layout.ep,
    )


def schedule_of(scenario: Scenario) -> Schedule:
    """The pipeline schedule; with one stage every microbatch goes forward and backward before the next."""
    layout = scenario.layout
    name = layout.schedule if layout.pp > 1 else "1f1b"
    return make(name, layout.pp, scenario.batch.accumulation, layout.virtual_stages)


def build(scenario: Scenario) -> Workload:
    """The whole step. Ranks with the same pipeline coordinate run the same program."""
    mesh, schedule, cut = mesh_of(scenario), schedule_of(scenario), stages(scenario)
    programs = tuple(_program(scenario, schedule, cut, rank) for rank in range(scenario.layout.pp))
    tokens = scenario.batch.size * scenario.batch.sequence
    model_flops = tokens * model_flops_per_token(scenario.model, scenario.batch.sequence)
    pipelines = mesh.world // scenario.layout.pp
    return Workload(
        programs=programs,
        program_of_rank=mesh.coordinate("pp"),
        groups=_groups(scenario, mesh, schedule),
        tokens=tokens,
        model_flops=model_flops,
        hardware_flops=model_flops + _recomputed(cut) * scenario.batch.accumulation * pipelines,
    )


def _program(scenario: Scenario, schedule: Schedule, cut: Sequence[tuple[Unit, ...]], rank: int) -> RankProgram:
    builder = PipelineRank(scenario, schedule, cut, rank)
    builder.build()
    mine = [unit for stage, units in enumerate(cut) if schedule.rank_of_stage[stage] == rank for unit in units]
    held = Share.of(mine)
    shared = _tied_bytes(scenario) if any(unit.root for unit in mine) else 0.0
    last = Action(block=len(builder.blocks), microbatch=max(scenario.batch.accumulation - 1, 0))
    return RankProgram(
        name=f"pipeline rank {rank}" if scenario.layout.pp > 1 else "every rank",
        blocks=(*builder.blocks, optimizer_block(scenario, held, shared_embedding=shared)),
        actions=(*builder.actions, last),
        resident_gpu=residency.on_gpu(scenario, held),
        resident_host=residency.on_host(scenario, held),
    )


def _tied_bytes(scenario: Scenario) -> float:
    """Gradient bytes of a tied embedding that lives on two stages; 0 where there is nothing to exchange."""
    if not scenario.model.tied_embeddings or scenario.layout.pp == 1:
        return 0.0
    table = scenario.model.vocab * scenario.model.hidden / scenario.layout.tp
    return table * DTYPE_BYTES[scenario.precision.grads]


def _groups(scenario: Scenario, mesh: Mesh, schedule: Schedule) -> dict[str, Ranks]:
    """Process groups that the programs may name, each axis as an array (groups, members)."""
    groups = {
        "dp": mesh.groups("dp_cp"),
        "shard": mesh.groups("shard"),
        "replicate": mesh.groups("replicate"),
        "tp": mesh.groups("tp"),
        "cp": mesh.groups("cp"),
        "pp": mesh.groups("pp"),
    }
    if scenario.model.experts and scenario.layout.ep * scenario.layout.tp > 1:
        groups.update({"ep": mesh.groups("ep"), "edp": mesh.groups("edp")})
    if scenario.layout.dp_replicate == 1:
        del groups["shard"], groups["replicate"]
    pipelines = groups["pp"]
    home = schedule.rank_of_stage
    for pair in dict.fromkeys(_neighbours(home)):
        groups[f"p2p.{pair[0]}.{pair[1]}"] = pipelines[:, list(pair)]
    if scenario.model.tied_embeddings and home[0] != home[-1]:
        groups["embedding"] = pipelines[:, [home[0], home[-1]]]
    return groups


def _neighbours(home: Sequence[int]) -> list[tuple[int, int]]:
    """(sender, receiver) pipeline ranks of messages, forward and backward."""
    forward = [(a, b) for a, b in pairwise(home) if a != b]
    return forward + [(b, a) for a, b in forward]


def _recomputed(cut: Sequence[tuple[Unit, ...]]) -> float:
    """FLOPs that one microbatch does again on one pipeline (of one tensor-parallel rank), in GEMMs and attention."""
    items = (item for units in cut for unit in units for item in unit.recompute)
    return sum(k.flops for k in items if isinstance(k, Kernel) and k.kind in ("gemm", "attention"))
