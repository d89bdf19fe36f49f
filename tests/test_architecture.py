"""The arrows of the house, read from the source: which room may import which, and who alone may import a library."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sim"

# Room -> rooms it may import. The order is the route of a step: spec -> workload, cluster -> cost -> engine -> ...
ARROWS = {
    "errors": (),
    "units": (),
    "mesh": (),
    "figures": (),
    "spec": ("errors", "units", "figures"),
    "workload": ("errors", "mesh", "spec"),
    "cluster": ("errors", "mesh", "spec"),
    "timeline": (),
    "plan": ("timeline",),
    "cost": ("errors", "mesh", "spec", "workload", "cluster", "plan", "timeline"),
    "engine": ("errors", "plan", "timeline"),
    "analysis": ("timeline",),
    "report": ("errors", "units", "figures", "timeline", "analysis", "study", "cluster"),
    "api": ("errors", "mesh", "spec", "workload", "cluster", "cost", "plan", "engine", "timeline", "analysis"),
    "study": ("errors", "units", "spec", "analysis", "api"),
    "importing": ("errors", "units", "spec"),
    "export": ("errors", "plan", "timeline", "workload", "analysis", "report"),
    "validation": ("errors", "units", "api", "study"),
    "calibration": ("errors", "units", "spec", "importing", "api", "study", "validation"),
    "cli": ("errors", "api", "study", "validation", "importing", "calibration", "export", "spec", "report"),
    "__main__": ("cli",),
    "__init__": (),
}
# Library -> rooms that may import it.
ALONE = {
    "simpy": ("engine",),
    "matplotlib": ("report",),
    "networkx": ("cluster",),
    "pydantic": ("spec",),
    "ruamel": ("spec",),
    "typer": ("cli",),
}
# Rooms may read the types of the spec room, not its loader: files are read in one place.
ONLY_TYPES = ("workload", "cluster", "cost", "study")


def _room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names if node.module == "sim")


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    here = _room(path)
    assert here in ARROWS, f"{here} is a room without arrows: say what it may know"
    for name, line in _imports(path):
        parts = name.split(".")
        if parts[0] == "sim" and len(parts) > 1 and parts[1] != here:
            assert parts[1] in ARROWS[here], f"{path}:{line}: {here} must not know {parts[1]}"
            if parts[1] == "spec" and here in ONLY_TYPES:
                assert parts[2:3] == ["types"], f"{path}:{line}: {here} may read sim.spec.types only"
        if parts[0] in ALONE:
            assert here in ALONE[parts[0]], f"{path}:{line}: only {ALONE[parts[0]]} may import {parts[0]}"


def test_the_arrows_make_no_circle():
    done = []
    left = dict(ARROWS)
    while left:
        free = [room for room, knows in left.items() if all(k in done for k in knows)]
        assert free, f"a circle among {sorted(left)}"
        done += free
        for room in free:
            del left[room]


def test_workload_and_cluster_do_not_know_each_other():
    assert "cluster" not in ARROWS["workload"]
    assert "workload" not in ARROWS["cluster"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 500, f"{path} is longer than 500 lines"
    tree = ast.parse(text)
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), f"{path} does not say what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path}:{node.lineno}: {node.name} is too long"
            assert len(node.args.args) + len(node.args.kwonlyargs) <= 8, f"{path}:{node.lineno}: too many parameters"
