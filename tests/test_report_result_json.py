"""result.json holds the result, and nothing in it but ``wall_s`` differs between two runs."""

import json
import os
import subprocess
import sys

import pytest

from sim.report import result_json
from tests import report_fixture as made

PROMISED = [
    "scenario", "step_time_s", "tokens_per_s_per_gpu", "mfu", "hfu", "fits", "peak_memory_bytes", "memory",
    "host_memory", "breakdown", "phases", "bound_by", "transfers", "utilisation", "ranks", "rank_classes", "ops",
    "events", "wall_s",
]  # fmt: skip


def test_every_promised_key_has_the_value_of_the_result():
    data = json.loads(result_json.dumps(made.result()))
    assert set(PROMISED) <= set(data)
    assert data["step_time_s"] == 12.0
    assert data["peak_memory_bytes"] == pytest.approx(29.1e9)
    assert data["memory"] == pytest.approx(
        {"parameters": 20e9, "activations.checkpoints": 8e9, "gradients": 1e9, "allocator": 0.1e9}
    )
    assert data["host_memory"] == {"optimizer states": 120e9}
    assert data["peak_host_memory_bytes"] == 120e9
    assert (data["memory_capacity_bytes"], data["host_memory_capacity_bytes"]) == (32e9, 1.5e12)
    assert data["breakdown"] == made.result().breakdown
    assert data["phases"] == {"forward": 3.0, "backward": 6.0, "optimizer": 3.0}
    assert data["transfers"][0]["achieved"] == 12e9
    assert (data["ranks"], data["rank_classes"], data["ops"], data["events"]) == (4, 1, 3000, 3000)
    assert (data["scenario"], data["wall_s"], data["fits"]) == ("made-up", 0.5, True)


def test_the_rank_that_needs_most_speaks_for_all():
    fuller = made.memory(gradients=[0, 3, 3, 0])
    data = result_json.to_dict(made.result(made.memory(), fuller, made.host()))
    assert data["peak_memory_bytes"] == pytest.approx(31.1e9)
    assert data["memory"]["gradients"] == 3e9


def test_without_host_memory_there_is_none():
    data = result_json.to_dict(made.result(made.memory()))
    assert data["host_memory"] == {}
    assert data["peak_host_memory_bytes"] == 0.0


def test_only_the_wall_time_differs():
    first, second = (result_json.to_dict(made.result(wall=wall)) for wall in (0.5, 0.7))
    assert {key for key in first if first[key] != second[key]} == {"wall_s"}


def test_the_bytes_do_not_depend_on_the_hash_seed():
    code = "from tests.report_fixture import result; from sim.report.result_json import dumps; print(dumps(result()))"
    said = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert json.loads(said[0])["ops"] == 3000


def test_text_and_json_do_not_need_matplotlib():
    code = "import sys, sim.report.text, sim.report.result_json, sim.report.files; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"
