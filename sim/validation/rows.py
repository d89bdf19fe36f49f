"""Published training steps as rows of CSV files: read strictly, told where they are wrong.

Owns the columns. Knows no scenario.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sim.errors import Problem, ScenarioError

NEEDED = ("id", "layers", "hidden", "heads", "vocab", "seq_len", "gpu", "gpus", "step_time_s")
LARGEST = 64 * 2**20
"""Bytes of a file above which it is not a table of training steps."""


@dataclass(frozen=True, slots=True)
class Row:
    """One published step: cells by column (absent: unknown) and where they are from."""

    file: str
    line: int
    cells: Mapping[str, str]

    @property
    def id(self) -> str:
        """Its name in the file."""
        return self.cells["id"]

    def text(self, column: str, default: str = "") -> str:
        """A cell, or ``default`` where it is empty."""
        return self.cells.get(column, "") or default

    def number(self, column: str, default: float = 0.0) -> float:
        """A cell as a number; ``read`` has checked that it is one."""
        return float(self.text(column) or default)

    def whole(self, column: str, default: int = 0) -> int:
        """A cell as a whole number."""
        return int(self.number(column, default))

    def flag(self, column: str, *, default: bool = False) -> bool:
        """A cell of 0 or 1."""
        return bool(self.whole(column, int(default)))


NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "gated_mlp", "vocab", "seq_len", "tied_embeddings",
    "experts", "top_k", "moe_ffn", "shared_experts", "first_dense_layers", "gpus", "gpus_per_node", "nic_gbit_per_gpu",
    "measured_world_allreduce_busbw_GBps", "tp", "pp", "vpp", "dp", "cp", "ep", "zero_stage", "sequence_parallel",
    "micro_batch", "global_batch", "grad_comm_bytes", "flash_attention", "tp_overlap", "p2p_overlap", "dp_overlap",
    "compiled", "step_time_s", "memory_gib",
)  # fmt: skip


def read(path: Path) -> list[Row]:
    """Rows of a file.

    Raises:
        ScenarioError: it cannot be read, lacks a column, or a cell that must be a number is none.
    """
    rows = []
    problems: list[Problem] = []
    for line, cells in _lines(path):
        row = Row(file=path.name, line=line, cells=cells)
        empty = [column for column in NEEDED if not cells.get(column)]
        wrong = [column for column in NUMBERS if not _is_number(cells.get(column) or "0")]
        said = [(column, "is empty; a row without it cannot be simulated") for column in empty]
        said += [(column, f"{cells[column][:40]!r} is no finite number") for column in wrong]
        if not (empty or wrong) and row.number("step_time_s") <= 0:
            said.append(("step_time_s", f"{cells['step_time_s'][:40]} is no time that a step takes"))
        problems += [Problem(str(path), line, 0, column, what) for column, what in said]
        rows.append(row)
    if problems:
        raise ScenarioError(problems)
    return rows


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        if path.stat().st_size > LARGEST:
            raise ScenarioError([Problem(str(path), 0, 0, "", f"is above {LARGEST >> 20} MiB; no table of steps is")])
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in NEEDED if column not in (reader.fieldnames or ())]
            if missing:
                what = f"lacks the columns {', '.join(missing)}; see benchmarks/measured/README.md"
                raise ScenarioError([Problem(str(path), 1, 0, "", what)])
            return [(reader.line_num, {k: v.strip() for k, v in row.items() if k and v}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise ScenarioError([Problem(str(path), 0, 0, "", f"cannot be read: {fault}")]) from fault


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < 1e12
    except ValueError:
        return False
