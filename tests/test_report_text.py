"""What is printed: the result's own figures, whole, at 80 columns, with no terminal, in any encoding."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sim.analysis.result import TransferUse
from sim.report import text
from sim.report.theme import CATEGORIES
from tests import report_fixture as made


def _say(what, *args, width=80, encoding="utf-8"):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=out, width=width, highlight=False, markup=False)
    if callable(what):
        what(console, *args)
    else:
        console.print(what)
    out.flush()
    return raw.getvalue().decode(encoding)


def _row(said, first):
    """Cells of the printed row that begins with ``first``."""
    (line,) = [row for row in said.splitlines() if row.strip().startswith(first)]
    return line


def test_the_headline_has_the_figures_the_memory_and_what_binds():
    figures, memory, bound = text.headline(made.result()).splitlines()
    for part in ("made-up", "12.0 s", "1,234.5 tokens/s per GPU", "MFU 25.0%", "HFU 33.3%"):
        assert part in figures
    for part in ("29.1 GB", "32.0 GB", "fits"):
        assert part in memory
    assert bound.startswith("bound by GPU arithmetic (75%)")
    assert "(17%)" in bound


def test_the_verdict_is_about_the_memory_that_is_short():
    assert "DOES NOT FIT" in text.headline(made.result(made.memory(capacity=24e9), made.host()))
    assert text.fit_sentence(made.result()) == "peak GPU memory 29.1 GB of 32.0 GB (fits)"
    short = text.headline(made.result(made.memory(), made.host(capacity=100e9)))
    assert "host memory 120 GB of 100 GB (DOES NOT FIT)" in short


def test_breakdown_rows_are_the_breakdown_largest_first():
    said = _say(text.breakdown_table(made.result()))
    assert _row(said, "CPU optimizer").split()[2:4] == ["2", "16.7%"]
    assert _row(said, "step").split() == ["step", "12", "100.0%"]
    words = [CATEGORIES[c][1] for c in ("backward", "forward", "recompute", "cpu_adam", "h2d")]
    assert [said.index(word) for word in words] == sorted(said.index(word) for word in words)


def test_bars_are_as_long_as_the_shares():
    said = _say(text.breakdown_table(made.result(), bar="*"))
    assert _row(said, "forward").count("*") == round(30 * 3 / 12)


def test_memory_rows_are_the_owners_at_the_peak_with_the_capacity():
    said = _say(text.memory_table(made.memory()))
    assert _row(said, "activations.checkpoints").split()[1:] == ["8.00", "GB", "25.0%"]
    assert _row(said, "peak, fits").split()[2:] == ["29.1", "GB", "90.9%"]
    assert _row(said, "capacity").split()[1:] == ["32.0", "GB", "100.0%"]
    assert "DOES NOT FIT" in _say(text.memory_table(made.memory(capacity=24e9)))


def test_transfers_are_shown_whole_at_eighty_columns():
    row = _row(_say(text.transfers_table(made.result())), "host to GPU")
    assert row.split()[3:] == ["12.0", "GB", "3", "13.0", "GB/s", "12.0", "GB/s", "1.00", "s", "switch0.uplink.in"]


def test_long_words_are_folded_and_never_cut():
    use = TransferUse(
        category="tp",
        bytes=999e9,
        most=999e9,
        count=9999.0,
        busy=1.0,
        exposed=0.999,
        alone=999e9,
        achieved=999e9,
        bound_by="n12.gpu3." + "x" * 40,
    )
    said = _say(text.transfers_table(made.result(transfers=(use,))))
    assert "…" not in said
    assert said.count("x") == 40 + said.count("exposed")
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_everything_is_plain_text_in_any_encoding(encoding):
    said = _say(text.show, made.result(), encoding=encoding)
    assert "\x1b" not in said
    assert "?" not in said
    assert max(map(len, said.splitlines())) <= 80
    for part in ("bound by", "forward 3.00 s, backward 6.00 s, optimizer 3.00 s", "4 ranks", "optimizer states"):
        assert part in said


def test_a_result_without_memory_or_transfers_is_shown_too():
    said = _say(text.show, replace(made.result(transfers=()), memory=(), bound_by={}))
    assert "bound by nothing" in said
    assert "capacity" not in said
    assert "transfers" not in said


def test_words_in_brackets_are_not_taken_for_markup():
    assert "run[bold]1" in _say(text.show, made.result(scenario="run[bold]1"))
