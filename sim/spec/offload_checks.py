"""Rules of offload: what goes together, what each policy needs, and what would be ignored.

Owns the checks of the ``offload`` block; ``checks`` runs them with the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.spec.build import batch_sizes
from sim.spec.rule import Check, Finding
from sim.spec.validate import Draft

_OF_THE_OPTIMIZER = ("ratio", "update", "accumulate", "casts", "sub_group", "buffers", "threads")


def _pairs(d: Draft) -> Iterator[Finding]:
    o = d.offload
    if o.gradients == "cpu" and o.optimizer == "none":
        what = "gradients: cpu with the optimizer on the GPU would send them there and back"
        yield "offload.gradients", f"{what}; add optimizer: cpu"
    if o.optimizer != "none" and o.gradients == "none":
        what = (
            f"optimizer: {o.optimizer} with gradients on the GPU is not simulated: the host updates from its own copy"
        )
        yield "offload.optimizer", f"{what}; add gradients: cpu"
    if o.parameters != "none" and o.optimizer == "none":
        what = f"parameters: {o.parameters} with the optimizer on the GPU is not simulated: every update would travel"
        yield "offload.parameters", f"{what}; add optimizer: cpu and gradients: cpu"
    if o.optimizer == o.gradients == o.parameters == o.activations == "none" and not o.pinned:
        yield "offload.pinned", "pinned: false has no effect when nothing is offloaded; leave it out"


def _idle(d: Draft) -> Iterator[Finding]:
    o = d.offload
    if o.optimizer == "none":
        for key in _OF_THE_OPTIMIZER:
            if getattr(o, key) is not None:
                yield f"offload.{key}", "has no effect with optimizer: none; leave it out, or set optimizer: cpu"
        return
    if o.optimizer != "nvme" and o.buffers is not None:
        yield "offload.buffers", "has no effect with optimizer: cpu; leave it out, or set optimizer: nvme"
    if o.optimizer == "nvme" and (o.update or "after") != "after":
        what = f"update: {o.update} with optimizer: nvme is not simulated: its states come and go by sub-groups"
        yield "offload.update", f"{what}; set update: after, or optimizer: cpu"
    if o.update == "delayed" and (o.ratio or 1.0) < 1.0:
        what = "delayed updates of a part would leave one model with two ages of parameters"
        yield "offload.ratio", f"{what}; set ratio: 1, or update: after"
    if o.update == "speculative" and o.sub_group is not None:
        what = "has no effect with update: speculative, which goes by gradient buckets (layout.grad_bucket)"
        yield "offload.sub_group", f"{what}; leave it out"


def _zero(d: Draft) -> Iterator[Finding]:
    o, layout = d.offload, d.layout
    if o.optimizer != "none" and layout.zero == 0 and layout.dp * layout.cp > 1:
        what = f"offload with zero: 0 and {layout.dp * layout.cp} copies is not simulated"
        yield "layout.zero", f"{what}: every rank would update all parameters on its CPU; set zero: 1, 2 or 3"
    if o.parameters != "none" and layout.zero != 3:
        what = (
            f"parameters: {o.parameters} moves layer by layer, which is zero: 3 (with dp: 1 as well), not {layout.zero}"
        )
        yield "offload.parameters", f"{what}; set zero: 3, or leave parameters out"
    if o.activations != "none" and layout.pp > 1:
        what = f"activations: cpu with pp: {layout.pp} is not simulated"
        yield "offload.activations", f"{what}; use pp: 1, or recompute: full"
    if o.activations == "none" and o.activation_layers is not None:
        yield "offload.activation_layers", "has no effect with activations: none; leave it out, or set activations: cpu"
    if o.activations != "none" and d.blocks["recompute"] == "selective":
        what = "activations: cpu with recompute: selective is not simulated"
        yield "offload.activations", f"{what}; use full (checkpoints move) or none (everything moves)"


def _threads(d: Draft) -> Iterator[Finding]:
    for host in [node.host for _, node, _ in d.machines]:
        cores = host.cores_per_socket
        if d.offload.threads is not None and d.offload.threads > cores:
            what = f"a socket of {host.name} has {cores} cores, not {d.offload.threads}"
            yield "offload.threads", f"{what}; lower it"


def _accumulation(d: Draft) -> Iterator[Finding]:
    if d.offload.accumulate is not None and batch_sizes(d.batch, d.layout.dp)["accumulation"] == 1:
        yield "offload.accumulate", "has no effect with accumulation: 1; leave it out"


def _drives(d: Draft) -> Iterator[Finding]:
    for key in ("optimizer", "parameters"):
        for where, node, _ in d.machines:
            if getattr(d.offload, key) == "nvme" and node.nvme is None:
                what = f'"{node.name}" has no drives; give {where}.nvme, or offload to the cpu'
                yield f"offload.{key}", what if where != "cluster" else f"cluster {what}"


def _casts(d: Draft) -> Iterator[Finding]:
    if d.offload.casts == "gpu" and d.precision.compute not in ("fp16", "bf16"):
        what = f"casts: gpu has no effect in {d.precision.compute}, which needs none"
        yield "offload.casts", f"{what}; leave it out"


CHECKS = (
    Check("offload pairs", ("offload",), _pairs),
    Check("offload knobs", ("offload",), _idle),
    Check("offload and ZeRO", ("offload", "layout", "recompute"), _zero),
    Check("offloaded accumulation", ("offload", "batch", "layout"), _accumulation),
    Check("threads for offload", ("offload", "cluster"), _threads),
    Check("drives for offload", ("offload", "cluster"), _drives),
    Check("offload casts", ("offload", "precision"), _casts),
)
"""Every rule of offload."""
