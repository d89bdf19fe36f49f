"""Rules that span keys: a table of small named functions.

Owns what must agree between blocks that are each valid alone. A check names the blocks it reads and is skipped when one
of them is not valid; it yields (key path, what is wrong, the rule, the remedy). Knows no file and no position.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.spec import cluster_checks, expert_checks, layout_checks, offload_checks, published
from sim.spec.build import batch_sizes
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


# -- layout


def _zero_knobs(d: Draft) -> Iterator[Finding]:
    zero = d.layout.zero
    for key in ("prefetch", "reshard_after_forward", "live_parameters", "persistence_threshold"):
        if zero != 3 and getattr(d.layout, key) is not None:
            yield f"layout.{key}", f"has no effect with zero: {zero}; leave it out, or set zero: 3"
    for key in ("gather_bucket", "overlap_param_gather"):
        if zero not in (1, 2) and getattr(d.layout, key) is not None:
            why = "parameters are gathered layer by layer" if zero == 3 else "every rank updates all parameters"
            yield f"layout.{key}", f"has no effect with zero: {zero} ({why}); leave it out, or set zero: 1 or 2"


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


CHECKS = (
    *layout_checks.CHECKS,
    *cluster_checks.CHECKS,
    *expert_checks.CHECKS,
    *published.CHECKS,
    Check("heads divide", ("model",), _head_shapes),
    Check("position table", ("model",), _position_table),
    Check("sequence fits the model", ("model", "batch"), _sequence_fits),
    Check("knobs of ZeRO stages", ("layout",), _zero_knobs),
    Check("batch sizes agree", ("batch", "layout"), _batch),
    Check("gradient types known", ("precision", "stack"), _gradient_types),
    Check("master weights", ("precision",), _master),
    *offload_checks.CHECKS,
)
"""Every rule, in the order of a scenario's blocks."""
