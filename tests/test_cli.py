"""The command as a user meets it: words, files, exit codes; never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.spec.catalogue import names

ROOT = Path(__file__).parent.parent


def stepline(*args, cwd=ROOT, **env):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **env}
    return subprocess.run(
        [sys.executable, "-m", "sim", *args], cwd=cwd, env=settings, capture_output=True, text=True, check=False
    )


def test_run_json_goes_to_stdout_and_writes_no_file(tmp_path):
    done = stepline("run", "quickstart", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scenario"] == "quickstart"
    assert not list(tmp_path.iterdir())


def test_run_writes_its_files_where_it_says(tmp_path):
    done = stepline("run", "quickstart", "--out", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {p.name for p in (tmp_path / "here").iterdir()}
    figures = {"timeline.png", "timeline.svg"}
    assert written == {"result.json", "scenario.yaml", "timeline.npz", "trace.json.gz", *figures}
    assert "bound by" in done.stdout


def test_too_big_exits_one_and_says_what_to_change(tmp_path):
    done = stepline("run", "zero-offload-10b-v100", "--set", "model.layers=60", "--out", "o", cwd=tmp_path)
    assert done.returncode == 1
    assert "does not fit" in done.stdout
    assert "what would lower them" in done.stdout
    assert stepline("check", "zero-offload-10b-v100", "--set", "model.layers=60").returncode == 1


def test_bad_input_exits_two_with_place_rule_and_hint(tmp_path):
    (tmp_path / "bad.yaml").write_text("model: gpt2-124m\ncluster: dgx-a10\nlayuot: {dp: 1}\nbatch: {micro: 1}\n")
    done = stepline("check", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.yaml:2:" in done.stderr
    assert "dgx-a100" in done.stderr
    assert "layout" in done.stderr
    assert "Traceback" not in done.stderr


def test_init_then_check_then_run(tmp_path):
    assert stepline("init", "mine", cwd=tmp_path).returncode == 0
    assert stepline("check", "mine.yaml", cwd=tmp_path).returncode == 0
    again = stepline("init", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert "left alone" in again.stderr


@pytest.mark.parametrize("kind", ["models", "devices", "clusters", "stacks", "scenarios"])
def test_list(kind):
    done = stepline("list", kind)
    assert done.returncode == 0
    for name in names(kind):
        assert name in done.stdout


def test_schema_is_json():
    assert json.loads(stepline("schema").stdout)["type"] == "object"


def test_check_shows_the_lecture_beside_the_exact_counts():
    said = stepline("check", "quickstart").stdout
    assert "124,475,904" in said or "124,439,808" in said
    assert "12 H" in said


def test_same_bytes_under_another_hash_seed(tmp_path):
    outs = []
    for seed in ("1", "77"):
        done = stepline(
            "run", "llama3-8b-8xh100-zero3", "--set", "model.layers=3", "--out", seed, cwd=tmp_path, PYTHONHASHSEED=seed
        )
        assert done.returncode == 0, done.stderr
        data = json.loads((tmp_path / seed / "result.json").read_text())
        data.pop("wall_s")
        outs.append((data, (tmp_path / seed / "trace.json.gz").read_bytes()))
    assert outs[0] == outs[1]


def test_no_traceback_on_what_is_no_file(tmp_path):
    for what in ("no-such-scenario", str(tmp_path), "../../etc/passwd.yaml"):
        done = stepline("run", what, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr


def test_a_terminal_without_the_letters_still_gets_an_answer():
    done = stepline("check", "quickstart", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "parameters (12 H?)" in done.stdout
