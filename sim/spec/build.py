"""From valid blocks to the frozen ``Scenario``: what was left out is derived, and nothing is checked.

Owns each derived default: batch sizes, head shapes, gradient types and buckets from the stack. ``checks`` has passed
before any of this runs. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sim.spec import placement, types
from sim.spec.blocks import (
    BatchFile,
    ClusterFile,
    DeviceFile,
    FlashFile,
    GemmTable,
    ModelFile,
    PrecisionFile,
    PublishedFile,
    StackFile,
)
from sim.spec.network_blocks import FabricFile, VariationFile
from sim.spec.published import read_figure
from sim.spec.quantities import EVERY
from sim.spec.validate import Draft


def build(draft: Draft, schedule: types.ScheduleFile | None = None) -> types.Scenario:
    """Return the scenario of a draft whose blocks are all valid and agree, with the schedule file that it names."""
    return types.Scenario(
        name=draft.name,
        description=" ".join(draft.blocks["description"].split()),
        model=_model(draft.model),
        cluster=_cluster(draft.cluster),
        layout=_layout(draft, schedule),
        batch=types.BatchSpec(**batch_sizes(draft.batch, draft.layout.dp), sequence=draft.batch.sequence),
        precision=_precision(draft.precision, draft.stack),
        recompute=draft.blocks["recompute"],
        recompute_modules=tuple(draft.blocks["recompute_modules"] or ()),
        recompute_layers=-1 if draft.blocks["recompute_layers"] is None else draft.blocks["recompute_layers"],
        offload=types.OffloadSpec(**{key: value for key, value in draft.offload if value is not None}),
        published=tuple(_published(p) for p in draft.blocks["published"] or ()),
        stack=_stack(draft.stack),
    )


def batch_sizes(batch: BatchFile, dp: int) -> dict[str, int]:
    """Return size, micro and accumulation, whichever one is left out derived from size = micro * accumulation * dp."""
    size, micro, accumulation = batch.size, batch.micro, batch.accumulation
    if micro is None:
        micro = (size or 0) // ((accumulation or 1) * dp)
    if accumulation is None:
        accumulation = (size or 0) // (micro * dp) if micro else 0
    return {"size": micro * accumulation * dp if size is None else size, "micro": micro, "accumulation": accumulation}


def fits_of(gemm: GemmTable) -> dict[str, types.GemmFit]:
    """Return the dtypes that have a fit, in the table's order."""
    return {dtype: types.GemmFit(**dict(fit)) for dtype, fit in gemm if fit is not None}


def has_master(precision: PrecisionFile) -> bool:
    """Tell whether fp32 master weights are kept: by default when the weights themselves have 16 bits."""
    return types.DTYPE_BYTES[precision.compute] == 2 if precision.master is None else precision.master


def _published(said: PublishedFile) -> types.PublishedSpec:
    value, to = read_figure(said.figure, said.value), 0.0 if said.to is None else read_figure(said.figure, said.to)
    return types.PublishedSpec(figure=said.figure, value=value, to=to, by=said.by, note=said.note)


def _model(model: ModelFile) -> types.ModelSpec:
    wide = model.nope_head_dim + model.rope_head_dim if model.attention == "mla" else model.hidden // model.heads
    derived = {
        "kv_heads": model.kv_heads or model.heads,
        "head_dim": model.head_dim or wide,
        "ffn": model.ffn or 4 * model.hidden,
    }
    return types.ModelSpec(**{**dict(model), **derived})


