"""The pages of docs/howto are executed: their files written, their changes applied to a copy of the source, their
commands and tests run there, in the order of the page.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"# (\S+\.(?:yaml|py|csv))\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_walkthrough_does_what_it_says(page, tmp_path):
    for part in ("sim", "scenarios", "topologies"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    for kind, text in blocks:
        named = NAMED.match(text)
        if kind in ("yaml", "python", "csv") and named:
            _write_new(tmp_path / named[1], text, kind)
        elif kind == "diff":
            _apply(tmp_path, text, page)
        elif kind == "python":
            _run([sys.executable, "-c", text], tmp_path)
        else:
            assert kind == "console", f"a block of {kind} that says no file name on its first line"
            for line in text.splitlines():
                _run(_words(line), tmp_path)


def _write_new(path, text, kind):
    assert not path.exists(), f"{path.name} is there already"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.partition("\n")[2] if kind == "python" else text)


def _apply(root, text, page):
    """A change: lines with a blank before them stay, those with - go, those with + come. Lines may be beginnings."""
    head, said, *lines = text.splitlines()
    path = root / head.removeprefix("--- a/")
    assert said == f"+++ b/{path.relative_to(root)}", said
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    before = path.read_text()
    assert before.count(old) == 1, f"{page.name}: this change does not fit {path.relative_to(root)} any more:\n{text}"
    path.write_text(before.replace(old, new))


def _words(line):
    """A command of a page, with this Python and without figures of whole steps."""
    first, *rest = shlex.split(line)
    command = {"stepline": [sys.executable, "-m", "sim"], "python": [sys.executable]}[first] + rest
    return [*command, "--json"] if command[3:4] == ["run"] else command


def _run(command, where):
    """A command with the source of ``where``; pages that change no source run in this process."""
    if command[1:3] == ["-m", "sim"] and not list(where.glob("tests/*.py")):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(where)
            said = CliRunner().invoke(app, command[3:])
        assert said.exit_code == 0, f"{command}\n{said.output}\n{said.exception}"
        return
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
