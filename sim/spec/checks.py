"""Rules that span keys: a table of small named functions.

Owns what must agree between blocks that are each valid alone. A check names the blocks it reads and is skipped when one
of them is not valid; it yields (key path, what is wrong, the rule, the remedy). Knows no file and no position.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from sim.spec import expert_checks, layout_checks, offload_checks, published
from sim.spec.build import batch_sizes, fits_of
from sim.spec.rule import Check, Finding
from sim.spec.types import DTYPE_BYTES
from sim.spec.validate import Draft
from sim.spec.wording import choices


def run(draft: Draft) -> list[Finding]:
    """Return what every check finds, those skipped whose blocks are not valid."""
    return [finding for check in CHECKS if draft.has(check.blocks) for finding in check.find(draft)]


# -- model


def _head_shapes(d: Draft) -> Iterator[Finding]:
    m = d.model
    if m.kv_heads is not None and m.heads % m.kv_heads:
        what = f"heads = {m.heads} is not a multiple of kv_heads = {m.kv_heads}; query heads share them evenly"
        yield "model.kv_heads", f"{what}; change one of them"
    if m.attention == "mha" and m.head_dim is None and m.hidden % m.heads:
        what = f"hidden = {m.hidden} is not a multiple of heads = {m.heads}; set head_dim, or change one of them"
        yield "model.heads", what


def _position_table(d: Draft) -> Iterator[Finding]:
    m = d.model
    if m.positions == "learned" and not m.max_positions:
        what = "positions: learned needs the rows of its table; set max_positions, or positions: rotary"
        yield "model.max_positions", what
    if m.positions != "learned" and m.max_positions:
        what = f"positions: {m.positions} has no table, so {m.max_positions} rows would be ignored; leave it out"
        yield "model.max_positions", what


def _sequence_fits(d: Draft) -> Iterator[Finding]:
    m, sequence = d.model, d.batch.sequence
    if m.positions == "learned" and 0 < m.max_positions < sequence:
        yield (
            "batch.sequence",
            (
                f"sequence = {sequence} exceeds the model's max_positions = {m.max_positions}; shorten the sequence, "
                "or raise model.max_positions"
            ),
        )


# -- cluster


def _sockets(d: Draft) -> Iterator[Finding]:
    gpus, sockets = d.cluster.gpus_per_host, d.cluster.host.sockets
    if gpus >= sockets and gpus % sockets:
        yield "cluster.host.sockets", f"{gpus} GPUs do not spread evenly over {sockets} sockets; change one of them"
    if sockets > 1 and not d.cluster.host.socket_link:
        yield "cluster.host.socket_link", f"{sockets} sockets need a link between them; give its rate, one direction"


def _uplinks(d: Draft) -> Iterator[Finding]:
    gpus, link = d.cluster.gpus_per_host, d.cluster.host_link
    if link.gpus_per_uplink > 1 and not link.uplink:
        what = f"{link.gpus_per_uplink} GPUs share an uplink of no rate; set uplink, or gpus_per_uplink: 1"
        yield "cluster.host_link.uplink", what
    if gpus >= link.gpus_per_uplink and gpus % link.gpus_per_uplink:
        what = f"{gpus} GPUs do not spread evenly over uplinks of {link.gpus_per_uplink}; change one of them"
        yield "cluster.host_link.gpus_per_uplink", what


def _duplex(d: Draft) -> Iterator[Finding]:
    link = d.cluster.host_link
    if link.duplex > (link.h2d + link.d2h) * (1 + 1e-9):
        yield "cluster.host_link.duplex", "both directions together exceed h2d + d2h; duplex is their sum at most"
    if link.pageable > max(link.h2d, link.d2h):
        yield "cluster.host_link.pageable", "exceeds the rate of pinned memory (h2d, d2h); it can only be lower"


def _nics(d: Draft) -> Iterator[Finding]:
    gpus, nics = d.cluster.gpus_per_host, d.cluster.nics
    if nics is None:
        if d.cluster.nodes > 1:
            what = f"{d.cluster.nodes} nodes have no network between them; give nics, or set nodes: 1"
            yield "cluster.nics", what
    elif gpus % nics.count and nics.count % gpus:
        yield "cluster.nics.count", f"{nics.count} adapters and {gpus} GPUs do not divide evenly; change one of them"


# -- layout


def _world(d: Draft) -> Iterator[Finding]:
    c, sizes = d.cluster, {axis: getattr(d.layout, axis) for axis in ("tp", "cp", "pp", "dp")}
    world = prod(sizes.values())
    used = {axis: size for axis, size in sizes.items() if size > 1 or axis == "dp"}
    said = " * ".join(used) + (f" = {' * '.join(map(str, used.values()))}" if len(used) > 1 else "") + f" = {world}"
    if world > c.nodes * c.gpus_per_host:
        gpus = f'cluster "{c.name}" has {c.nodes} x {c.gpus_per_host} = {c.nodes * c.gpus_per_host} GPUs'
        yield "layout.dp", f"{said} ranks, but {gpus}; lower {choices(used)}, or raise cluster.nodes"
    elif c.nodes > 1 and world % c.gpus_per_host:
        rule = f'ranks fill whole nodes of {c.gpus_per_host} GPUs when cluster "{c.name}" has {c.nodes} nodes'
        yield "layout.dp", f"{said}: {rule}; use a multiple of {c.gpus_per_host}, or set cluster.nodes: 1"


def _zero_knobs(d: Draft) -> Iterator[Finding]:
    zero = d.layout.zero
    for key in ("prefetch", "reshard_after_forward", "live_parameters", "persistence_threshold"):
        if zero != 3 and getattr(d.layout, key) is not None:
            yield f"layout.{key}", f"has no effect with zero: {zero}; leave it out, or set zero: 3"
    if zero not in (1, 2) and d.layout.gather_bucket is not None:
        why = "parameters are gathered layer by layer" if zero == 3 else "every rank updates all parameters"
        yield "layout.gather_bucket", f"has no effect with zero: {zero} ({why}); leave it out, or set zero: 1 or 2"


# -- batch


def _batch(d: Draft) -> Iterator[Finding]:
    b, dp = d.batch, d.layout.dp
    given = {key: getattr(b, key) for key in ("size", "micro", "accumulation") if getattr(b, key) is not None}
    if len(given) < 2:
        held = f"only {choices(given)} is given" if given else "none is given"
        yield "batch", f"two of size, micro and accumulation are needed and {held}; the third is derived"
        return
    sizes = batch_sizes(b, dp)
    if sizes["size"] == sizes["micro"] * sizes["accumulation"] * dp:
        return
    said = ", ".join(f"{key} = {size}" for key, size in given.items())
    rule = f"size = micro * accumulation * dp with dp = {dp}"
    if len(given) == 3:
        product = f"{b.micro} * {b.accumulation} * {dp} = {sizes['micro'] * sizes['accumulation'] * dp}"
        yield "batch.size", f"{rule} gives {product}, not {b.size}; leave one of the three out, or set it to null"
    else:
        divisor = (b.micro or b.accumulation or 1) * dp
        yield "batch.size", f"{said} do not fit {rule}; make size a multiple of {divisor}"


# -- precision


def _computes(d: Draft) -> Iterator[Finding]:
    compute, device = d.precision.compute, d.cluster.device
    known = [dtype for dtype in fits_of(device.gemm) if dtype in DTYPE_BYTES]
    if compute not in known:
        what = f'device "{device.name}" has no fitted GEMM speed in {compute}; use {choices(known)}, or add one'
        yield "precision.compute", what


def _gradient_types(d: Draft) -> Iterator[Finding]:
    compute, stack = d.precision.compute, d.stack
    for key, given, table in (
        ("grads", d.precision.grads, stack.grads.table()),
        ("grad_comm", d.precision.grad_comm, stack.grad_comm.table()),
    ):
        if given is None and compute not in table:
            what = f'stack "{stack.name}" does not say its {key} for {compute}'
            yield f"precision.{key}", f"{what}; set precision.{key} or stack.{key}.{compute}"


def _master(d: Draft) -> Iterator[Finding]:
    p = d.precision
    if p.master and DTYPE_BYTES[p.compute] == 4:
        what = f"{p.compute} weights are stored in fp32 already; leave master out, or set it to false"
        yield "precision.master", what


# -- stack


def _attention(d: Draft) -> Iterator[Finding]:
    kernel, m, device = d.stack.attention, d.model, d.cluster.device
    latent = m.attention == "mla"
    if kernel == "math" or (not latent and m.head_dim is None and m.hidden % m.heads):
        return
    head_dim = m.nope_head_dim + m.rope_head_dim if latent else m.head_dim or m.hidden // m.heads
    causal = m.kind == "decoder"
    fits = device.flash.flash2 if kernel == "flash2" else device.flash.flash3
    if any(fit.head_dim >= head_dim and fit.causal == causal for fit in fits):  # smaller heads are padded up
        return
    mask = "causal" if causal else "full"
    known = choices(f"{fit.head_dim} {'causal' if fit.causal else 'full'}" for fit in fits)
    yield (
        "stack.attention",
        (
            f'device "{device.name}" has no {kernel} fit for head_dim {head_dim} or more, {mask} attention; '
            f"it has: {known}; "
            f"set stack.attention: math, or add the fit to device.flash.{kernel}"
        ),
    )


def _one_fit_each(d: Draft) -> Iterator[Finding]:
    for kernel, fits in d.cluster.device.flash:
        seen: dict[tuple[int, bool], int] = {}
        for index, fit in enumerate(fits):
            first = seen.setdefault((fit.head_dim, fit.causal), index)
            if first != index:
                key = f"cluster.device.flash.{kernel}.{index}"
                yield key, f"same head_dim and mask as entry {first}; keep one of them"


CHECKS = (
    *layout_checks.CHECKS,
    *expert_checks.CHECKS,
    *published.CHECKS,
    Check("heads divide", ("model",), _head_shapes),
    Check("position table", ("model",), _position_table),
    Check("sequence fits the model", ("model", "batch"), _sequence_fits),
    Check("GPUs spread over sockets", ("cluster",), _sockets),
    Check("GPUs spread over uplinks", ("cluster",), _uplinks),
    Check("link rates agree", ("cluster",), _duplex),
    Check("nodes are connected", ("cluster",), _nics),
    Check("one attention fit each", ("cluster",), _one_fit_each),
    Check("ranks fit the cluster", ("layout", "cluster"), _world),
    Check("knobs of ZeRO stages", ("layout",), _zero_knobs),
    Check("batch sizes agree", ("batch", "layout"), _batch),
    Check("device computes the type", ("precision", "cluster"), _computes),
    Check("gradient types known", ("precision", "stack"), _gradient_types),
    Check("master weights", ("precision",), _master),
    *offload_checks.CHECKS,
    Check("attention kernel fits", ("stack", "model", "cluster"), _attention),
)
"""Every rule, in the order of a scenario's blocks."""
