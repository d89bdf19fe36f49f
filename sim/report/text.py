"""What ``stepline run`` prints. Formats a ``Result``; computes nothing; works without a terminal and at 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from sim.analysis.result import MemoryUse, Result
from sim.report.result_json import largest
from sim.report.theme import label
from sim.units import format as quantity

BOUND = {
    "sm": "GPU arithmetic",
    "hbm": "GPU memory bandwidth",
    "dram": "host DRAM bandwidth",
    "cores": "CPU cores (optimizer on the host)",
    "pcie.h2d": "the link from host to GPU",
    "pcie.d2h": "the link from GPU to host",
    "pcie.duplex": "the host link, both ways at once",
    "uplink.in": "the switch uplink that GPUs share, towards the GPU",
    "uplink.out": "the switch uplink that GPUs share, towards the host",
    "nvlink.tx": "NVLink",
    "nvlink.rx": "NVLink",
    "nic.tx": "the network adapters",
    "nic.rx": "the network adapters",
    "socket_link": "the link between CPU sockets",
    "host launch": "kernel launches on the host",
    "latency": "latency of collectives and copies",
    "waiting for peers": "waiting for other ranks",
}
"""Kind of resource, or cause, on the critical path -> words."""


def bound_sentence(result: Result) -> str:
    """What the step is bound by, with its share of the critical path, and the runner-up."""
    ranked = list(result.bound_by.items())
    if not ranked:
        return "nothing"
    parts = [f"{BOUND.get(reason, reason)} ({share:.0%})" for reason, share in ranked[:2] if share >= 0.05]
    return ", then ".join(parts or [BOUND.get(ranked[0][0], ranked[0][0])])


def headline(result: Result) -> str:
    """Two lines: the figures, and what binds."""
    gpu = largest(result, "gpu")
    memory = f"peak {quantity(gpu.peak, 'bytes')} of {quantity(gpu.capacity, 'bytes')}" if gpu else ""
    return (
        f"{result.scenario}: step {quantity(result.step_time, 'seconds')}, "
        f"{result.tokens_per_s_per_gpu:,.1f} tokens/s per GPU, MFU {result.mfu:.1%}, HFU {result.hfu:.1%}, {memory}\n"
        f"bound by {bound_sentence(result)}"
    )


def show(console: Console, result: Result) -> None:
    """Everything worth reading of a step."""
    console.print(headline(result))
    console.print(_breakdown(result))
    phases = ", ".join(f"{name} {quantity(seconds, 'seconds')}" for name, seconds in result.phases.items())
    console.print(f"as a log would time it: {phases}")
    for use in (largest(result, "gpu"), largest(result, "host")):
        if use is not None:
            console.print(_memory(use))
    if result.transfers:
        console.print(_transfers(result))
    ranks = "1 rank" if result.ranks == 1 else f"{result.ranks} ranks as {result.rank_classes} class(es)"
    console.print(f"{ranks}, {result.ops:,} ops, {result.events:,} events in {result.wall:.2f} s")


def _breakdown(result: Result) -> Table:
    table = Table("where the time goes", "seconds", "share", "", box=box.SIMPLE, pad_edge=False)
    for column in (1, 2):
        table.columns[column].justify = "right"
    for category, seconds in sorted(result.breakdown.items(), key=lambda item: (-item[1], item[0])):
        share = seconds / result.step_time
        if share >= 0.0005:
            table.add_row(label(category), f"{seconds:.4g}", f"{share:.1%}", "█" * round(share * 30))
    table.add_row("step", f"{result.step_time:.4g}", "100.0%", "")
    return table


def _memory(use: MemoryUse) -> Table:
    place = "GPU memory" if use.where == "gpu" else "host memory, per rank"
    table = Table(f"{place} at its peak", "bytes", "share", box=box.SIMPLE, pad_edge=False)
    for column in (1, 2):
        table.columns[column].justify = "right"
    for owner, size in use.at_peak.items():
        if size >= 0.002 * use.peak:
            table.add_row(owner, quantity(size, "bytes"), f"{size / use.capacity:.1%}")
    verdict = "fits" if use.fits else "DOES NOT FIT"
    table.add_row(f"peak, {verdict}", quantity(use.peak, "bytes"), f"{use.peak / use.capacity:.1%}")
    table.add_row("capacity", quantity(use.capacity, "bytes"), "100.0%")
    return table


def _transfers(result: Result) -> Table:
    columns = ("transfers, per rank", "bytes", "alone", "reached", "busy", "exposed", "bound by")
    table = Table(*columns, box=box.SIMPLE, pad_edge=False)
    for use in result.transfers:
        table.add_row(
            label(use.category),
            quantity(use.bytes, "bytes"),
            quantity(use.alone, "bytes_per_s"),
            quantity(use.achieved, "bytes_per_s"),
            quantity(use.busy, "seconds"),
            quantity(use.exposed, "seconds"),
            use.bound_by,
        )
    return table


_REMEDIES = {
    "parameters": "shard them (layout.zero: 3) over more GPUs",
    "parameters.gathered": "gather fewer layers ahead (layout.prefetch)",
    "gradients": "shard them (layout.zero: 2) or keep them on the CPU (offload)",
    "gradients.shard": "use more data-parallel ranks, or keep them on the CPU (offload)",
    "optimizer states": "shard them (layout.zero: 1) or keep them on the CPU (offload: cpu)",
    "activations": "use a smaller batch.micro, a shorter batch.sequence or recompute: full",
}


def show_remedies(console: Console, result: Result) -> None:
    """What does not fit, who holds most of it, and what would make it smaller."""
    for use in result.memory:
        if use.fits:
            continue
        place = "GPU" if use.where == "gpu" else "host"
        over = quantity(use.peak - use.capacity, "bytes")
        console.print(f"does not fit: {over} too much {place} memory. Largest owners and what would lower them:")
        for owner in list(use.at_peak)[:3]:
            console.print(f"  {owner} ({quantity(use.at_peak[owner], 'bytes')}): {_remedy(owner, use.where)}")


def _remedy(owner: str, where: str) -> str:
    if where == "host":
        return "use a host with more memory, or shard over more data-parallel ranks on more hosts"
    return _REMEDIES.get(owner) or _REMEDIES.get(owner.split(".", maxsplit=1)[0]) or "choose a GPU with more memory"