def _cluster(cluster: ClusterFile) -> types.ClusterSpec:
    keys: dict[str, Any] = dict(cluster)
    keys["device"] = _device(cluster.device)
    keys["host"] = types.HostSpec(**dict(cluster.host))
    keys["host_link"] = types.HostLinkSpec(**dict(cluster.host_link))
    keys["nvlink"] = types.NvlinkSpec(**dict(cluster.nvlink)) if cluster.nvlink else None
    keys["nics"] = types.NicSpec(**dict(cluster.nics)) if cluster.nics else None
    keys["nvme"] = types.NvmeSpec(**dict(cluster.nvme)) if cluster.nvme else None
    keys["fabric"] = _fabric(cluster.fabric) if cluster.fabric else None
    keys["collectives"] = types.CollectivesSpec(**dict(cluster.collectives or {}))
    groups = cluster.others or ()
    keys["variations"] = tuple(one for v in cluster.variations or () for one in _variation(v, cluster))
    keys["others"] = tuple(types.NodeGroupSpec(count=group.count, node=_cluster(group.node)) for group in groups)
    return types.ClusterSpec(**keys)


def _variation(said: VariationFile, cluster: ClusterFile) -> Iterator[types.VariationSpec]:
    """One, or one for each node (leaf, pod) that it speaks of."""
    nodes = cluster.nodes + sum(group.count for group in cluster.others or ())
    if said.part in ("uplink", "core") and cluster.fabric is not None:
        nodes = leaves_of(nodes, cluster.fabric) if said.part == "uplink" else pods_of(nodes, cluster.fabric)
    for node in range(nodes) if said.node == EVERY else (said.node,):
        yield types.VariationSpec(**{**dict(said), "node": node})


def leaves_of(nodes: int, fabric: FabricFile) -> int:
    """Leaves that hold so many nodes."""
    return -(-nodes // fabric.nodes_per_leaf)


def pods_of(nodes: int, fabric: FabricFile) -> int:
    """Pods that hold so many nodes."""
    return -(-leaves_of(nodes, fabric) // fabric.leaves_per_pod)


def _fabric(fabric: FabricFile) -> types.FabricSpec:
    grid = tuple(types.DimensionSpec(**dict(dimension)) for dimension in fabric.dimensions or ())
    return types.FabricSpec(**{**dict(fabric), "dimensions": grid})


def _device(device: DeviceFile) -> types.DeviceSpec:
    keys: dict[str, Any] = dict(device)
    keys["gemm"] = fits_of(device.gemm)
    keys["grouped"] = fits_of(device.grouped)
    keys["flash"] = {kernel: tuple(_flash(f) for f in fits) for kernel, fits in device.flash if fits}
    keys["gemm_alignment"] = int(device.gemm_alignment)
    return types.DeviceSpec(**keys)


def _flash(fit: FlashFile) -> types.FlashFit:
    return types.FlashFit(**{key: value for key, value in fit if value is not None})


def _layout(draft: Draft, schedule: types.ScheduleFile | None) -> types.LayoutSpec:
    """Fill what the user left to the stack."""
    keys: dict[str, Any] = {**dict(draft.layout), "placement": placement.flat(draft.layout.placement)}
    keys["schedule_file"] = schedule
    for key in ("grad_bucket", "gather_bucket", "overlap_grad_reduce", "prefetch"):
        if keys[key] is None:
            keys[key] = getattr(draft.stack, key)
    if keys["scatter_gather"] is None and draft.layout.tp > 1 and draft.layout.pp > 1:
        keys["scatter_gather"] = draft.stack.scatter_gather and not draft.layout.sequence_parallel
    return types.LayoutSpec(**{key: value for key, value in keys.items() if value is not None})


def _precision(precision: PrecisionFile, stack: StackFile) -> types.PrecisionSpec:
    return types.PrecisionSpec(
        compute=precision.compute,
        grads=precision.grads or stack.grads.table()[precision.compute],
        grad_comm=precision.grad_comm or stack.grad_comm.table()[precision.compute],
        master=has_master(precision),
        fp8=precision.fp8,
        fp8_dispatch=precision.fp8_dispatch,
    )


def _stack(stack: StackFile) -> types.StackSpec:
    keys = {**dict(stack), "grads": stack.grads.table(), "grad_comm": stack.grad_comm.table()}
    return types.StackSpec(**keys)
