"""Rules of the parallel layout: what must divide what, and which knobs need which axis.

Owns the checks of tensor, sequence, context and pipeline parallelism; ``checks`` runs them with the others. A knob
whose axis has size 1 would be ignored, so it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.spec import placement
from sim.spec.build import batch_sizes
from sim.spec.rule import Check, Finding
from sim.spec.validate import Draft

_NEEDS = {
    "sequence_parallel": "tp",
    "tp_overlap": "tp",
    "cp_kind": "cp",
    "schedule": "pp",
    "schedule_file": "pp",
    "virtual_stages": "pp",
    "stage_layers": "pp",
    "p2p_overlap": "pp",
    "scatter_gather": "pp",
}

_VEE = ("zb-v", "dualpipev")  # schedules of two stages a rank: on the way down and on the way up


def _idle_knobs(d: Draft) -> Iterator[Finding]:
    for key, axis in _NEEDS.items():
        if getattr(d.layout, key) is not None and getattr(d.layout, axis) == 1:
            yield f"layout.{key}", f"has no effect with {axis}: 1; leave it out, or raise {axis}"


def _tensor(d: Draft) -> Iterator[Finding]:
    m, tp = d.model, d.layout.tp
    kv = m.kv_heads or m.heads
    for key, size in (("heads", m.heads), ("ffn", m.ffn or 4 * m.hidden)):
        if size % tp:
            yield "layout.tp", f"model.{key} = {size} is not a multiple of tp = {tp}, which splits it; choose a divisor"
    if kv % tp and tp % kv:
        what = f"model.kv_heads = {kv} and tp = {tp}: one must divide the other (heads are split, or each copied)"
        yield "layout.tp", f"{what}; choose another tp"
    if d.layout.scatter_gather and tp == 1:
        yield "layout.scatter_gather", "has no effect with tp: 1; leave it out, or raise tp"
    if d.layout.scatter_gather and d.layout.sequence_parallel:
        what = "each rank already sends its own part of the tokens with sequence_parallel: true"
        yield "layout.scatter_gather", f"{what}; leave one of them out"


def _tokens(d: Draft) -> Iterator[Finding]:
    layout, sequence = d.layout, d.batch.sequence
    parts = layout.cp * (layout.tp if layout.sequence_parallel else 1)
    if sequence % parts:
        who = "cp * tp" if layout.sequence_parallel else "cp"
        yield (
            "batch.sequence",
            f"{sequence} tokens are not a multiple of {who} = {parts}, which splits them; choose a multiple",
        )


def _context(d: Draft) -> Iterator[Finding]:
    if d.layout.cp > 1 and d.stack.attention == "math":
        what = f'stack "{d.stack.name}" writes attention out (math), which keeps whole sequences on a rank'
        yield "layout.cp", f"{what}; use a stack with flash attention, or cp: 1"


def _heads_exchanged(d: Draft) -> Iterator[Finding]:
    layout, model = d.layout, d.model
    if layout.cp == 1 or layout.cp_kind != "all_to_all":
        return
    keys = model.heads if model.attention == "mla" else model.kv_heads or model.heads
    for name, heads in (("heads", model.heads), ("kv_heads", keys)):
        if heads % (layout.tp * layout.cp):
            what = f"all_to_all gives each of tp * cp = {layout.tp * layout.cp} ranks whole heads, of {name} = {heads}"
            yield "layout.cp_kind", f"{what}; lower cp, or set cp_kind: ring"
            return


def _stages(d: Draft) -> Iterator[Finding]:
    layout, layers = d.layout, d.model.layers
    virtual = layout.virtual_stages or 1
    count = layout.pp * virtual
    if layout.stage_layers is None and layers % count:
        what = f"{layers} layers do not divide evenly over pp * virtual_stages = {count} stages"
        yield "layout.pp", f"{what}; give layout.stage_layers, or choose a divisor"
    if layout.stage_layers is not None and layout.pp > 1:
        if len(layout.stage_layers) != count:
            what = f"{len(layout.stage_layers)} entries, but there are pp * virtual_stages = {count} stages"
            yield "layout.stage_layers", f"{what}; give one number a stage"
        elif sum(layout.stage_layers) != layers:
            what = f"adds up to {sum(layout.stage_layers)}, but the model has {layers} layers"
            yield "layout.stage_layers", f"{what}; change one of them"


def _interleaving(d: Draft) -> Iterator[Finding]:
    layout = d.layout
    if layout.pp == 1:
        return
    interleaved = layout.schedule == "interleaved"
    vee = layout.schedule in _VEE
    if interleaved and (layout.virtual_stages or 1) < 2:
        yield "layout.virtual_stages", "schedule: interleaved needs at least 2 stages a rank; set virtual_stages: 2"
    if vee and layout.virtual_stages != 2:
        yield (
            "layout.virtual_stages",
            f"schedule: {layout.schedule} holds 2 stages a rank, one on the way down and one up; set it to 2",
        )
    free = interleaved or vee or layout.schedule_file is not None
    if not free and (layout.virtual_stages or 1) > 1:
        yield "layout.virtual_stages", "needs schedule: interleaved; set it, or virtual_stages: 1"
    accumulation = batch_sizes(d.batch, layout.dp)["accumulation"]
    if interleaved and accumulation % layout.pp:
        what = f"schedule: interleaved sends microbatches in groups of pp = {layout.pp}, not of {accumulation}"
        yield "batch.accumulation", f"{what}; make it a multiple of pp"


def _own_order(d: Draft) -> Iterator[Finding]:
    if d.layout.schedule is not None and d.layout.schedule_file is not None:
        yield "layout.schedule_file", f"there is schedule: {d.layout.schedule} as well; leave one of them out"


def _held_messages(d: Draft) -> Iterator[Finding]:
    """A sender that waits until its message is taken, by a rank that waits likewise: not every order gets past that."""
    layout = d.layout
    named = layout.schedule in ("dualpipe", "dualpipev") or (layout.virtual_stages or 1) > 1
    if layout.p2p_overlap is False and layout.pp > 1 and (named or layout.schedule_file is not None):
        who = f"schedule: {layout.schedule}" if named else "an order of your own"
        what = f"false is not simulated with {who}: ranks that wait for each other to take messages may never go on"
        yield "layout.p2p_overlap", f"{what}; leave it out, or use gpipe, 1f1b or zb-h1"


def _dualpipe(d: Draft) -> Iterator[Finding]:
    """Sizes that the phases of DualPipe need."""
    layout = d.layout
    if layout.schedule not in ("dualpipe", "dualpipev") or layout.pp == 1:
        return
    accumulation, least = batch_sizes(d.batch, layout.dp)["accumulation"], 2 * layout.pp
    if accumulation < least:
        what = f"schedule: {layout.schedule} needs at least 2 * pp = {least} microbatches, not {accumulation}"
        yield "batch.accumulation", f"{what}; set it to {least}, or use zb-v"
    if layout.schedule == "dualpipev":
        return
    if layout.pp % 2:
        what = f"schedule: dualpipe mirrors ranks in pairs, and {layout.pp} is odd"
        yield "layout.pp", f"{what}; set it to {layout.pp + 1}, or use zb-v or dualpipev"
    if accumulation % 2 and accumulation > least:
        what = f"schedule: dualpipe sends half of the microbatches each way, and {accumulation} is odd"
        yield "batch.accumulation", f"{what}; set it to {accumulation + 1}"


def _two_copies(d: Draft) -> Iterator[Finding]:
    """DualPipe's two copies of the parameters reduce their gradients together, once a step."""
    layout = d.layout
    if layout.schedule != "dualpipe" or layout.pp == 1:
        return
    said = "schedule: dualpipe holds the parameters twice and reduces the gradients of both copies once a step; with"
    if layout.zero >= 2:
        yield "layout.zero", f"{said} zero: {layout.zero} it is not simulated; set zero: 1, or use dualpipev"
    if layout.dp_replicate is not None:
        yield "layout.dp_replicate", f"{said} dp_replicate it is not simulated; leave it out, or use dualpipev"
    if d.offload.optimizer != "none":
        yield "offload.optimizer", f"{said} offload it is not simulated; set offload: none, or use dualpipev"


