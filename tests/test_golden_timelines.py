"""One small timeline a feature, as a table that a person can read. A golden says "unchanged", never "right".

``pytest tests/test_golden_timelines.py --update-golden`` rewrites them; review the difference.
"""

from pathlib import Path

import pytest

from sim.api import run

GOLDEN = Path(__file__).parent / "golden" / "timelines"
SMALL = [
    "model.layers=2",
    "model.hidden=256",
    "model.heads=4",
    "model.kv_heads=4",
    "model.ffn=1024",
    "model.vocab=1024",
]
DDP = ["cluster=dgx-a100", "layout.dp=8", "batch.size=null", "batch.micro=2", "batch.accumulation=1"]
FEATURES = {
    "one-gpu": [],
    "ddp": [*DDP, "layout.grad_bucket=1MB"],
    "ddp-no-overlap": [*DDP, "layout.grad_bucket=1MB", "layout.overlap_grad_reduce=false"],
    "accumulation": [*DDP, "batch.accumulation=2"],
    "zero1": [*DDP, "layout.zero=1"],
    "zero2": [*DDP, "layout.zero=2"],
    "zero3": [*DDP, "layout.zero=3"],
    "recompute": ["recompute=full"],
    "zero-offload": ["layout.zero=2", "offload=cpu", "stack=megatron-deepspeed-2020", "precision=fp16"],
    "zero-offload-tiled": ["layout.zero=2", "offload=cpu", "stack=deepspeed-2023"],
}


def table(timeline):
    """Stream, work and times of every span, launches of one kernel kind after another folded into one line."""
    lines, last = ["stream,category,what,spans,start_us,end_us"], None
    spans = timeline.spans
    order = sorted(range(len(spans.op)), key=lambda i: (timeline.ops[spans.op[i]].stream, spans.start[i], i))
    rows = []
    for i in order:
        op = timeline.ops[spans.op[i]]
        what = "kernels" if op.stream == 0 and op.kind != "none" else op.name
        key = (timeline.stream_names[op.stream], op.category, what)
        if key == last and what == "kernels":
            rows[-1][3:] = [rows[-1][3] + 1, rows[-1][4], spans.end[i]]
        else:
            rows.append([*key, 1, spans.start[i], spans.end[i]])
        last = key
    lines += [f"{a},{b},{c},{n},{start * 1e6:.3f},{end * 1e6:.3f}" for a, b, c, n, start, end in rows]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("feature", FEATURES)
def test_timeline(feature, update_golden):
    sets = [*(s for s in SMALL), *FEATURES[feature]]
    said = table(run("quickstart", sets).timeline)
    path = GOLDEN / f"{feature}.csv"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)
    assert said == path.read_text()
