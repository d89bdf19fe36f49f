"""A commented scenario to start from. Owns its words only; a test keeps it valid against the shipped names."""

from __future__ import annotations

import json

_TEMPLATE = """\
# A Stepline scenario: one training step of a model on a cluster. Every physical quantity carries its unit.
# `stepline list` shows the shipped models, clusters and stacks; `extends: NAME` inherits one and overrides keys.
name: {name}
description: GPT-2 1.5B with full sharding on one node of eight GPUs

model: gpt2-1.5b             # a shipped name, a path such as ./my-model.yaml, or a mapping of keys
cluster: dgx-a100            # or {{extends: dgx-a100, nodes: 4}}

layout:
  dp: 8                      # data-parallel ranks; beside them tp, pp, cp, ep (README)
  zero: 3                    # 0 replicates, 1 shards the optimizer, 2 gradients too, 3 parameters too (FSDP)
  # prefetch: 1              # zero 3: layers gathered ahead; unset: as the stack does
  # reshard_after_forward: true

batch:                       # size = micro * accumulation * dp; leave one out and it is derived
  micro: 4                   # sequences of one forward pass of one rank
  accumulation: 1
  sequence: 1024             # tokens of a sequence

precision: bf16              # fp16, bf16, tf32, fp32, or {{compute: bf16, grads: fp32, grad_comm: fp32}}
recompute: none              # full: run each layer's forward again in backward; selective: the core of attention
recompute_modules: null      # selective: [layernorm, moe_act, mla_up_proj, ...] instead of the core of attention
recompute_layers: null       # full: only so many layers of each pipeline stage
offload: none                # or {{optimizer: cpu, gradients: cpu}} with zero 1 or 2 (ZeRO-Offload)
stack: pytorch-fsdp          # the software: which kernels, what overlaps, what the host spends
published: null              # or [{{figure: step_time, value: 1.5 s, by: "whose log"}}], shown beside what is simulated
"""


def scenario_template(name: str) -> str:
    """Return the text of a commented scenario called ``name``; it loads as it stands."""
    return _TEMPLATE.format(name=json.dumps(name))