def _replicas(d: Draft) -> Iterator[Finding]:
    layout = d.layout
    copies = layout.dp_replicate
    if copies is None:
        return
    if layout.zero == 0:
        yield "layout.dp_replicate", "has no effect with zero: 0, where every rank is a copy; set zero, or leave it out"
    elif layout.dp * layout.cp % copies:
        what = f"{copies} groups do not divide dp * cp = {layout.dp * layout.cp} ranks"
        yield "layout.dp_replicate", f"{what}; choose a divisor"


def _placement(d: Draft) -> Iterator[Finding]:
    """A list names one device a rank; several faults of one entry are told in one line."""
    layout = d.layout
    if isinstance(layout.placement, str):
        return
    found: dict[str, list[str]] = {}
    ranks = layout.tp * layout.cp * layout.pp * layout.dp
    for index, what in placement.faults(layout.placement, ranks, d.gpus):
        found.setdefault(index, []).append(what)
    for index, whats in found.items():
        yield f"layout.placement.{index}".rstrip("."), "; ".join(whats)


def _order(d: Draft) -> Iterator[Finding]:
    if d.layout.order is not None and sorted(d.layout.order) != ["cp", "dp", "pp", "tp"]:
        yield "layout.order", "must name tp, cp, dp and pp once each, innermost first"


