"""What is wrong with a schedule is found, named and marked; the dry run and the grid by hand."""

from dataclasses import replace

import pytest

from sim.errors import DeadlockError, ScenarioError
from sim.workload.schedules.check import check, validate
from sim.workload.schedules.dry_run import dry_run
from sim.workload.schedules.grid import grid
from sim.workload.schedules.table import make
from sim.workload.schedules.types import Schedule, ScheduleAction, overlap


def actions(text):
    """Actions from words such as 0F1."""
    return tuple(ScheduleAction(int(w[0]), w[1], int(w[2:])) for w in text.split())


def two_ranks(first, second, **fields):
    given = {"name": "mine", "rank_of_stage": (0, 1), "microbatches": 2} | fields
    return Schedule(orders=(actions(first), actions(second)), **given)


SOUND = ("0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1I1 1W1")


def test_a_sound_schedule_has_no_problem():
    assert validate(two_ranks(*SOUND)) == []
    check(two_ranks(*SOUND))


@pytest.mark.parametrize(
    ("first", "second", "place", "says"),
    [
        ("0F0 0F1 0B0 0B1 0F0", SOUND[1], (0, 4), "rank 0, action 4: 0F0 is done twice: 0F0 was done as action 0"),
        (SOUND[0], SOUND[1] + " 1B1", (1, 5), "rank 1, action 5: 1B1 is too much: 1I1 was done as action 3"),
        ("0F0 0F1 0B0", SOUND[1], (0, 3), "rank 0: 0B1 (or 0I1 and 0W1) is missing"),
        (SOUND[0], "1F0 1B0 1F1 1I1", (1, 4), "rank 1: 1W1 is missing"),
        ("0F0 0B0 0B1", SOUND[1], (0, 2), "rank 0, action 2: 0B1 comes before 0F1"),
        (SOUND[0], "1F0 1B0 1F1 1W1 1I1", (1, 3), "rank 1, action 3: 1W1 comes before 1I1"),
        (SOUND[0] + " 1F0", SOUND[1], (0, 4), "rank 0, action 4: 1F0 belongs to rank 1"),
        (
            SOUND[0] + " 0F2",
            SOUND[1],
            (0, 4),
            "0F2 is not there: the schedule has stages 0 to 1 and microbatches 0 to 1",
        ),
        (
            SOUND[0] + " 7F0",
            SOUND[1],
            (0, 4),
            "7F0 is not there: the schedule has stages 0 to 1 and microbatches 0 to 1",
        ),
    ],
)
def test_what_is_wrong_is_said_and_marked(first, second, place, says):
    schedule = two_ranks(first, second)
    fault = validate(schedule)[0]
    assert (fault.rank, fault.position) == place
    assert fault.what.endswith(says)
    with pytest.raises(ScenarioError) as error:
        check(schedule)
    row = next(line for line in str(error.value).splitlines() if "<-- here" in line)
    cell = str(schedule.orders[place[0]][place[1]]) + " " if place[1] < len(schedule.orders[place[0]]) else ""
    assert row.startswith(f"rank {place[0]} ")
    assert f"{cell}<-- here" in row


def test_the_marked_cell_stands_in_the_grid():
    with pytest.raises(ScenarioError) as error:
        check(two_ranks("0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1W1 1I1"))
    assert str(error.value) == (
        "schedule mine: rank 1, action 3: 1W1 comes before 1I1\n"
        "action 0   1   2   3            4   5 6 7\n"
        "rank 0 0F0 0F1 0B0 0B1\n"
        "rank 1 1F0 1B0 1F1 1W1 <-- here 1I1"
    )


