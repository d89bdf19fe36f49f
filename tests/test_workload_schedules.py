"""Pipeline schedules as data: sound, readable, and with the bubbles of their papers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.workload.schedules.check import dry_run, grid, problems
from sim.workload.schedules.table import SCHEDULES, make
from sim.workload.schedules.types import Schedule, ScheduleAction

GOLDEN = Path(__file__).parent / "golden" / "schedules"
UNIT = {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0}


@pytest.mark.parametrize("name", SCHEDULES)
def test_grid_is_as_ever(name, update_golden):
    """A row a rank, a column a unit of time. ``--update-golden`` rewrites; review the difference."""
    said = grid(make(name, 4, 8, 2 if name == "interleaved" else 1)) + "\n"
    path = GOLDEN / f"{name}.txt"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)
    assert said == path.read_text()


@given(st.integers(1, 8), st.integers(1, 6), st.integers(2, 4))
def test_every_schedule_is_sound(p, groups, v):
    for name in SCHEDULES:
        m = p * groups if name == "interleaved" else groups * 3
        assert problems(make(name, p, m, v)) == []


@pytest.mark.parametrize("p", [2, 4, 7])
@pytest.mark.parametrize("m", [8, 16])
def test_bubbles(p, m):
    """Idle units of a rank: (p-1)(t_F + t_B) for GPipe and 1F1B (Huang et al. 2019, Narayanan et al. 2021).

    ZB-H1 leaves (p-1)(t_F + t_I - t_W) of them (Qi et al. 2023, table 1).
    """
    for name, idle in (("gpipe", 3 * (p - 1)), ("1f1b", 3 * (p - 1)), ("zb-h1", p - 1)):
        assert dry_run(make(name, p, m, 1), UNIT).makespan == 3 * m + idle, name


@pytest.mark.parametrize("v", [2, 3])
def test_interleaving_divides_the_bubble_by_v(v):
    """In units of a whole stage: (p-1)(t_F + t_B)/v; a stage's part takes 1/v of the time."""
    run = dry_run(make("interleaved", 4, 8, v), {kind: t / v for kind, t in UNIT.items()})
    assert run.makespan == pytest.approx(3 * 8 + 3 * 3 / v)


def test_microbatches_in_flight():
    assert dry_run(make("gpipe", 4, 8, 1), UNIT).in_flight == (8, 8, 8, 8)
    assert dry_run(make("1f1b", 4, 8, 1), UNIT).in_flight == (4, 3, 2, 1)
    assert max(dry_run(make("zb-h1", 4, 8, 1), UNIT).in_flight) == 4, "no more than 1F1B's first stage"


def test_what_is_wrong_is_said():
    one = make("1f1b", 2, 2, 1)
    doubled = Schedule(
        name="x", rank_of_stage=(0, 1), microbatches=2, orders=(one.orders[0] + one.orders[0][:1], one.orders[1])
    )
    assert problems(doubled) == ["rank 0, action 4: 0F0 was done before, as action 0"]
    short = Schedule(name="x", rank_of_stage=(0, 1), microbatches=2, orders=(one.orders[0][:-1], one.orders[1]))
    assert problems(short) == ["rank 0: 0B1, or 0I1 and 0W1, must occur once"]
    strange = Schedule(
        name="x", rank_of_stage=(0, 1), microbatches=2,
        orders=(one.orders[0], (*one.orders[1], ScheduleAction(7, "F", 0), ScheduleAction(0, "F", 0))),
    )  # fmt: skip
    said = problems(strange)
    assert "rank 1, action 4: 7F0 names a stage or microbatch that is not there" in said
    assert "rank 1, action 5: 0F0 belongs to rank 0" in said


def test_a_deadlock_shows_the_orders():
    first = (ScheduleAction(0, "B", 0), ScheduleAction(0, "F", 0))
    second = (ScheduleAction(1, "F", 0), ScheduleAction(1, "B", 0))
    backwards = Schedule(name="x", rank_of_stage=(0, 1), microbatches=1, orders=(first, second))
    (said,) = problems(backwards)
    assert said.startswith("the order deadlocks")
    assert "0B0 0F0" in said
