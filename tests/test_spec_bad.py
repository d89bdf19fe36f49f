"""Every rule has a failing file in ``tests/bad``; its last lines, ``#> ...``, are all that may be said about it."""

from pathlib import Path

import pytest

from sim.errors import ScenarioError
from sim.spec import catalogue, checks, refusals
from sim.spec.load import load

HERE = Path(__file__).parent
FILES = sorted(path.stem for path in (HERE / "bad").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _small_catalogue(monkeypatch):
    monkeypatch.setattr(catalogue, "root", lambda: HERE / "fixtures" / "shipped")
    monkeypatch.chdir(HERE / "bad")


def expected(name):
    lines = Path(f"{name}.yaml").read_text().splitlines()
    return [line.removeprefix("#> ") for line in lines if line.startswith("#> ")]


@pytest.mark.parametrize("name", FILES)
def test_failing_file_says_exactly_this(name):
    with pytest.raises(ScenarioError) as caught:
        load(f"./{name}.yaml")
    said = expected(name)
    assert said
    assert str(caught.value).splitlines() == said


def test_every_check_has_a_failing_file(monkeypatch):
    silent = {check.name for check in checks.CHECKS}
    spied = tuple(checks.Check(c.name, c.blocks, lambda d, c=c: _spy(c, d, silent)) for c in checks.CHECKS)
    monkeypatch.setattr(checks, "CHECKS", spied)
    for name in FILES:
        with pytest.raises(ScenarioError):
            load(f"./{name}.yaml")
    assert not silent


def _spy(check, draft, silent):
    for finding in check.find(draft):
        silent.discard(check.name)
        yield finding


@pytest.mark.parametrize("key", refusals.KEYS)
def test_every_refused_key_is_refused_by_name(key):
    with pytest.raises(ScenarioError) as caught:
        load("../fixtures/base.yaml", [f"{key}=1"])
    assert str(caught.value) == f"--set: {key}: {refusals.KEYS[key]}"


@pytest.mark.parametrize(("key", "value"), refusals.VALUES)
def test_every_refused_value_is_refused_by_name(key, value):
    with pytest.raises(ScenarioError) as caught:
        load("../fixtures/base.yaml", [f"{key}={value}"])
    assert str(caught.value) == f"--set: {key}: {refusals.VALUES[key, value]}"


def test_missing_and_unreadable_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.yaml").mkdir()
    Path("latin.yaml").write_bytes(b"name: caf\xe9\n")
    Path("large.yaml").write_text("# " + "x" * (1 << 20))
    known = "choices: first, or a path ending in .yaml"
    cases = {
        "./gone.yaml": "scenario: gone.yaml: there is no such file",
        "./folder.yaml": "scenario: folder.yaml: there is no such file",
        "./latin.yaml": "latin.yaml: is not UTF-8 text (byte 9)",
        "./large.yaml": "large.yaml: is larger than 1048576 bytes, the most that a file may have",
        "frist": f"scenario: unknown scenario 'frist'; did you mean 'first'? {known}",
    }
    for reference, words in cases.items():
        with pytest.raises(ScenarioError) as caught:
            load(reference)
        assert str(caught.value) == words
        assert caught.value.exit_code == 2
