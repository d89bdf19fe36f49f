"""What people will ask for that is not simulated yet, and what is possible instead.

Owns two tables, of keys and of values. A knob that is accepted is modelled; one that is not is refused by its name.
Rules that depend on other keys are in ``checks``.
"""

from __future__ import annotations

from collections.abc import Mapping

_PIPELINE = "pipeline parallelism is not simulated yet; dp with zero 0-3 is"
_SEQUENCE = "sequence parallelism is not simulated yet; dp with zero 0-3 is"
_EXPERTS = "mixture of experts is not simulated yet; dense models are"
_NARROW = "{value} is not simulated yet; compute in fp16, bf16, tf32 or fp32"
_NVME = "offload to nvme is not simulated yet; offload to the CPU (optimizer: cpu with gradients: cpu) is"
_PARAMS = "offload of parameters is not simulated yet; optimizer: cpu with gradients: cpu (ZeRO-Offload) is"
_ACTIVATIONS = "offload of activations is not simulated yet; recompute: full saves activation memory"

KEYS: Mapping[str, str] = {
    "layout.sp": _SEQUENCE,
    "layout.sequence_parallel": _SEQUENCE,
    "layout.vpp": _PIPELINE,
    "layout.schedule": _PIPELINE,
    "layout.interleave": _PIPELINE,
    "model.experts": _EXPERTS,
    "model.experts_per_token": _EXPERTS,
    "model.top_k": _EXPERTS,
    "offload.params": _PARAMS,
    "offload.parameters": _PARAMS,
    "offload.activations": _ACTIVATIONS,
    "offload.ratio": "partial offload is not simulated yet; all of the optimizer moves, or none",
}
"""Key path -> why it is refused and what there is instead."""

VALUES: Mapping[tuple[str, str], str] = {
    ("recompute", "selective"): "selective recompute is not simulated yet; none or full is",
    ("recompute", "block"): "recompute of some blocks is not simulated yet; none or full is",
    **{("precision.compute", name): _NARROW.format(value=name) for name in ("fp8", "mxfp8", "nvfp4", "mxfp4", "int8")},
    ("offload.optimizer", "nvme"): _NVME,
    ("offload.gradients", "nvme"): _NVME,
}
"""(Key path, value) -> why it is refused and what there is instead."""

AXES: Mapping[str, str] = {
    "tp": "tensor parallelism",
    "pp": "pipeline parallelism",
    "cp": "context parallelism",
    "ep": "expert parallelism",
}
"""Mesh axes that must have size 1 for now -> their name."""
