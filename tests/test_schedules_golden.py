"""The schedules as text grids that a person can read. A golden says "unchanged", never "right".

``pytest tests/test_schedules_golden.py --update-golden`` rewrites them; review the difference.
"""

from pathlib import Path

import pytest

from sim.workload.schedules.grid import grid
from sim.workload.schedules.table import SCHEDULES, make

GOLDEN = Path(__file__).parent / "golden" / "schedules"
SIZES = {"interleaved": (4, 8, 2), "zb-v": (3, 6, 2), "dualpipe": (4, 10, 1), "dualpipev": (2, 6, 2)}


def test_every_schedule_has_its_golden():
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_grid_is_as_ever(name, update_golden):
    said = grid(make(name, *SIZES.get(name, (4, 8, 1))))
    path = GOLDEN / f"{name}.txt"
    if update_golden:
        path.write_text(said)
    assert said == path.read_text()
