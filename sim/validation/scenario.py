"""A published row as a scenario: what its cells say, and one table for what they leave open.

Owns every assumption about an empty cell. A source's name selects a named software stack and nothing else; nothing here
depends on a row's id. What Stepline does not model is refused by name.
"""

from __future__ import annotations

import re
from typing import Any

from sim.validation import nvidia_recipes
from sim.validation.rows import Row

MACHINES = {
    "a100-sxm-80gb": "dgx-a100",
    "a100-sxm-40gb": "dgx-a100-40gb",
    "h100-sxm-80gb": "dgx-h100",
    "h100-sxm-96gb-hbm2e-500w": "hgx-h100-500w",
    "h200-sxm": "hgx-h200",
    "h800-sxm-80gb": "hgx-h800",
    "b200-sxm": "hgx-b200",
    "b300-sxm": "hgx-b300",
    "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
    "v100-sxm3-32gb": "dgx-2",
    "v100-sxm2-32gb": "dgx-1-v100",
    "a100-pcie-80gb": "a100-pcie-x8",
    "gh200": "gh200",
    "gh200-96gb": "gh200",
    "gh200 x 4": "alps-gh200",
    "mi300x": "mi300x-x8",
    "mi300x-192gb": "mi300x-x8",
    "rtx4090": "rtx4090-x8",
    "rtx4090-24gb": "rtx4090-x8",
}
"""GPU of a row -> the shipped machine that holds it, for its host and links."""

RACK, TRAY = 72, 4
"""GPUs of a rack of GB200 or GB300, and of each of its trays."""

NETWORKS = {"Omni-Path": "jean-zay", "4x HDR": "a100-x8-4hdr"}
"""Words in what a row says of the network between nodes -> the shipped machine that has it, if it is a row of A100."""

STACKS = {
    "korthikanti": "megatron-lm-2022",
    "narayanan": "megatron-lm-2021",
    "vtrain-multi": "megatron-deepspeed-2022",
    "vtrain-single": "megatron-deepspeed-2022",
    "bigscience": "megatron-deepspeed-2022",
    "llm-foundry": "llm-foundry-2023",
    "ultrascale": "nanotron",
    "torchtitan": "torchtitan-compile",
    "dgxc": "nemo-2025",
    "nemo-24.07": "nemo-2024",
    "megatron-bridge": "megatron-bridge-2025",
    "simumax-b200": "megatron-lm-2025",
}
"""What was run, by who published it. Other sources: see ``_stack``."""

DROPOUT = {"narayanan": 0.1, "korthikanti": 0.1, "vtrain-single": 0.1}
"""Megatron-LM drops a tenth of activations and attention unless told otherwise (arguments of 2021 and 2022); BLOOM was
trained without, as all models since."""

UNSTATED = {"vtrain-single": "none"}
"""Where a table guesses what its source does not state, and the guess cannot be right: with a layer's forward twice,
tp 1 and hidden 2048 at microbatch 8 would run its products at 96 % of the peak (docs/accuracy.md)."""

HELD = ("vtrain-single",)
"""Sources whose runs show a host that never gets far ahead of the GPU: the head's time adds to that of layers which
wait for the host, so nothing had been launched ahead under it (docs/accuracy.md)."""

UNPADDED = ("vtrain-multi", "vtrain-single")
"""Sources whose models keep the tokenizer's odd vocabulary where no tensor-parallel rank has to have its part: in
vTrain's single-node table embedding, head and loss take four to eight times as long with tp 1 as with tp 2."""

CHECKED_BELOW = 440.0
"""GB/s of a run's own all-reduce over the 8 GPUs of a node: nanotron's runs measured 452 to 462 or 389 to 431, and
those below spent milliseconds more in each collective, in proportion to its ranks: they checked them on the host."""

FSDP = ("pytorch-fsdp", "llm-foundry-2023", "torchtitan-compile", "torchtitan-compile-2025")
"""Stacks whose ZeRO is FSDP's."""

FP8 = {"fp8": "tensorwise", "mxfp8": "mxfp8", "nvfp4": "nvfp4"}
"""Precision of a row -> recipe; the rest of the step is in bf16."""

DELAYED = ("nemo-2024", "nemo-2025")
"""Stacks whose fp8 is that of Transformer Engine 1.x: delayed scaling."""

RECIPES = ("nemo-2024", "nemo-2025", "megatron-bridge-2025", "megatron-bridge-2025-fused-experts")
"""Stacks whose recipes run tensor parallelism with sequence parallelism and user buffers (not in nvfp4), unless a row
says not."""

