"""The shipped files: found by name, listed without a validator, and every one of them loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from sim.errors import ScenarioError
from sim.spec import catalogue
from sim.spec.load import load
from sim.spec.template import scenario_template
from sim.spec.wording import choices

HERE = Path(__file__).parent
SLOTS = {"devices": "cluster.device", "nodes": "cluster", "clusters": "cluster", "stacks": "stack", "models": "model"}
SHIPPED = [(kind, name) for kind in SLOTS for name in catalogue.names(kind)]


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(catalogue, "root", lambda: HERE / "fixtures" / "shipped")


@pytest.mark.usefixtures("_small")
def test_names_and_paths():
    assert catalogue.names("devices") == ("gpu-a", "gpu-b")
    assert catalogue.path_of("models", "gpt-a").is_file()
    with pytest.raises(ScenarioError) as caught:
        catalogue.path_of("devices", "gpu_a")
    assert str(caught.value) == (
        "topologies/devices: unknown name 'gpu_a'; did you mean 'gpu-a'? choices: gpu-a, gpu-b"
    )


@pytest.mark.usefixtures("_small")
def test_summary_shows_inherited_facts():
    (row,) = catalogue.summary("clusters")
    assert (row.name, row.description) == ("cluster-a", "four nodes")
    assert row.facts == (("nodes", "4"), ("gpus_per_host", "8"), ("device", "gpu-a"))
    (model,) = catalogue.summary("models")
    assert dict(model.facts)["layers"] == "4"
    assert [row.name for row in catalogue.summary("scenarios")] == ["first"]


def test_a_wheel_has_its_own_folder(tmp_path, monkeypatch):
    fake = tmp_path / "sim" / "spec" / "catalogue.py"
    monkeypatch.setattr(catalogue, "__file__", str(fake))
    assert catalogue.root() == tmp_path.resolve()
    (tmp_path / "sim" / "shipped").mkdir(parents=True)
    assert catalogue.root() == (tmp_path / "sim" / "shipped").resolve()


def test_listing_does_not_load_the_validator():
    code = "import sys, sim.spec.catalogue as c; c.summary('devices'); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=HERE.parent).returncode == 0


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_every_shipped_part_is_valid(kind, name):
    """Put into a scenario that works; what two parts do not have for each other is not the part's fault."""
    problems = []
    try:
        load(str(HERE / "fixtures" / "base.yaml"), [f"{SLOTS[kind]}={name}"])
    except ScenarioError as error:
        problems = error.problems
    between = ("precision.", "stack.attention", "layout.dp", "batch.sequence")
    assert [str(p) for p in problems if not p.key.startswith(between)] == []


@pytest.mark.parametrize("name", catalogue.names("scenarios"))
def test_every_shipped_scenario_loads(name):
    assert load(name).scenario.name


@pytest.mark.skipif("pytorch-fsdp" not in catalogue.names("stacks"), reason="needs the shipped catalogue")
def test_the_template_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(scenario_template("mine"))
    scenario = load(str(path)).scenario
    assert (scenario.name, scenario.layout.dp, scenario.layout.zero) == ("mine", 8, 3)


def test_of_many_names_the_nearest_are_listed():
    names = [f"model-{n}" for n in range(30)]
    said = choices(names, "model-7b")
    assert said.startswith("model-7, ")
    assert said.endswith(", ... (24 more)")
    assert choices(names[:12], "model-7b") == ", ".join(names[:12])
