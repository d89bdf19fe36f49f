"""The figures of a step that have a name: what a scenario may quote as published and a result gives.

Owns names, kinds and meanings; ``spec`` reads quotations by them, ``analysis`` fills them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """``kind`` says how a value is written: a quantity with its unit, a plain count, or a fraction."""

    kind: Literal["seconds", "bytes", "flops_per_s", "count", "fraction"]
    says: str


FIGURES: Mapping[str, Figure] = {
    "step_time": Figure(kind="seconds", says="seconds of a step"),
    "forward": Figure(kind="seconds", says="forward, as a log times it"),
    "backward": Figure(kind="seconds", says="backward with recompute, as a log times it"),
    "optimizer": Figure(kind="seconds", says="optimizer step, as a log times it"),
    "tokens_per_s_per_gpu": Figure(kind="count", says="tokens a second and GPU"),
    "model_flops_per_gpu": Figure(kind="flops_per_s", says="model FLOPs a second and GPU (no recompute)"),
    "hardware_flops_per_gpu": Figure(kind="flops_per_s", says="FLOPs a second and GPU, recompute included"),
    "mfu": Figure(kind="fraction", says="model FLOPs over peak"),
    "bubble": Figure(kind="fraction", says="part of the step in which ranks wait for the pipeline"),
    "gpus": Figure(kind="count", says="GPUs"),
    "parameters": Figure(kind="count", says="parameters of the model"),
    "parameter_bytes": Figure(kind="bytes", says="all parameters in the type they are computed in"),
    "parameters_per_layer": Figure(kind="count", says="parameters of a layer"),
    "multiplications_per_layer": Figure(kind="count", says="multiplications of a layer, forward, one sequence"),
    "activations_per_layer": Figure(kind="count", says="outputs of a layer for the whole batch, H L B"),
    "peak_memory": Figure(kind="bytes", says="memory of the GPU that needs most"),
}
