"""README and docs/: every command runs, every simulated number holds, every table is that of the source, links lead
somewhere. The walkthroughs of docs/howto are executed by ``test_docs_walkthroughs``.
"""

import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from sim.api import run as simulate
from sim.cli import GROUPS, app
from sim.errors import SteplineError
from sim.spec.catalogue import names
from tests.test_examples import SHORTER

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
HOWTO = ROOT / "docs" / "howto"
GALLERY = ROOT / "plots" / "README.md"


def _module(name):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


quoted, tables = _module("quoted"), _module("tables")
NUMBERS = [number for page in quoted.pages() for number in quoted.quoted(page)]
BY_RUN = {}
for _number in NUMBERS:
    BY_RUN.setdefault(_number.name.partition(":")[0], []).append(_number)


HEAVY = ("lecture-4096-gpipe", "lecture-4096-interleaved")
"""Steps of many seconds. Their numbers are held by ``pytest -m heavy`` and by ``python docs/quoted.py --check``."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] * (name in HEAVY)) for name in sorted(BY_RUN)]
)
def test_numbers_are_what_the_simulator_says(name):
    """One run a test: its numbers in all pages."""
    stale = []
    for number in BY_RUN[name]:
        now = quoted.value(number.name)
        if not number.holds(now):
            said = f"{number.text}{number.unit}"
            stale.append(f"{number.path.relative_to(ROOT)}:{number.line}: {number.name}: {said}, now {now:.6g}")
    assert not stale, "\n".join([*stale, "if the simulator changed on purpose: make docs-numbers"])


@pytest.mark.parametrize(
    ("text", "unit", "now", "anew", "holds"),
    [
        ("21.8", " %", 0.2171, "21.7", True),
        ("21.8", " %", 0.2571, "25.7", False),
        ("12,609", "", 12609.0, "12,609", True),
        ("7.6558e12", "", 7.8e12, "7.8000e12", True),
        ("0.681", " s", 0.7312, "0.731", False),
        ("2", " ms", 0.00231, "2", True),
        ("990", " ms", 1.0612, "1060", False),
        ("1.07", " s", 0.1, "0.100", False),
    ],
)
def test_numbers_are_written_as_they_were(text, unit, now, anew, holds):
    number = quoted.Quoted(ROOT, 1, text, unit, "a:step")
    assert number.holds(now) == holds
    assert number.written(now) == anew


def test_a_mark_without_its_number_is_an_error(tmp_path):
    (tmp_path / "page.md").write_text("three seconds<!--quickstart:step-->\n")
    with pytest.raises(ValueError, match="needs a number"):
        list(quoted.quoted(tmp_path / "page.md"))


def test_an_unknown_figure_is_an_error():
    with pytest.raises(KeyError, match="no such figure"):
        quoted.value("quickstart:speed")


def test_refreshing_writes_numbers_that_are_out_of_date(tmp_path, monkeypatch):
    monkeypatch.setattr(quoted, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("It takes 99.9 ms<!--quickstart:step-->, with 1.00e8<!--quickstart:params--> parameters.\n")
    told = quoted.refresh(page, write=True)
    assert len(told) == 2
    assert all(number.holds(quoted.value(number.name)) for number in quoted.quoted(page))
    assert "ms<!--quickstart:step-->" in page.read_text()


def test_tables_of_formats_are_those_of_the_source():
    text = tables.PAGE.read_text()
    now = tables.tables()
    assert {match["name"] for match in tables.TABLE.finditer(text)} == set(now), "a table for each kind of mapping"
    assert tables.written(text) == text, "make docs-numbers"
    headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines()}
    assert set(tables.SECTIONS.values()) <= headings


PAGES = [*quoted.pages(), GALLERY]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w.-]+)?\)", text):
        assert re.match(r"https?://", link) or (page.parent / link).exists(), f"{page}: {link}"


def test_the_gallery_has_every_figure_and_make_plots_makes_it():
    """A command each, the same in the gallery and in the Makefile; no figure without one, none missing."""
    text, makefile = GALLERY.read_text(), (ROOT / "Makefile").read_text()
    shown = re.findall(r"!\[\]\(([\w.-]+\.png)\)", text)
    assert sorted(shown) == sorted(path.name for path in GALLERY.parent.glob("*.png"))
    four = re.search(r"FOUR_WAYS := (.*)", makefile).group(1)
    made = makefile.replace("$(FOUR_WAYS)", four).replace("$(BIN)/", "")
    for command in re.findall(r"<br>`([^`]+)`", text):
        assert f"\t{command}\n" in made, command


# --- commands ---

FIXTURES = ROOT / "tests" / "fixtures"
GIVEN = {
    "topo.xml": FIXTURES / "import" / "ndv4.xml",
    "topo.txt": FIXTURES / "import" / "a100-smi.txt",
    "all_reduce-1node.log": FIXTURES / "nccl-tests" / "p5-x2.txt",
    "all_reduce-4nodes.log": FIXTURES / "nccl-tests" / "p5-x2.txt",
}
"""Files that a reader would bring along -> what stands for them."""
DONE = set()
"""Commands that ran in this process: pages share some."""
FEW = {
    **dict.fromkeys(SHORTER, 8), "lecture-4096": 2, "lecture-64-mp": 4, "lecture-64-pp": 8, "lecture-64-zero3": 2,
    "mixtral-8x7b-64xh100": 4,
}  # fmt: skip
"""Scenarios with many microbatches: with so many here."""
ELSEWHERE = {
    "make": "its target is looked up",
    "stepline validate": "test_validation_rows, with a sample of the tables",
    "python -m torch": "not ours",
    "python plots/report_page.py": "tests/browser; it needs one",
    "stepline calibrate gemm": "test_calibration_gemm, with timings of its own",
    "stepline calibrate steps": "test_calibration_steps, with steps of its own",
    "pip": "installing is what CI does first",
    "python docs/quoted.py": "test_numbers_are_what_the_simulator_says, test_refreshing_...",
    "python docs/tables.py": "test_tables_of_formats_are_those_of_the_source",
    "python benchmarks": "test_benchmarks_counts; they take minutes",
}
FENCE = re.compile(r"^```(?:console|sh|)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ANY_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
STARTS = ("stepline ", "python ", "make ", "pip ")
HOLE = re.compile(r"\b(?:FILE|DIR|NAME|KIND|K|KEY|VALUES|SCENARIO|RUN)\b|\.\.\.|\\\||\[--")
"""Words in a usage line that stand for something: it is compared with the command's options instead of being run."""
BARE = re.compile(r"stepline [a-z]+|python -m sim")
"""A command that is only named."""


