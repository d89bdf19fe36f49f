"""WHAT must happen: from a scenario to the program of every rank.

Strings the room together: stages of the model, the pipeline schedule, the program of each pipeline rank, the process
groups. Knows what is moved and computed, never how fast. Each capability sits in its own module (``gather``: ZeRO-3;
``grads``: reduction and gradient offload; ``pipeline``: an action's block; ``step_end``: optimizer and ZeRO-Offload).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from sim.mesh import Mesh, Ranks
from sim.spec.types import DTYPE_BYTES, ModelSpec, Scenario
from sim.workload import residency
from sim.workload.model import model_flops_per_token
from sim.workload.ops import Action, Kernel, RankProgram, Workload
from sim.workload.pipeline import PipelineRank
from sim.workload.schedules.csv_text import ReadSchedule
from sim.workload.schedules.own import own_schedule
from sim.workload.schedules.paired import paired
from sim.workload.schedules.table import make
from sim.workload.schedules.types import Schedule
from sim.workload.shares import Share
from sim.workload.step_end import delayed_block, optimizer_block
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
    """The pipeline schedule of a scenario. Raises as ``read_schedule``."""
    return read_schedule(scenario).schedule


def read_schedule(scenario: Scenario) -> ReadSchedule:
    """The pipeline schedule: by name, or the user's own; with one rank, one microbatch after the other.

    Raises:
        ScenarioError: the user's schedule cannot be read, is unsound, or is for another layout or batch.
    """
    layout = scenario.layout
    if layout.schedule_file is not None:
        return own_schedule(scenario, layout.schedule_file)
    name = layout.schedule if layout.pp > 1 else "1f1b"
    made = make(name, layout.pp, scenario.batch.accumulation, layout.virtual_stages)
    if layout.expert_overlap:
        made = paired(made)
    return ReadSchedule(schedule=made, dropped=0)


def build(scenario: Scenario) -> Workload:
    """The whole step. Ranks with the same pipeline coordinate run the same program."""
    schedule = schedule_of(scenario)
    scenario = _told(scenario, schedule)
    mesh, cut = mesh_of(scenario), stages(scenario, apart=_ends_apart(schedule))
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


def _told(scenario: Scenario, schedule: Schedule) -> Scenario:
    """The scenario, told how many copies of the parameters the user's own schedule has: only its text says so."""
    file = scenario.layout.schedule_file
    if file is None or file.copies == schedule.copies:
        return scenario
    layout = replace(scenario.layout, schedule_file=replace(file, copies=schedule.copies))
    return replace(scenario, layout=layout)


def _program(scenario: Scenario, schedule: Schedule, cut: Sequence[tuple[Unit, ...]], rank: int) -> RankProgram:
    builder = PipelineRank(scenario, schedule, cut, rank)
    builder.build()
    mine = [unit for stage in schedule.holds(rank) for unit in cut[stage]]
    held = Share.of(mine)
    shared = _tied_bytes(scenario, schedule) if any(unit.root for unit in mine) else 0.0
    blocks = [*builder.blocks, optimizer_block(scenario, held, shared_embedding=shared)]
    actions = [*builder.actions, Action(block=len(blocks) - 1, microbatch=max(scenario.batch.accumulation - 1, 0))]
    if scenario.offload.update == "delayed":
        blocks.append(delayed_block(scenario, held))
        actions.insert(0, Action(block=len(blocks) - 1, microbatch=0))
    return RankProgram(
        name=f"pipeline rank {rank}" if scenario.layout.pp > 1 else "every rank",
        blocks=tuple(blocks),
        actions=tuple(actions),
        resident_gpu=residency.on_gpu(scenario, held),
        resident_host=residency.on_host(scenario, held),
        resident_nvme=residency.on_drives(scenario, held),
    )


def _tied_bytes(scenario: Scenario, schedule: Schedule) -> float:
    """Gradient bytes of an embedding that two ranks hold; 0 where there is nothing to exchange."""
    if not (_both_ends(scenario.model) and _ends_apart(schedule)):
        return 0.0
    table = scenario.model.vocab * scenario.model.hidden / scenario.layout.tp
    return table * DTYPE_BYTES[scenario.precision.grads]


def _both_ends(model: ModelSpec) -> bool:
    """Whether the token table is needed before the first layer and after the last: as output matrix, or looked up."""
    return model.tied_embeddings or model.mtp_layers > 0


def _ends_apart(schedule: Schedule) -> bool:
    """Whether the first and the last stage are on two ranks, each with a table of its own.

    Schedules that go down and up again end where they began (ZB-V, DualPipeV), and with two copies of the parameters
    both ends are on one rank (DualPipe; DeepSeek-V3 report, section 3.2.1).
    """
    home = schedule.rank_of_stage
    return schedule.copies == 1 and home[0] != home[-1]


def _groups(scenario: Scenario, mesh: Mesh, schedule: Schedule) -> dict[str, Ranks]:
    """Process groups that the programs may name, each axis as an array (groups, members)."""
    groups = {
        "dp": _with_partners(mesh, schedule, mesh.groups("dp_cp")),
        "shard": mesh.groups("shard"),
        "replicate": mesh.groups("replicate"),
        "tp": mesh.groups("tp"),
        "cp": mesh.groups("cp"),
        "pp": mesh.groups("pp"),
    }
    if scenario.model.experts and scenario.layout.ep * scenario.layout.tp > 1:
        groups.update({"ep": mesh.groups("ep"), "edp": _with_partners(mesh, schedule, mesh.groups("edp"))})
    if scenario.layout.dp_replicate == 1:
        del groups["shard"], groups["replicate"]
    pipelines = groups["pp"]
    for pair in dict.fromkeys(_neighbours(schedule)):
        groups[f"p2p.{pair[0]}.{pair[1]}"] = pipelines[:, list(pair)]
    home = schedule.rank_of_stage
    if _both_ends(scenario.model) and _ends_apart(schedule):
        groups["embedding"] = pipelines[:, [home[0], home[-1]]]
    return groups


def _with_partners(mesh: Mesh, schedule: Schedule, rows: Ranks) -> Ranks:
    """Groups of ranks that hold the same parameters of a stage, and so reduce their gradients together.

    With two copies, each with the group of the pipeline rank that holds the same stages of the other direction after
    it: the one at the same place among the groups of its stage.
    """
    if schedule.copies == 1:
        return rows
    stage = mesh.coordinate("pp")[rows[:, 0]]
    of = {rank: rows[stage == rank] for rank in range(schedule.ranks)}
    pairs = [(rank, schedule.partner(rank)) for rank in of if rank < schedule.partner(rank)]
    both = np.concatenate([np.concatenate([of[one], of[other]], axis=1) for one, other in pairs])
    return both[np.argsort(both[:, 0], kind="stable")]


def _neighbours(schedule: Schedule) -> list[tuple[int, int]]:
    """(sender, receiver) pipeline ranks of messages, forward and backward, of each direction."""
    found: list[tuple[int, int]] = []
    for direction in schedule.directions:
        homes = [schedule.home_in(stage, direction) for stage in range(schedule.stages)]
        forward = [(a, b) for a, b in pairwise(homes) if a != b]
        found += forward + [(b, a) for a, b in forward]
    return found


def _recomputed(cut: Sequence[tuple[Unit, ...]]) -> float:
    """FLOPs that one microbatch does again on one pipeline (of one tensor-parallel rank), in GEMMs and attention."""
    items = (item for units in cut for unit in units for item in unit.recompute)
    return sum(k.flops for k in items if isinstance(k, Kernel) and k.kind in ("gemm", "attention"))
