"""Whatever stands in a file or behind ``--set``: a scenario, or a ScenarioError that points somewhere."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import ScenarioError
from sim.spec import catalogue
from sim.spec.load import Loaded, load
from sim.spec.resolve import resolve

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"

QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

with pytest.MonkeyPatch.context() as _patch:
    _patch.setattr(catalogue, "root", lambda: FIXTURES / "shipped")
    _patch.chdir(FIXTURES)
    KEYS = sorted(".".join(path) for path, _ in resolve("./base.yaml").root.walk() if path)

SYNTAX = st.text(alphabet="ab:c{}[],&*!|>'\"#%-? \n\t0.1\u00e9\ud7ff\x07", max_size=60)
VALUES = st.one_of(
    st.sampled_from(["null", "[]", "{}", "true", "0", "-1", "1e400", ".nan", "9" * 30, "0 GB", "5 us", "none", "gpu-b",
                     "../x.yaml", "./base.yaml", "{extends: node-a}", "{extends: {}}", "[{head_dim: 64}]", "cpu", "3"]),
    SYNTAX,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small_catalogue(monkeypatch):
    monkeypatch.setattr(catalogue, "root", lambda: FIXTURES / "shipped")
    monkeypatch.chdir(FIXTURES)


def attempt(path, overrides=()):
    problems, loaded = [], None
    try:
        loaded = load(str(path), overrides)
    except ScenarioError as error:
        problems = error.problems
    assert isinstance(loaded, Loaded) != bool(problems)
    assert all(problem.file and problem.what for problem in problems)


@QUIET
@given(SYNTAX | st.binary(max_size=40))
def test_any_file(tmp_path, content):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    attempt(path)


@QUIET
@given(st.lists(st.tuples(st.sampled_from(KEYS) | st.text("abc.=[] ", max_size=8), VALUES), min_size=1, max_size=3))
def test_any_override(pairs):
    attempt("./base.yaml", [f"{key}={value}" for key, value in pairs])


@QUIET
@given(st.sampled_from(["base", "node", "device", "stack", "model"]), st.data())
def test_any_mutated_file(tmp_path, which, data):
    """A line dropped, doubled, cut or replaced in one of the files of a scenario."""
    for name in ("base", "cluster", "node", "device", "stack", "model"):
        lines = (FIXTURES / f"{name}.yaml").read_text().splitlines()
        if name == which:
            at = data.draw(st.integers(0, len(lines) - 1))
            cut = data.draw(st.integers(0, len(lines[at])))
            lines[at : at + 1] = data.draw(
                st.sampled_from([[], [lines[at]] * 2, [lines[at][:cut]], [lines[at][:cut] + "7"], [" " + lines[at]]])
            )
        (tmp_path / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    attempt(tmp_path / "base.yaml")
