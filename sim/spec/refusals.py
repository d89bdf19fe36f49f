"""What people will ask for that is not simulated yet, and what is possible instead.

Owns two tables, of keys and of values. A knob that is accepted is modelled; one that is not is refused by its name.
Rules that depend on other keys are in ``checks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from sim.spec.types import RecomputeModule

_NARROW = "narrow products are precision: {{compute: bf16, fp8: {recipe}}}; everything else stays 16 bits wide"
_ORDER = (
    "the schedule {value} is not simulated by name; gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe and dualpipev are, "
    "and any order as a CSV file with layout.schedule_file"
)
_NVME = "gradients on NVMe are not simulated: they are used at once; keep them in host memory (cpu)"

_RECIPES = {"fp8": "tensorwise", "mxfp8": "mxfp8", "nvfp4": "nvfp4"}

KEYS: Mapping[str, str] = {
    "layout.sp": "sequence parallelism is layout.sequence_parallel: true, over the tp ranks",
    "layout.vpp": "interleaving is layout.virtual_stages with schedule: interleaved",
    "layout.interleave": "interleaving is layout.virtual_stages with schedule: interleaved",
    "layout.etp": "tensor parallelism inside an expert is not simulated; experts are whole on a rank, spread by ep",
    "model.experts_per_token": "experts a token visits are model.top_k",
    "model.num_experts": "routed experts are model.experts",
    "offload.params": "parameters on the host are offload.parameters: cpu or nvme, with zero: 3",
    "offload.fraction": "the part of the optimizer that the host has is offload.ratio",
    "offload.delayed": "delayed parameter update is offload.update: delayed",
}
"""Key path -> why it is refused and what there is instead."""

VALUES: Mapping[tuple[str, str], str] = {
    ("recompute", "block"): "recompute of some layers is recompute: full with recompute_layers",
    **{
        ("recompute", module): f"a module alone is recompute: selective with recompute_modules: [{module}]"
        for module in get_args(RecomputeModule)
    },
    **{("layout.schedule", name): _ORDER.format(value=name) for name in ("zb-2p", "zb-h2")},
    **{("precision.compute", name): _NARROW.format(recipe=recipe) for name, recipe in _RECIPES.items()},
    **{
        ("precision.compute", name): f"{name} is not simulated; compute in bf16, with fp8: nvfp4 or another recipe"
        for name in ("mxfp4", "int8")
    },
    ("offload.gradients", "nvme"): _NVME,
}
"""(Key path, value) -> why it is refused and what there is instead."""
