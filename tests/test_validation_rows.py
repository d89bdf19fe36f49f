"""Published rows: read strictly, turned into scenarios in the open, scored; a fixed sample may not get worse."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import ScenarioError
from sim.validation.rows import Row, read
from sim.validation.run import Scored, validate
from sim.validation.scenario import RefusedError, document
from sim.validation.scores import points, scores
from sim.validation.targets import TARGETS

MEASURED = Path(__file__).parents[1] / "benchmarks" / "measured"
SAMPLE = Path(__file__).parent / "golden" / "validation_sample.json"
CELLS = {
    "id": "a", "source": "vtrain-single", "layers": "4", "hidden": "512", "heads": "8", "vocab": "50257",
    "seq_len": "1024", "gpu": "a100-sxm-80gb", "gpus": "2", "gpus_per_node": "8", "dp": "2", "micro_batch": "1",
    "global_batch": "2", "precision": "fp16", "flash_attention": "0", "step_time_s": "0.1",
}  # fmt: skip


def row(**cells):
    return Row("made.csv", 2, {**CELLS, **{key: str(value) for key, value in cells.items()}})


def table(path, *rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, CELLS)
        writer.writeheader()
        writer.writerows({key: r.cells.get(key, "") for key in CELLS} for r in rows)
    return path


def test_a_row_says_what_its_cells_do():
    said = document(row(tp=2, dp=1, pp=3, gpus=6, layers=8, grad_comm_bytes=4))
    assert said["layout"]["stage_layers"] == [3, 3, 2] or sum(said["layout"]["stage_layers"]) == 8
    assert said["model"]["vocab"] % 256 == 0
    assert said["model"]["vocab"] - 50257 < 256
    assert said["precision"] == {"compute": "fp16", "grad_comm": "fp32"}
    assert said["stack"] == "megatron-deepspeed-2022-held"


def test_what_a_table_guesses_is_not_taken_from_it():
    """Recompute is the table's guess where its source does not say; the same cell of another source is what it says."""
    assert document(row(recompute="full"))["recompute"] == "none"
    assert document(row(recompute="full"))["model"]["dropout"] == pytest.approx(0.1)
    assert document(row(recompute="full", source="vtrain-multi"))["recompute"] == "full"


@pytest.mark.parametrize(
    ("cells", "stack"),
    [
        ({"source": "somebody", "flash_attention": 0}, "megatron-lm-2021"),
        ({"source": "somebody", "flash_attention": 1, "zero_stage": 3}, "pytorch-fsdp"),
        ({"source": "somebody", "flash_attention": 1, "gpu": "h100-sxm-80gb"}, "megatron-core-2025"),
    ],
)
def test_a_source_unknown_to_us_is_read_by_its_cells(cells, stack):
    assert document(row(**cells))["stack"] == stack


def test_run_conditions_are_read_where_the_row_says_them():
    """Blocking launches by the notes; collectives checked on the host by a low all-reduce of the run's own."""
    assert document(row(notes="CUDA_LAUNCH_BLOCKING=1"))["stack"] == "megatron-deepspeed-2022-blocking"
    said = {"source": "ultrascale", "tp": 2, "dp": 1, "sequence_parallel": 1, "tp_overlap": 1}
    plain, checked = (row(**said, measured_intra_allreduce_busbw_GBps=rate) for rate in (457, 425))
    assert document(plain)["stack"] == "nanotron"
    assert document(checked)["stack"] == "nanotron-checked"
    assert "tp_overlap" not in document(plain)["layout"], "what nanotron overlaps its stack says"


def test_a_machine_is_known_by_its_network():
    """Where a row names a network that only one shipped machine has, it is that one, with all that is known of it."""
    for words, machine in (("4x Omni-Path 100Gb/s per node", "jean-zay"), ("800 Gb/s; 4x HDR 200G", "a100-x8-4hdr")):
        said = document(row(inter=words, gpus=16, dp=16, nic_gbit_per_gpu=100))["cluster"]
        assert said == {"extends": machine, "nodes": 2}


def test_a_job_of_several_racks_has_whole_trays_of_each():
    """72 GPUs of a rack where they divide the job, else the most whole trays that do."""
    for gpus, nodes, each in ((64, 1, 0), (72, 1, 0), (144, 2, 0), (128, 2, 64), (256, 4, 64), (96, 2, 48)):
        cluster = document(row(gpu="gb200", gpus=gpus, dp=gpus, precision="bf16", flash_attention=1))["cluster"]
        assert (cluster["nodes"], cluster.get("gpus_per_host", 0)) == (nodes, each)
    assert cluster["host"] == {"sockets": 24, "boards": 12}, "two GPUs a Grace, four a tray"


