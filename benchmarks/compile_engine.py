"""Compile the engine's modules to C, in place: the same Python, strictly typed, without the interpreter.

    python benchmarks/compile_engine.py           # or: make compiled
    python benchmarks/compile_engine.py --undo    # or: make pure

Needs a C compiler and mypy (which brings mypyc). Python prefers what is compiled to its source, so undo it before you
edit the engine; ``make test`` does so first. Times agree to the last bit: it is the same code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "sim" / "engine"

SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(name="engine", packages=[], ext_modules=mypycify({files!r}, opt_level="3"))
"""


def undo():
    """Remove what was compiled."""
    for kind in ("so", "pyd"):
        for built in [*ENGINE.glob(f"*.{kind}"), *ROOT.glob(f"*__mypyc.*.{kind}")]:
            built.unlink()


def build():
    """Compile a copy, and put the results beside the sources."""
    files = [f"sim/engine/{path.name}" for path in sorted(ENGINE.glob("*.py")) if path.name != "__init__.py"]
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "sim", Path(scratch) / "sim", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
        (Path(scratch) / "setup.py").write_text(SETUP.format(files=files))
        told = {**os.environ, "MYPY_CACHE_DIR": str(Path(scratch) / "cache")}
        done = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=scratch, env=told, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"could not compile: a C compiler, mypy and setuptools are needed\n{done.stdout}{done.stderr}")
        for built in [*Path(scratch).glob("*__mypyc.*"), *(Path(scratch) / "sim/engine").glob("*.so")]:
            shutil.copy(built, (ROOT if built.parent == Path(scratch) else ENGINE) / built.name)


def main():
    """Compile, or undo it."""
    undo()
    if "--undo" not in sys.argv:
        build()
        print(f"compiled {len(list(ENGINE.glob('*.so')))} modules of sim/engine; `make pure` undoes it")


if __name__ == "__main__":
    main()