CONTEXT = {"simumax-b200": "all_to_all", "torchtitan": "all_gather"}
"""How context parallelism exchanges: SimuMax's launch scripts say --cp-comm-type a2a, and its tables time attention of
whole sequences of a part of the heads; torchtitan's context_parallel_rotate_method is allgather. Others: p2p."""

PARTS = {"opti": "optimizer", "grad": "gradients", "para": "parameters", "acti": "activations"}
"""What a row's word for something that is offloaded begins with -> key of a scenario."""

WORD = re.compile(r"(?:opti|grad|para|acti)\w*")
PLACED = re.compile(rf"\b(cpu|nvme) ({WORD.pattern}(?:(?: ?[+&,/] ?| and ){WORD.pattern})*)")
"""``cpu optimizer+grads``; ``nvme optimizer, cpu params``: where, and what is there."""

WINDOWS = re.compile(r"(alternating )?(?:(\d+) )?sliding window (\d+)(?: / (?:1 )?full)?(, sinks)?")
"""``alternating sliding window 128 / full, sinks``; ``5 sliding window 1024 / 1 full``; ``sliding window 4096``."""


class RefusedError(ValueError):
    """A row that Stepline cannot run, and why."""


def document(row: Row) -> dict[str, Any]:
    """The scenario of a row, as a file would say it.

    Raises:
        RefusedError: the row is of a kind that is not modelled.
    """
    layout, model = _layout(row), row.text("model", row.text("group", "a model"))
    return {
        "name": row.id,
        "description": f"{model}, published by {row.text('source', row.file)}",
        "model": _model(row),
        "cluster": _cluster(row),
        "layout": layout,
        "batch": {"micro": row.whole("micro_batch", 1), "size": _batch(row, layout), "sequence": row.whole("seq_len")},
        "precision": _precision(row),
        **_recompute(row),
        "offload": _offload(row),
        "stack": _stack(row),
    }


def _recompute(row: Row) -> dict[str, Any]:
    said = UNSTATED.get(row.text("source"), row.text("recompute"))
    if said:
        return {"recompute": said}
    if layers := nvidia_recipes.whole_layers_again(row):
        return {"recompute": "full", "recompute_layers": layers}
    modules = nvidia_recipes.modules_again(row)
    return {"recompute": "selective", "recompute_modules": list(modules)} if modules else {"recompute": "none"}


def _batch(row: Row, layout: dict[str, Any]) -> int:
    return row.whole("global_batch", row.whole("micro_batch", 1) * int(layout["dp"]))