def test_nanotron_closes_a_stage_when_its_share_is_reached():
    """16 layers of one unit and a head of four: half of 20 is ten layers exactly."""
    cells = {"layers": 16, "hidden": 2048, "heads": 32, "ffn": 8192, "gated_mlp": 1, "vocab": 131072, "pp": 2}
    assert document(row(source="ultrascale", dp=1, gpus=2, **cells))["layout"]["stage_layers"] == [10, 6]


def test_a_measured_network_is_an_input():
    """100 GB/s of bus bandwidth over eight GPUs a node: 12.5 GB/s through each GPU's adapter, all of it sustained."""
    said = row(gpus=16, dp=16, nic_gbit_per_gpu=400, measured_world_allreduce_busbw_GBps=100)
    nics = document(said)["cluster"]["nics"]
    assert nics["bandwidth"] == "12.5 GB/s"
    assert nics["efficiency"] == 1.0
    assert "nics" not in document(row(nic_gbit_per_gpu=400))["cluster"]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("cpu optimizer+grads (ZeRO-Offload)", {"optimizer": "cpu", "gradients": "cpu"}),
        ("cpu optimizer and parameters", {"optimizer": "cpu", "parameters": "cpu"}),
        ("nvme optimizer, cpu params", {"optimizer": "nvme", "parameters": "cpu"}),
        ("cpu activations", {"activations": "cpu"}),
    ],
)
def test_offload_in_the_words_of_the_tables(said, found):
    assert document(row(offload=said))["offload"] == found


def test_only_launchers_that_say_so_leave_a_process_one_thread():
    """torchrun and accelerate (2023) do, DeepSpeed's own (2020) does not; a lone process has all."""
    for flash, gpus, threads in ((1, 2, 1), (1, 1, None), (0, 2, None)):
        said = document(row(offload="cpu optimizer", flash_attention=flash, gpus=gpus, dp=gpus))["offload"]
        assert said.get("threads") == threads


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"gpu": "tpu-v4"}, "no such GPU is shipped: tpu-v4"),
        ({"attention": "alternating sliding window"}, "attention not modelled"),
        ({"offload": "disk"}, "offload not understood"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(cells, said):
    with pytest.raises(RefusedError, match=said):
        document(row(**cells))


def test_every_fault_of_a_table_is_told_at_once(tmp_path):
    path = table(tmp_path / "t.csv", row(layers="many"), row(gpus=""), row(hidden="inf"))
    with pytest.raises(ScenarioError) as caught:
        read(path)
    said = str(caught.value).splitlines()
    assert len(said) == 3
    assert "t.csv:2" in said[0]
    assert "'many' is no finite number" in said[0]
    assert "is empty" in said[1]


def test_a_step_that_takes_no_time_is_refused(tmp_path):
    with pytest.raises(ScenarioError, match="step_time_s: 0 is no time that a step takes"):
        read(table(tmp_path / "t.csv", row(step_time_s="0")))


def test_scores_are_fractions_and_refusals_are_counted():
    found = [
        Scored(row=row(id="x"), measured=2.0, simulated=3.0, memory=10.0, memory_simulated=9.0),
        Scored(row=row(id="y"), measured=2.0, simulated=1.8, fits=False),
        Scored(row=row(id="z"), measured=2.0, refused="no such GPU is shipped: tpu"),
    ]
    (scored,) = scores(found)["files"]
    assert (scored["rows"], scored["refused"], scored["oom"]) == (3, 1, 1)
    assert scored["mape"] == pytest.approx(0.3)
    assert scored["bias"] == pytest.approx(0.2)
    assert scored["worst"][0]["id"] == "x"
    assert scored["memory"]["mape"] == pytest.approx(0.1)
    assert scored["reasons"] == {"no such GPU is shipped: tpu": 1}


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    path = table(tmp_path / "t.csv", row(), row(id="b", micro_batch=2, global_batch=4))
    first = validate([path], tmp_path / "out", 1)
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    changed = json.loads(lines[0])
    changed["row"]["simulated"] = 7.0
    journal.write_text(json.dumps(changed) + "\n" + lines[1][:20])  # the second was being written
    again = validate([path], tmp_path / "out", 1)
    assert again[0].simulated == 7.0
    assert again[1] == first[1]
    assert (tmp_path / "out" / "scenarios" / "a-2.yaml").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ScenarioError, match=r"out: cannot be written: .* choose another directory"):
        validate([table(tmp_path / "t.csv", row())], tmp_path / "out", 1)


