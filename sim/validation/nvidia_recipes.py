"""What NVIDIA's recipes for Megatron-Bridge set and its tables do not say: recompute, offload, fused experts.

Facts of ``scripts/performance/configs`` of its repository by model, GPU and precision; a table's row says which model
it is by its layers and attention, and which release by its container. Where experts are fused is in part inferred.
"""

from __future__ import annotations

import re

from sim.validation.rows import Row

FULL = {("8B", "h100-sxm-80gb", "fp8"): 5, ("405B", "gb200", "nvfp4"): 1, ("405B", "b200-sxm", "nvfp4"): 1}
"""Model, GPU, precision -> layers of a stage that run again whole (recompute_num_layers), without FSDP."""

OFFLOADED = {
    ("70B", "gb300", "bf16"): 30, ("70B", "gb300", "fp8"): 20, ("405B", "gb300", "bf16"): 40,
    ("70B", "gb200", "bf16"): 20, ("70B", "gb200", "fp8"): 40, ("405B", "gb300", "fp8"): 10,
    ("70B", "b200-sxm", "fp8"): 5, ("405B", "gb200", "fp8"): 92,
}  # fmt: skip
"""Model, GPU, precision -> layers whose activations FSDP recipes keep on the host (cpu_offloading_num_layers)."""

AGAIN = {
    ("GPT-OSS", "gb200", ""): ("layernorm", "moe_act"),
    ("GPT-OSS", "b200-sxm", ""): ("layernorm", "moe_act"),
    ("GPT-OSS", "h100-sxm-80gb", ""): ("layernorm", "moe_act"),
    ("DeepSeek-V3", "gb300", "bf16"): ("moe_act",),
    ("DeepSeek-V3", "gb300", ""): ("mla_up_proj",),
    ("DeepSeek-V3", "gb200", "fp8"): ("mlp",),
    ("DeepSeek-V3", "gb200", ""): ("mla_up_proj",),
    ("DeepSeek-V3", "b300-sxm", ""): ("mla_up_proj",),
    ("DeepSeek-V3", "b200-sxm", ""): ("mla_up_proj",),
    ("DeepSeek-V3", "h100-sxm-80gb", ""): ("mla_up_proj", "mlp"),
    ("Kimi-K2", "gb300", ""): ("mla_up_proj",),
    ("Kimi-K2", "gb200", ""): ("mla_up_proj",),
    ("Kimi-K2", "b300-sxm", ""): ("mla_up_proj",),
    ("Kimi-K2", "b200-sxm", ""): ("mla_up_proj",),
}
"""Model, GPU, precision ("": any other) -> modules that run again (recompute_modules)."""

NOT_AGAIN = (("GPT-OSS", ""), ("DeepSeek-V3", "gb300"))
"""Model, GPU ("": any): nothing runs again where experts are fused."""

ONCE_A_NODE = (
    ("DeepSeek-V3", "h100-sxm-80gb"), ("DeepSeek-V3", "b200-sxm"), ("DeepSeek-V3", "b300-sxm"), ("Kimi-K2", "b300-sxm"),
    ("Qwen3-30B", "h100-sxm-80gb"),
)  # fmt: skip
"""Model, GPU whose experts are on several nodes and get a token once a node (moe_flex_dispatcher_backend)."""

OVERLAPPED = (("Qwen3-235B", "h100-sxm-80gb"),)
"""Model, GPU whose exchanges between nodes run under the other pass (moe_a2a_overlap). Over NVLink recipes ask for it
too; GB200, which does, gains nothing over GB300, which does not."""

FUSED_SINCE, FUSED_ON, UNFUSED = (26, 6), ("gb200", "gb300"), ("26.06.01",)
"""Containers and GPUs whose recipes of experts in mxfp8 fuse the grouped MLP (cutedsl_fused_grouped_mlp). Inferred from
times: not in 26.06.01, 60 % slower than 26.06 and 26.08 alike; not on B300, whose recipe asks for it."""

_MODELS = {32: "8B", 80: "70B", 126: "405B"}
_KIMI = 384  # experts
_QWEN = {4096: "Qwen3-235B", 2048: "Qwen3-30B"}  # by hidden size
_CONTAINER = re.compile(r"container (\d+)\.(\d+)(\.\d+)?")


def model_of(row: Row) -> str:
    """The model as the tables of this module call it; empty for others, and for rows of other sources."""
    if row.text("source") != "megatron-bridge":
        return ""
    if row.whole("experts"):
        said = row.text("attention")
        if "MLA" in said:
            return "Kimi-K2" if row.whole("experts") == _KIMI else "DeepSeek-V3"
        return "GPT-OSS" if "sinks" in said else "" if said else _QWEN.get(row.whole("hidden"), "")
    return _MODELS.get(row.whole("layers"), "") if row.flag("gated_mlp") else ""


def mtp_layers(row: Row) -> int:
    """Modules that predict one token more: DeepSeek-V3's recipe has its one (mtp_num_layers)."""
    return int(model_of(row) == "DeepSeek-V3")


def stages(layers: int, count: int) -> list[int]:
    """Layers of each stage where the last one has such a module: it has fewest, then the first (pp_layout)."""
    most = -(-layers // count)
    found, spare = [most] * count, count * most - layers
    ends = [place for pair in zip(range(count - 1, -1, -1), range(count), strict=True) for place in pair]
    for stage in dict.fromkeys(ends):
        found[stage] -= (less := min(spare, most))
        spare -= less
    return found


def fused_experts(row: Row) -> bool:
    """Whether the recipe's grouped MLP does all between its two products."""
    found = _CONTAINER.search(row.text("notes"))
    if not (found and row.whole("experts") and row.text("precision") == "mxfp8"):
        return False
    release = found.group().removeprefix("container ")
    late = (int(found[1]), int(found[2])) >= FUSED_SINCE
    return late and release not in UNFUSED and row.text("gpu") in FUSED_ON


def exchanges(row: Row) -> dict[str, str | bool]:
    """How tokens go to experts, and whether under another pass, as keys of a layout."""
    one, ranks = (model_of(row), row.text("gpu")), row.whole("ep", 1)
    found: dict[str, str | bool] = {}
    if ranks > 1 and one in ONCE_A_NODE:
        found["expert_dispatch"] = "once_per_node"
    if ranks > 1 and one in OVERLAPPED and (row.whole("pp", 1) == 1 or row.whole("vpp", 1) > 1):
        found["expert_overlap"] = True
    return found


def whole_layers_again(row: Row) -> int:
    """Layers of a stage that run again whole."""
    return 0 if row.whole("zero_stage") == 3 else FULL.get(_key(row), 0)


def modules_again(row: Row) -> tuple[str, ...]:
    """Modules that run again before a layer's backward."""
    model, gpu, precision = _key(row)
    if fused_experts(row) and ((model, "") in NOT_AGAIN or (model, gpu) in NOT_AGAIN):
        return ()
    return AGAIN.get((model, gpu, precision), AGAIN.get((model, gpu, ""), ()))


def offloaded_layers(row: Row) -> int:
    """Layers whose activations are on the host from forward to backward."""
    return OFFLOADED.get(_key(row), 0) if row.whole("zero_stage") == 3 else 0


def _key(row: Row) -> tuple[str, str, str]:
    return model_of(row), row.text("gpu"), row.text("precision")