def _model(row: Row) -> dict[str, Any]:
    """Gated MLPs come with RMSNorm, rotary positions and no biases (Llama), others are GPTs."""
    gated = row.flag("gated_mlp")
    tp, alone = row.whole("tp", 1), row.whole("tp", 1) == 1 and row.text("source") in UNPADDED
    padded = 1 if alone else 128 * tp  # Megatron pads the vocabulary so that each tensor-parallel rank has its part
    spec: dict[str, Any] = {
        "name": row.text("model", "model"), "kind": "decoder", "layers": row.whole("layers"),
        "hidden": row.whole("hidden"), "heads": row.whole("heads"), "vocab": -(-row.whole("vocab") // padded) * padded,
        "kv_heads": row.whole("kv_heads") or None, "head_dim": row.whole("head_dim") or None,
        "ffn": row.whole("ffn") or None, "tied_embeddings": row.flag("tied_embeddings", default=not gated),
        "gated_mlp": gated, "activation": "silu" if gated else "gelu", "norm": "rmsnorm" if gated else "layernorm",
        "positions": "rotary" if gated else "learned", "max_positions": 0 if gated else row.whole("seq_len"),
        "dropout": DROPOUT.get(row.text("source"), 0.0),
    }  # fmt: skip
    if gated:
        spec |= {"qkv_bias": False, "out_bias": False, "mlp_bias": False}
    if row.whole("experts"):
        spec |= {key: row.whole(key) for key in ("experts", "top_k", "shared_experts", "first_dense_layers")}
        spec["moe_ffn"] = row.whole("moe_ffn", row.whole("ffn"))
        spec["mtp_layers"] = nvidia_recipes.mtp_layers(row)
    return spec | _attention(row)


def _attention(row: Row) -> dict[str, Any]:
    """Latent attention in the words of the tables: ``MLA q_lora 1536 kv_lora 512 qk 128+64 v 128``; or windows."""
    said = row.text("attention")
    if not said:
        return {}
    if window := WINDOWS.fullmatch(said):
        alternating, local, keys, sinks = window.groups()
        full = 2 if alternating else int(local) + 1 if local else 0
        every = ("qkv_bias", "out_bias", "mlp_bias", "activation_clamp")
        oss = dict.fromkeys(every, True) if sinks else {}  # GPT-OSS has all of them
        return {"sliding_window": int(keys), "full_every": full, "attention_sinks": bool(sinks)} | oss
    words = said.split()
    if words[0] != "MLA":
        raise RefusedError("attention not modelled: " + said)
    pairs = dict(zip(words[1::2], words[2::2], strict=False))
    nope, _, rope = pairs["qk"].partition("+")
    return {
        "attention": "mla", "q_lora_rank": int(pairs.get("q_lora", 0)), "kv_lora_rank": int(pairs["kv_lora"]),
        "nope_head_dim": int(nope), "rope_head_dim": int(rope), "v_head_dim": int(pairs["v"]), "head_dim": None,
        "kv_heads": None,
    }  # fmt: skip


def _cluster(row: Row) -> dict[str, Any]:
    """The machine of the row's GPU; its own network where it says which, and what that was measured to carry."""
    gpu, gpus, per = row.text("gpu"), row.whole("gpus"), row.whole("gpus_per_node", 8)
    if gpu not in MACHINES:
        raise RefusedError("no such GPU is shipped: " + gpu)
    gpu = f"gh200 x {per}" if gpu.startswith("gh200") and per == 4 else gpu
    if rack := MACHINES[gpu].endswith("nvl72"):  # a tray is no node: what a GPU reaches over NVLink is the whole rack
        per = _of_each_rack(gpus)
    nodes = -(-gpus // per)
    own = [machine for words, machine in NETWORKS.items() if words in row.text("inter") and gpu == "a100-sxm-80gb"]
    cluster: dict[str, Any] = {"extends": own[0] if own else MACHINES[gpu], "nodes": nodes}
    if own:
        return cluster
    if rack and nodes > 1 and per < RACK:
        cluster |= {"gpus_per_host": per, "host": {"sockets": per // 2, "boards": per // TRAY}, "nics": {"count": per}}
    rate, measured = row.number("nic_gbit_per_gpu"), row.number("measured_world_allreduce_busbw_GBps")
    if nodes > 1 and (rate or measured):
        cluster["nics"] = {"count": per, "sources": {"count": "one for each GPU"}}
    if nodes > 1 and rate:
        cluster["nics"] |= {"bandwidth": f"{rate} Gb/s", "sources": {"bandwidth": "the row", "count": "the row"}}
    if nodes > 1 and measured and (not rate or measured / per < rate / 8):
        said = {"count": "the row", "bandwidth": "measured in the row's run", "efficiency": "already in it"}
        cluster["nics"] |= {"bandwidth": f"{measured / per} GB/s", "efficiency": 1.0, "sources": said}
    return cluster


def _of_each_rack(gpus: int) -> int:
    """GPUs that a run has in each rack: most jobs are of powers of two, so that whole trays of each stay idle."""
    if gpus <= RACK:
        return RACK
    return next((size for size in range(RACK, 0, -TRAY) if gpus % size == 0), RACK)


def _layout(row: Row) -> dict[str, Any]:
    tp, pp, cp, vpp = (row.whole(axis, 1) for axis in ("tp", "pp", "cp", "vpp"))
    layout: dict[str, Any] = {
        "tp": tp, "pp": pp, "cp": cp, "dp": row.whole("dp", row.whole("gpus") // (tp * pp * cp)),
        "ep": row.whole("ep", 1), "zero": row.whole("zero_stage"),
    }  # fmt: skip
    if layout["zero"] == 2 and _stack(row) in FSDP:  # SHARD_GRAD_OP: gathered once, freed after backward
        layout |= {"zero": 3, "reshard_after_forward": False}
    if cp > 1 and row.text("source") in CONTEXT:
        layout["cp_kind"] = CONTEXT[row.text("source")]
    if tp > 1:
        recipe = _stack(row) in RECIPES
        layout["sequence_parallel"] = row.flag("sequence_parallel", default=recipe or row.flag("gated_mlp"))
        if not _stack(row).startswith("nanotron"):  # whose "asynchronous" is what its stack does by itself
            layout["tp_overlap"] = row.flag("tp_overlap", default=recipe and row.text("precision") != "nvfp4")
    if pp > 1 and vpp > 1:
        layout |= {"schedule": "interleaved", "virtual_stages": vpp}
    if _stack(row).startswith("nanotron") and pp > 1:
        layout["stage_layers"] = _balanced(row, pp)
    elif row.whole("layers") % (pp * vpp):
        cut = nvidia_recipes.stages if nvidia_recipes.mtp_layers(row) else _stages
        layout["stage_layers"] = cut(row.whole("layers"), pp * vpp)
    layout |= nvidia_recipes.exchanges(row)
    if row.text("dp_overlap"):
        layout["overlap_grad_reduce"] = row.flag("dp_overlap")
    return layout


def _stages(layers: int, stages: int) -> list[int]:
    """Layers that do not divide: the middle stages have one more, since the ends hold embedding and head."""
    least, more = divmod(layers, stages)
    first = (stages - more) // 2
    return [least + (first <= stage < first + more) for stage in range(stages)]


def _balanced(row: Row, stages: int) -> list[int]:
    """Layers of each stage as nanotron cuts a model: blocks fill a stage until its part of all work is reached.

    Work counts parameters in products: of a layer, and of the output layer. The first block is the embedding, of none.
    """
    hidden, heads, ffn = row.whole("hidden"), row.whole("heads"), row.whole("ffn", 4 * row.whole("hidden"))
    kv = row.whole("kv_heads", heads)
    layer = hidden * hidden * (2 + 2 * kv / heads) + (3 if row.flag("gated_mlp") else 2) * hidden * ffn
    total = row.whole("layers") * layer + hidden * row.whole("vocab")
    found, stage, passed = [0] * stages, 0, 0.0
    for _ in range(row.whole("layers")):
        found[stage] += 1
        passed += layer
        if passed >= total * (stage + 1) / stages and stage < stages - 1:
            stage += 1
    return found


def _precision(row: Row) -> dict[str, Any]:
    said = row.text("precision", "bf16")
    found: dict[str, Any] = {"compute": "bf16", "fp8": FP8[said]} if said in FP8 else {"compute": said}
    if said == "fp8" and _stack(row) in DELAYED:
        found["fp8"] = "delayed"
    if "rowwise" in f"{row.id} {row.text('notes')}":  # the tables' own word
        found["fp8"] = "rowwise"
    if row.whole("grad_comm_bytes"):
        found["grad_comm"] = "fp32" if row.whole("grad_comm_bytes") == 4 else found["compute"]
    return found


def _offload(row: Row) -> Any:  # noqa: ANN401 - a word or a mapping, as in a file
    said = row.text("offload", "none")
    if said == "none":
        layers = nvidia_recipes.offloaded_layers(row)
        return {"activations": "cpu", "activation_layers": layers} if layers else "none"
    found: dict[str, Any] = {
        PARTS[part[:4]]: place for place, parts in PLACED.findall(said.lower()) for part in WORD.findall(parts)
    }
    if not found:
        raise RefusedError("offload not understood: " + said)
    if "optimizer" in found:
        if row.whole("zero_stage") == 3:
            found["gradients"] = "cpu"
        # torchrun and accelerate give each of several processes one thread (OMP_NUM_THREADS=1); DeepSpeed's own
        # launcher, which its tutorials use, does not
        if row.whole("gpus") > 1 and _stack(row) == "deepspeed-2023":
            found["threads"] = 1
    return found


def _stack(row: Row) -> str:
    """The named stack of a source, or what the cells of the row say of it."""
    if row.text("offload", "none") != "none":
        return "deepspeed-2023" if row.flag("flash_attention") else "megatron-deepspeed-2020"
    if row.text("source") in STACKS:
        return STACKS[row.text("source")] + _condition(row)
    if not row.flag("flash_attention", default=True):
        return "megatron-lm-2021"
    if row.whole("zero_stage") == 3:
        return "torchtitan-compile" if row.flag("compiled") else "pytorch-fsdp"
    return "megatron-core-2024" if row.text("gpu").startswith("a100") else "megatron-core-2025"


def _condition(row: Row) -> str:
    """Which variant of its source's stack a run was under, by its notes, its own all-reduce or its source's runs."""
    named = STACKS[row.text("source")]
    if named == "nanotron" and 0 < row.number("measured_intra_allreduce_busbw_GBps") < CHECKED_BELOW:
        return "-checked"
    if named == "megatron-bridge-2025" and nvidia_recipes.fused_experts(row):
        return "-fused-experts"
    if named == "torchtitan-compile" and row.text("gpu").startswith("h200"):  # June 2025; those on H100 are older
        return "-2025"
    if named == "megatron-deepspeed-2022" and "CUDA_LAUNCH_BLOCKING=1" in row.text("notes"):
        return "-blocking"
    return "-held" if row.text("source") in HELD else ""