def test_the_command_speaks_json(tmp_path):
    path = table(tmp_path / "t.csv", row(), row(id="b", gpu="tpu"))
    found = CliRunner().invoke(app, ["validate", str(path), "--json", "--jobs", "1"])
    assert found.exit_code == 0
    (scored,) = json.loads(found.stdout)["files"]
    assert (scored["file"], scored["rows"], scored["refused"]) == ("t.csv", 2, 1)
    figures = {"rows", "refused", "mape", "median", "p90", "bias", "worst"}
    assert {"file", "memory", *figures} <= set(scored)
    assert figures <= set(scored["memory"])
    assert all(-1.0 < scored[key] < 100.0 for key in ("mape", "median", "p90", "bias"))
    assert set(scored["worst"][0]) == {"id", "error", "measured", "simulated"}


def test_the_command_draws_and_keeps_its_errors(tmp_path):
    path = table(tmp_path / "t.csv", row(), row(id="b", gpu="tpu"))
    found = CliRunner().invoke(app, ["validate", str(path), "--out", str(tmp_path / "out"), "--jobs", "1"])
    assert found.exit_code == 0
    assert all((tmp_path / "out" / f"errors.{kind}").stat().st_size for kind in ("json", "png", "svg"))
    (point,) = points(validate([path], tmp_path / "out", 1))  # the refused row has none
    assert {key: point[key] for key in ("file", "hidden", "gpus", "micro_batch")} == {
        "file": "t.csv", "hidden": 512.0, "gpus": 2.0, "micro_batch": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("alternating sliding window 128 / full, sinks", (128, 2, True)),
        ("5 sliding window 1024 / 1 full", (1024, 6, False)),
        ("sliding window 4096", (4096, 0, False)),
    ],
)
def test_windows_in_the_words_of_the_tables(said, expected):
    model = document(row(attention=said))["model"]
    assert (model["sliding_window"], model["full_every"], model["attention_sinks"]) == expected


def test_recipes_say_what_their_rows_leave_open():
    """Sequence parallelism and user buffers, delayed scaling, activations on Grace, recompute of the FSDP recipes."""
    cells = {"source": "nemo-24.07", "tp": 2, "dp": 1, "gpu": "h100-sxm-80gb", "precision": "fp8"}
    said = document(row(**cells))
    assert said["precision"] == {"compute": "bf16", "fp8": "delayed"}
    assert (said["layout"]["sequence_parallel"], said["layout"]["tp_overlap"]) == (True, True)
    bridge = {"source": "megatron-bridge", "precision": "fp8", "gated_mlp": 1}
    llama70b = {**bridge, "layers": 80, "zero_stage": 3}
    for gpu, kept in (("gb200", 40), ("gb300", 20), ("b200-sxm", 5)):
        assert document(row(**llama70b, gpu=gpu))["offload"] == {"activations": "cpu", "activation_layers": kept}
    assert document(row(**llama70b, gpu="b300-sxm"))["offload"] == "none"
    assert document(row(**{**llama70b, "zero_stage": 1}, gpu="gb200"))["offload"] == "none"
    llama8b = {**bridge, "layers": 32, "gpu": "h100-sxm-80gb"}
    assert document(row(**llama8b, zero_stage=1))["recompute_layers"] == 5
    assert document(row(**llama8b, zero_stage=3))["recompute"] == "none"