def _recomputed_layers(d: Draft) -> Iterator[Finding]:
    if d.blocks["recompute_layers"] is not None and d.blocks["recompute"] != "full":
        what = f"has no effect with recompute: {d.blocks['recompute']}"
        yield "recompute_layers", f"{what}; set recompute: full, or leave it out"


def _recomputed_modules(d: Draft) -> Iterator[Finding]:
    modules, model = d.blocks["recompute_modules"] or (), d.model
    if modules and d.blocks["recompute"] != "selective":
        what = f"has no effect with recompute: {d.blocks['recompute']}"
        yield "recompute_modules", f"{what}; set recompute: selective, or leave it out"
    lacks = {
        "layernorm": "norms behind its joins, whose output is the residual stream" if model.post_norm else "",
        "mla_up_proj": "" if model.attention == "mla" else "no latent attention (attention: mla)",
        "mlp": "" if not model.experts or model.first_dense_layers else "no layer with a plain MLP, only experts",
        "shared_experts": "" if model.shared_experts else "no shared experts",
        **dict.fromkeys(("moe", "moe_act"), "" if model.experts else "no experts"),
    }
    for index, module in enumerate(modules):
        where = f"recompute_modules.{index}"
        if lacks.get(module):
            yield where, f"{module}: the model has {lacks[module]}; leave it out"
        if module in modules[:index]:
            yield where, f"{module} is there twice; leave one out"
        if module in ("moe_act", "shared_experts") and "moe" in modules and not lacks[module]:
            yield where, f"{module} is a part of moe, all of which runs again; leave one of the two out"


CHECKS = (
    Check("knobs need their axis", ("layout",), _idle_knobs),
    Check("tensor parallelism divides", ("layout", "model"), _tensor),
    Check("tokens divide", ("layout", "batch"), _tokens),
    Check("context parallelism needs flash attention", ("layout", "stack"), _context),
    Check("heads divide over context-parallel ranks", ("layout", "model"), _heads_exchanged),
    Check("layers divide over stages", ("layout", "model"), _stages),
    Check("interleaving", ("layout", "batch"), _interleaving),
    Check("one order of actions", ("layout",), _own_order),
    Check("messages that are waited for", ("layout",), _held_messages),
    Check("sizes of DualPipe", ("layout", "batch"), _dualpipe),
    Check("two copies of the parameters", ("layout", "offload"), _two_copies),
    Check("replicas divide", ("layout",), _replicas),
    Check("each rank has a device", ("layout", "cluster"), _placement),
    Check("mesh order", ("layout",), _order),
    Check("recomputed modules", ("recompute", "recompute_modules", "model"), _recomputed_modules),
    Check("recomputed layers", ("recompute", "recompute_layers"), _recomputed_layers),
)
"""Every rule of the layout."""