def _lines(page):
    """(command, what its line says) of a page, in order; usage lines too."""
    text = page.read_text()
    found = []
    if page.parent != HOWTO:
        for block in FENCE.finditer(text):
            joined = block[1].replace("\\\n", " ")
            for line in joined.splitlines():
                found += [(block.start(), part.partition(" #")[0].strip(), line) for part in line.split("&&")]
    blank = ANY_FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    for span in re.finditer(r"`([^`\n]+)`", blank):
        line = blank[blank.rfind("\n", 0, span.start()) + 1 : blank.find("\n", span.end())]
        found.append((span.start(), span[1], line))
    found.sort(key=lambda one: one[0])
    return [(command, line) for _, command, line in found if command.startswith(STARTS)]


def _expected(line):
    code = re.search(r"exit code (\d)", line)
    return int(code[1]) if code else int("does not fit" in line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_run(page, tmp_path, monkeypatch):
    """In order, in one empty folder; long steps with few microbatches, figures not rendered (other tests do)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sim.report.files.step_figure", lambda *_: Figure())
    monkeypatch.setattr("sim.report.files.save", lambda figure, path, kind: path.write_bytes(b""))
    for where in ("sim.api", "sim.study.several", "sim.study.compare"):
        monkeypatch.setattr(f"{where}.run", _remembered)
    for command, line in _lines(page):
        if command.replace(" --out plots", "") in DONE:
            continue
        if "mine" not in command and not command.startswith("stepline run "):  # what it writes may be asked for later
            DONE.add(command.replace(" --out plots", ""))
        elsewhere = any(command.startswith(one) for one in ELSEWHERE)
        if HOLE.search(command) or BARE.fullmatch(command) or (elsewhere and command.startswith("stepline ")):
            _usage(command)
        elif not elsewhere:
            code, said = _run(command)
            assert code == _expected(line), f"{page.relative_to(ROOT)}: {command}\nexit code {code}\n{said}"
        elif command.startswith("make "):
            subprocess.run(["make", "-n", *shlex.split(command, comments=True)[1:]], cwd=ROOT, check=True, stdout=-3)


_steps = {}


def _remembered(source, overrides=(), **more):
    """A step of a shipped scenario, simulated once: pages run the same ones again and again."""
    if source not in names("scenarios"):
        return simulate(source, overrides, **more)
    key = (source, tuple(overrides), more.get("fold", True))
    if key not in _steps:
        _steps[key] = simulate(source, overrides, fold=key[2])
    return _steps[key]


def _usage(command):
    """The command is there and has these options; of a group: one of its commands that are named has them."""
    words = re.findall(r"[\w-]+", command)[1:]
    verb = [word for word in words[:1] if command.startswith("stepline ")]
    asked = [verb]
    if verb and verb[0] in GROUPS:
        asked = [[*verb, name] for name in GROUPS[verb[0]][1] if name in words] or asked
    said = [CliRunner().invoke(app, [*one, "--help"], env={"COLUMNS": "200"}) for one in asked]
    assert all(one.exit_code == 0 for one in said), command
    for option in re.findall(r"--[a-z-]+", command):
        assert any(option in one.output for one in said), f"{command}: {verb} has no {option}"


def _run(command):
    """(exit code, output) of a command, in this process where it can be."""
    first, *words = shlex.split(command, comments=True)
    for name in GIVEN.keys() & set(words):
        Path(name).write_bytes(GIVEN[name].read_bytes())
    if "--out" in words and words[words.index("--out") + 1].endswith(".yaml"):
        Path(words[words.index("--out") + 1]).unlink(missing_ok=True)  # an earlier block of the page wrote it
    if first == "python" and words[0] != "-m":
        return _script(words)
    said = CliRunner().invoke(app, _shorter(words[2:] if first == "python" else words))
    if isinstance(said.exception, SteplineError):
        return said.exception.exit_code, str(said.exception)
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    return said.exit_code, said.output


def _script(words):
    """A script of plots/, with few points, in this process."""
    sys.modules.pop("common", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPLINE_QUICK", "1")
        patch.setenv("STEPLINE_PLOTS", str(Path.cwd()))
        patch.setattr(sys, "argv", [str(ROOT / words[0]), *words[1:]])
        patch.syspath_prepend(ROOT / "plots")
        runpy.run_path(sys.argv[0], run_name="__main__")
    return (0, "") if list(Path.cwd().glob("*.png")) else (3, "no figure was written")


def _shorter(words):
    """The same command with few microbatches, few points, few rows; the longest steps are weighed only."""
    if words[0] == "run" and words[1] in HEAVY:
        return ["check", *words[1:], "--set", "batch.size=null", "--set", f"batch.accumulation={SHORTER[words[1]]}"]
    found = []
    for word in words:
        if word.startswith("benchmarks/") and "*" in word:
            found.append(_some_rows(BENCHMARKS / "measured" / "offload.csv"))
        elif found[-1:] == ["--vary"]:
            ends = re.sub(r"=([^,=]+),(?:[^=]+,)?([^,=]+)$", r"=\1,\2", word)
            found.append(re.sub(r":\d+(log)?$", r":2\1", ends))
        else:
            found.append(word)
    many = [word for word in words if word in FEW]
    if many and words[0] != "check":
        found += ["--set", "batch.size=null", "--set", f"batch.accumulation={min(FEW[word] for word in many)}"]
    found += ["--recorded"] * (words[0] in ("explain", "report"))
    return found + ["--jobs", "1"] * (words[0] in ("sweep", "validate"))


def _some_rows(path):
    """The head of a table and its first two rows, as a file here."""
    short = Path(path.name)
    short.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    return str(short)


@pytest.mark.parametrize("path", sorted((ROOT / "plots").glob("*.png")), ids=lambda path: path.stem)
def test_a_plot_of_the_gallery_is_a_picture(path):
    """One was kept empty for a while, and nobody saw."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.rstrip().endswith(b"IEND\xaeB`\x82")