def test_recipes_of_experts_run_again_what_their_files_say():
    """GPT-OSS norms and activations, in bf16 and not on GB300; DeepSeek-V3 its up projections; mxfp8 fuses experts."""
    moe = {"source": "megatron-bridge", "experts": 8, "top_k": 2, "moe_ffn": 64, "gated_mlp": 1}
    sinks = {**moe, "attention": "alternating sliding window 128 / full, sinks"}
    said = document(row(**sinks, gpu="gb200", precision="bf16"))
    assert (said["recompute"], said["recompute_modules"]) == ("selective", ["layernorm", "moe_act"])
    assert said["stack"] == "megatron-bridge-2025"
    assert document(row(**sinks, gpu="gb300", precision="bf16"))["recompute"] == "none"
    for release, fused in (("26.06", True), ("26.06.01", False), ("26.08", True), ("26.04", False), ("25.11", False)):
        said = document(row(**sinks, gpu="gb200", precision="mxfp8", notes=f"container {release}; and so on"))
        assert said["stack"] == "megatron-bridge-2025" + "-fused-experts" * fused
        assert said["recompute"] == ("none" if fused else "selective")
    said = document(row(**sinks, gpu="b300-sxm", precision="mxfp8", notes="container 26.06;"))
    assert said["stack"] == "megatron-bridge-2025"
    latent = {**moe, "first_dense_layers": 1, "attention": "MLA q_lora 96 kv_lora 64 qk 32+16 v 24"}
    assert document(row(**latent, gpu="h100-sxm-80gb", precision="fp8"))["recompute_modules"] == ["mla_up_proj", "mlp"]
    deep = {**latent, "gpu": "gb200", "precision": "bf16", "layers": 61, "gpus": 64, "global_batch": 64, "vpp": 4}
    said = document(row(**deep, pp=4, dp=16))
    assert (said["model"]["mtp_layers"], said["layout"]["stage_layers"]) == (1, [4] * 15 + [1])
    said = document(row(**deep, pp=8, dp=8))
    assert said["layout"]["stage_layers"] == [1] + [2] * 30 + [0], "as its pp_layout has them"
    assert document(row(**{**latent, "experts": 384}, gpu="gb200"))["model"]["mtp_layers"] == 0, "Kimi K2"
    layout = document(row(**deep | {"gpu": "h100-sxm-80gb", "ep": 16}, pp=4, dp=16))["layout"]
    assert layout["expert_dispatch"] == "once_per_node"
    qwen = {**moe, "hidden": 4096, "gpu": "h100-sxm-80gb", "ep": 2, "pp": 2, "dp": 1, "gpus": 2, "global_batch": 8}
    assert document(row(**qwen, vpp=2))["layout"]["expert_overlap"] is True
    assert "expert_overlap" not in document(row(**qwen))["layout"], "not without interleaving"
    plain = {"source": "megatron-bridge", "gpu": "gb200", "precision": "bf16"}
    assert document(row(**plain))["recompute"] == "none"
    assert document(row(**plain, recompute="full"))["recompute"] == "full"


SIXTY = {
    "vtrain-single": 13, "ultrascale": 10, "llm-foundry": 7, "vtrain-multi": 5, "bigscience": 3, "dgxc": 4,
    "torchtitan": 4, "megatron-bridge": 4, "simumax-b200": 4, "nemo-24.07": 2, "korthikanti": 2, "narayanan": 1,
    "offload": 1,
}  # fmt: skip
"""Rows of each table in the sample, about by the root of how many it has."""


def _sixty():
    """Of what counts of each table the lighter half (microbatches x stages), by model and layout, evenly spaced."""
    picked = []
    for name, count in SIXTY.items():
        counts = (TARGETS[name].counts if name in TARGETS else None) or bool
        rows = sorted(filter(counts, read(MEASURED / f"{name}.csv")), key=lambda r: (_weight(r), r.id))
        rows = sorted(rows[: max(count, len(rows) // 2)], key=_kind)
        picked += [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]
    return picked


def _weight(row):
    ranks = row.whole("tp", 1) * row.whole("pp", 1) * row.whole("cp", 1)
    dp, micro = row.whole("dp", row.whole("gpus") // ranks), row.whole("micro_batch", 1)
    return row.whole("global_batch", micro * dp) // (micro * dp) * row.whole("pp", 1) * row.whole("vpp", 1)


def _kind(row):
    numbers = ("hidden", "layers", "tp", "pp", "dp", "micro_batch", "seq_len")
    return row.text("gpu"), row.text("model"), *(row.whole(key) for key in numbers), row.text("precision"), row.id


def test_the_sample_has_sixty_rows_of_all_tables():
    picked = _sixty()
    assert len({(r.file, r.line) for r in picked}) == 60
    assert {r.file for r in picked} == {path.name for path in MEASURED.glob("*.csv")}
    assert len({r.text("model", r.id) for r in picked}) > 25


def test_a_fixed_sample_of_sixty_rows_does_not_get_worse(update_golden, tmp_path):
    """Of every table; the mean error may grow by a tenth at most. A better one is written with --update-golden."""
    picked = _sixty()
    path = tmp_path / "sample.csv"
    columns = list(dict.fromkeys(column for r in picked for column in r.cells))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(r.cells for r in picked)
    (scored,) = scores(validate([path], None, 2))["files"]
    if update_golden:
        SAMPLE.write_text(json.dumps({"rows": scored["rows"], "mape": round(scored["mape"], 4)}) + "\n")
    kept = json.loads(SAMPLE.read_text())
    assert scored["rows"] == kept["rows"] == 60
    assert scored["refused"] == 0
    assert scored["mape"] <= 1.1 * kept["mape"]