def test_each_stuck_rank_of_a_deadlock_is_told():
    """Rank 1 begins with the second microbatch, and rank 0 wants the first one back before it sends the second."""
    schedule = two_ranks("0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1")
    waiting = [
        "rank 0, action 1: 0B0 waits for the input gradients of microbatch 0 on stage 1; rank 1 does it as action 2",
        "rank 1, action 0: 1F1 waits for 0F1; rank 0 does it as action 2",
    ]
    assert [str(fault) for fault in validate(schedule)] == waiting
    with pytest.raises(DeadlockError) as error:
        dry_run(schedule, 1, 1, 1)
    assert str(error.value).splitlines() == waiting
    with pytest.raises(ScenarioError) as refused:
        check(schedule)
    assert "rank 1 1F1 <-- here 1F0" in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rank_of_stage": (0, 2)}, "stage 1 lives on rank 2, but there are 2 ranks"),
        ({"rank_of_stage": ()}, "a schedule needs at least one rank, one stage and one microbatch"),
        ({"copies": 3}, "3 copies of the parameters; there may be 1, or 2 in opposite directions"),
        ({"copies": 2, "microbatches": 3}, "two copies share the microbatches evenly, and 3 is odd"),
    ],
)
def test_the_shape_is_checked_first(fields, says):
    assert [fault.what for fault in validate(two_ranks(*SOUND, **fields))] == [says]


def test_a_rank_without_a_stage():
    faults = validate(two_ranks("0F0 0B0", "", rank_of_stage=(0,), microbatches=1))
    assert [fault.what for fault in faults] == ["rank 1 does nothing and holds no stage; leave it out"]


def test_an_overlap_is_a_forward_and_a_backward():
    good = make("dualpipe", 2, 4, 1)
    assert validate(good) == []
    at = next(i for i, action in enumerate(good.orders[0]) if action.pair)
    forward, backward = good.orders[0][at].pair
    for wrong in (overlap(backward, forward), ScheduleAction(0, "OVERLAP", 0), forward._replace(pair=(backward,))):
        row = (*good.orders[0][:at], wrong, *good.orders[0][at + 1 :])
        fault = validate(replace(good, orders=(row, good.orders[1])))[0]
        assert fault.what == f"rank 0, action {at}: an overlap holds a forward and a backward, nothing else does"


def test_a_microbatch_of_the_other_direction_lives_elsewhere():
    good = make("dualpipe", 2, 4, 1)
    one = replace(good, copies=1)
    assert validate(one)[0].what == "rank 0, action 1: 1F2 belongs to rank 1"


def test_many_problems_are_counted():
    schedule = two_ranks(SOUND[0] + " 0F0" * 30, SOUND[1])
    assert len(validate(schedule)) == 30
    with pytest.raises(ScenarioError) as error:
        check(schedule)
    assert len(error.value.problems) == 20
    assert "(and 10 more problems)" in str(error.value)


def test_dry_run_by_hand():
    """t_F = 1, t_I = 3, t_W = 2: rank 1 goes 1..2, 2..7, 7..8, 8..11, 11..13; rank 0 waits until 7, then until 12."""
    run = dry_run(two_ranks(*SOUND), 1, 3, 2)
    assert run.times == (
        ((0, 1), (1, 2), (7, 12), (12, 17)),
        ((1, 2), (2, 7), (7, 8), (8, 11), (11, 13)),
    )
    assert (run.makespan, run.busy, run.in_flight) == (17, (12, 12), (2, 1))


def test_an_overlap_takes_its_own_time():
    schedule = make("dualpipe", 2, 4, 1)
    both = sum(1 for action in schedule.orders[0] if action.pair)
    slow, fast = dry_run(schedule, 1, 1, 1), dry_run(schedule, 1, 1, 1, 2)
    assert both > 0
    assert slow.busy[0] - fast.busy[0] == both


def test_grid_by_hand():
    assert grid(two_ranks(*SOUND)) == (
        "time   | 0   1   2   3   4   5   6   7\n"
        "rank 0 | 0F0 0F1 .   .   0B0==== 0B1====\n"
        "rank 1 | .   1F0 1B0==== 1F1 1I1 1W1 .\n"
    )


def test_grid_in_other_units():
    said = grid(make("1f1b", 1, 1, 1), (2, 1, 2))
    assert said == "time   | 0 1 2 3 4\nrank 0 | 0F0 0B0==\n"


@pytest.mark.parametrize("units", [(1, 0, 1), (1, 0.5, 1)])
def test_grid_wants_whole_units(units):
    with pytest.raises(ScenarioError, match="whole units of at least 1"):
        grid(make("1f1b", 2, 2, 1), units)
