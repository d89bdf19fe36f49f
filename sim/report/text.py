"""What ``stepline run`` prints. Formats a ``Result``; computes nothing; works without a terminal and at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from sim.analysis.result import Comparison, MemoryUse, Result, TransferUse
from sim.figures import FIGURES
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
    "nvlink.to": "a link between two GPUs",
    "nvlink.bridge": "what joins two boards of GPUs",
    "leaf.up": "the uplinks of leaves, towards the spine",
    "leaf.down": "the uplinks of leaves, from the spine",
    "core.up": "the ways of pods to the core",
    "core.down": "the ways of the core to pods",
    "grid.next": "the grid's links",
    "grid.back": "the grid's links",
    "grid.out": "the grid's ports",
    "grid.in": "the grid's ports",
    "grid.to": "the grid's links",
    "nvme.read": "the drives, reading",
    "nvme.write": "the drives, writing",
    "nvme.busy": "the drives, reading and writing",
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


def headline_parts(result: Result) -> tuple[str, str, str]:
    """The figures, the memory with its verdict (empty without any), and what binds: one sentence each."""
    figures = (
        f"step {quantity(result.step_time, 'seconds')}, {result.tokens_per_s_per_gpu:,.1f} tokens/s per GPU, "
        f"MFU {result.mfu:.1%}, HFU {result.hfu:.1%}"
    )
    return figures, fit_sentence(result), f"bound by {bound_sentence(result)}"


def fit_sentence(result: Result) -> str:
    """Peak against capacity, for the GPU and where anything lives there for the host, with the verdict."""
    uses = [use for use in (largest(result, where) for where in PLACES) if use is not None]
    shown = [use for use in uses if use.where == "gpu" or not use.fits]
    return ", ".join(
        f"peak {PLACES[use.where]} {quantity(use.peak, 'bytes')} of "
        f"{quantity(use.capacity, 'bytes')} ({'fits' if use.fits else 'DOES NOT FIT'})"
        for use in shown
    )


def headline(result: Result) -> str:
    """Three short lines: the figures, the memory, and what binds."""
    figures, *rest = headline_parts(result)
    return "\n".join(part for part in (f"{result.scenario}: {figures}", *rest) if part)


def show(console: Console, result: Result) -> None:
    """Everything worth reading of a step. Uses no letter that the console's encoding may lack."""
    console.print(headline(result))
    console.print(breakdown_table(result, bar="█" if console.encoding.lower().startswith("utf") else "#"))
    phases = ", ".join(f"{name} {quantity(seconds, 'seconds')}" for name, seconds in result.phases.items())
    console.print(f"as a log would time it: {phases}")
    for use in (largest(result, "gpu"), largest(result, "host")):
        if use is not None:
            console.print(memory_table(use))
    if result.transfers:
        console.print(transfers_table(result))
    show_published(console, result.published)
    ranks = "1 rank" if result.ranks == 1 else f"{result.ranks} ranks as {result.rank_classes} class(es)"
    if result.placement != "packed":
        console.print(f"devices of the ranks: {result.placement}", highlight=False)
    console.print(f"{ranks}, {result.ops:,} ops, {result.events:,} events in {result.wall:.2f} s")


def breakdown_table(result: Result, *, bar: str = "█") -> Table:
    """Categories by seconds, largest first, with a ``bar`` as long as their share; they sum to the step."""
    table = plain_table("where the time goes", ("seconds", "share"), "")
    for category, seconds in sorted(result.breakdown.items(), key=lambda item: (-item[1], item[0])):
        share = seconds / result.step_time
        if share >= 0.0005:
            table.add_row(label(category), f"{seconds:.4g}", f"{share:.1%}", bar * round(share * 30))
    table.add_row("step", f"{result.step_time:.4g}", "100.0%", "")
    return table


def memory_table(use: MemoryUse) -> Table:
    """Owners at the peak with their share of the capacity, largest first, and the verdict."""
    place = PLACES[use.where] if use.where == "gpu" else f"{PLACES[use.where]}, per rank,"
    table = plain_table(f"{place} at its peak", ("bytes", "share"))
    for owner, size in use.at_peak.items():
        if size >= 0.002 * use.peak:
            table.add_row(owner, quantity(size, "bytes"), f"{size / use.capacity:.1%}")
    verdict = "fits" if use.fits else "DOES NOT FIT"
    table.add_row(f"peak, {verdict}", quantity(use.peak, "bytes"), f"{use.peak / use.capacity:.1%}")
    table.add_row("capacity", quantity(use.capacity, "bytes"), "100.0%")
    return table


def show_published(console: Console, published: Sequence[Comparison]) -> None:
    """What sources say beside what is simulated; nothing where the scenario quotes nobody."""
    if not published:
        return
    table = plain_table("published", ("figure", "ours", "difference"), "source")
    for one in published:
        said = figure_text(one.figure, one.low)
        said += f" to {figure_text(one.figure, one.high)}" if one.high != one.low else ""
        source = f"{one.source}; {one.note}" if one.note else one.source
        table.add_row(
            FIGURES[one.figure].says, said, figure_text(one.figure, one.ours), f"{one.difference:+z.1%}", source
        )
    console.print(table)


def figure_text(name: str, value: float) -> str:
    """A named figure as it is written: a percentage, a count or a quantity."""
    kind = FIGURES[name].kind
    if kind == "fraction":
        return f"{value:.1%}"
    if kind == "count":
        return f"{value:,.0f}" if value < 1e7 else f"{value:.5g}"
    return quantity(value, kind)


def transfers_table(result: Result) -> Table:
    """What each kind of transfer moved, the rate it would have alone and the one it reached, and its exposed time."""
    table = plain_table("a rank sends", ("bytes", "times", "alone", "reached", "exposed"), "bound by")
    for use in result.transfers:
        table.add_row(
            label(use.category).replace(" communication", ""),
            quantity(use.bytes, "bytes"),
            f"{use.count:,.0f}",
            quantity(use.alone, "bytes_per_s"),
            quantity(use.achieved, "bytes_per_s"),
            quantity(use.exposed, "seconds"),
            held_by(use),
        )
    return table


def held_by(use: TransferUse) -> str:
    """The resource that holds a transfer, and who else is on it."""
    name = use.bound_by.split(".", maxsplit=1)[-1]
    others = [f"{use.ranks:.0f} ranks"] if use.ranks > 1 else []
    others += [label(category) for category in list(use.shared_with)[:1]]
    return f"{name}, shared: {', '.join(others)}" if others else name


def plain_table(first: str, numbers: tuple[str, ...], *last: str) -> Table:
    """A table of words, numbers (kept whole, to the right), words. Long words are folded, never cut."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True, overflow="fold")
    for name in last:
        table.add_column(name, overflow="fold")
    return table


PLACES = {"gpu": "GPU memory", "host": "host memory", "nvme": "drive space"}

_REMEDIES = {
    "parameters": "shard them (layout.zero: 3) over more GPUs",
    "parameters.gathered": "gather fewer layers ahead (layout.prefetch)",
    "gradients": "shard them (layout.zero: 2) or keep them on the CPU (offload)",
    "gradients.shard": "use more data-parallel ranks, or keep them on the CPU (offload)",
    "optimizer states": "shard them (layout.zero: 1) or keep them on the CPU (offload: cpu)",
    "activations": "use a smaller batch.micro, a shorter batch.sequence or more recompute (up to recompute: full)",
}


def show_remedies(console: Console, result: Result) -> None:
    """What does not fit, who holds most of it, and what would make it smaller: of the rank that is worst off."""
    for where, place in PLACES.items():
        use = largest(result, where)
        if use is None or use.fits:
            continue
        over = quantity(use.peak - use.capacity, "bytes")
        kinds = sum(other.where == where for other in result.memory)
        others = sum(other.where == where and not other.fits for other in result.memory)
        who = f" ({others} of {kinds} kinds of rank do not fit; this is the worst)" if kinds > 1 else ""
        console.print(f"does not fit: {over} too much {place}{who}. Largest owners and what would lower them:")
        for owner in list(use.at_peak)[:3]:
            console.print(f"  {owner} ({quantity(use.at_peak[owner], 'bytes')}): {remedy(owner, use.where)}")


def remedy(owner: str, where: str) -> str:
    """What would lower the bytes of an owner in a place."""
    if where == "nvme":
        return "use larger drives, or shard over more data-parallel ranks on more hosts"
    if where == "host":
        if owner == "optimizer states":
            return "keep them on drives (offload.optimizer: nvme), or shard over more ranks on more hosts"
        return "use a host with more memory, or shard over more data-parallel ranks on more hosts"
    return _REMEDIES.get(owner) or _REMEDIES.get(owner.split(".", maxsplit=1)[0]) or "choose a GPU with more memory"
