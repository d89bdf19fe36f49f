"""Schedules in and out of the CSV of torch pipelining; hostile text is refused with row and column."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sim.errors import ScenarioError
from sim.workload.schedules.csv_text import LIMIT, from_csv, to_csv
from sim.workload.schedules.table import SCHEDULES, make


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("p", [2, 4])
def test_there_and_back(name, p):
    schedule = make(name, p, 3 * p, {"interleaved": 3, "zb-v": 2, "dualpipev": 2}.get(name, 1))
    read = from_csv(to_csv(schedule), name)
    assert read.schedule == schedule, "where stages live and the copies follow from the cells"
    assert read.dropped == 0


def test_cells_print_as_in_torch():
    assert to_csv(make("zb-h1", 2, 2, 1)) == "0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n"
    assert "(1F3;0B0)OVERLAP_F_B" in to_csv(make("dualpipe", 2, 4, 1))


def test_messages_parameters_and_idle_steps_are_dropped():
    text = (
        "0UNSHARD,0F0,0SEND_F0,,0RECV_B0,0B0,0REDUCE_GRAD,0RESHARD\r\n"
        ' ,1UNSHARD,1RECV_F0, "1F0" ,1I0,1SEND_B0,1W0,,\r\n\n'
    )
    read = from_csv(text)
    assert read.dropped == 8
    assert to_csv(read.schedule) == "0F0,0B0\n1F0,1I0,1W0\n"
    assert read.schedule.rank_of_stage == (0, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "s.csv: no cell is a forward or a backward; a row a rank, with cells such as 2F0"),
        ("0UNSHARD", "s.csv: no cell is a forward or a backward; a row a rank, with cells such as 2F0"),
        (
            "0F0, 0X0",
            "s.csv:1:6: '0X0' is not an action: a stage, one of F B I W, a microbatch (2F0), each below 1000000",
        ),
        ("0F0,0B", "s.csv:1:5: '0B' is not an action: a stage, one of F B I W, a microbatch (2F0), each below 1000000"),
        ("0F0,0B0 1F0", "s.csv:1:5: '0B0 1F0' is not an action"),
        ("0F0\n-1F0", "s.csv:2:1: '-1F0' is not an action"),
        ("\u0663F0", "s.csv:1:1: '\\u0663F0' is not an action"),
        ("0F1000000", "s.csv:1:1: '0F1000000' is not an action"),
        ("0F" + "9" * 5000, "s.csv:1:1: '0F99999999999999999999999999999999999...' is not an action"),
        ("0F0,0BW0", "s.csv:1:5: '0BW0' is the older spelling; write B for the whole backward, I for input gradients"),
        ("(0F0;0I0)OVERLAP_F_B", "s.csv:1:1: '(0F0;0I0)OVERLAP_F_B' must overlap a forward and a whole backward"),
        ("(0F0;0B0;0W0)OVERLAP_F_B", "s.csv:1:1: '(0F0;0B0;0W0)OVERLAP_F_B' is not an action"),
        (
            "0F0,999999F999999",
            "s.csv: 1000000 stages and 1000000 microbatches (numbered from 0) make 1000000000000 forw",
        ),
        ("0F0,0B0\n\n1F0,1B0", "s.csv:2:1: rank 1 does nothing and holds no stage; leave it out"),
        ("0F0,0F0,0B0", "s.csv:1:5: rank 0, action 1: 0F0 is done twice: 0F0 was done as action 0"),
        ("0F0,0SEND_F0,0W0,0I0", "s.csv:1:14: rank 0, action 1: 0W0 comes before 0I0"),
        ("0F0,0B0,0F1", "s.csv:1:1: rank 0: 0B1 (or 0I1 and 0W1) is missing"),
        ("0F0,0B0\n0F0,0B0", "s.csv:2:1: rank 1, action 0: 0F0 belongs to rank 0"),
        ("0F0,0B0,0F1,0B1\n1F1,1F0,1B0,1B1", "s.csv:1:5: rank 0, action 1: 0B0 waits for the input gradients of"),
        (
            "0F0,0F1,0B0,0B1\n1F1,1F0,1B0,1B1",
            "s.csv:2:1: rank 1, action 0: 1F1 comes where 0F0 is the next message of stage 0, and messages betw",
        ),
        (
            "0F0,1F1,0B0,1B1\n0F1,1F0,1B0,0B1",
            "s.csv:1:9: rank 0, action 2: the gradients of stage 0 are complete here where rank 1, which reduces",
        ),
        ("x" * (LIMIT + 1), f"s.csv: the text has {LIMIT + 1} characters; at most {LIMIT} (4 MiB) are read"),
        ("\n" * 70_000 + "0F0", "s.csv: 70001 rows; a row is a rank, and there may be 65536"),
    ],
)
def test_malformed_and_unsound_text_is_refused(text, says):
    with pytest.raises(ScenarioError) as error:
        from_csv(text, "s.csv")
    assert str(error.value).startswith(says)
    assert len(str(error.value)) < 10_000


def test_unsound_schedules_are_drawn():
    with pytest.raises(ScenarioError, match=r"rank 0 0F0 0F0 <-- here 0B0"):
        from_csv("0F0,0F0,0B0")


def test_problems_are_limited():
    with pytest.raises(ScenarioError) as error:
        from_csv("x," * 100_000)
    assert len(error.value.problems) == 20
    with pytest.raises(ScenarioError) as error:
        from_csv("0F0," * 20_000)
    assert len(error.value.problems) == 20
    assert "(and at least 980 more problems)" in str(error.value)


def test_a_long_chain_is_checked_quickly():
    """5,000 ranks of one microbatch: work grows with the actions, not with their square."""
    read = from_csv("\n".join(f"{s}F0,{s}B0" for s in range(5_000)))
    assert read.schedule.stages == 5_000


@given(st.text(max_size=60))
@example("(;)OVERLAP_F_B")
@example("()OVERLAP_F_B,\x00,\ud800")
def test_any_text_is_read_or_refused(text):
    try:
        schedule = from_csv(text).schedule
    except ScenarioError:
        return
    assert from_csv(to_csv(schedule)).schedule == schedule


@given(st.text(alphabet="01FBIW,;()\n", max_size=40))
def test_nearly_schedules_are_read_or_refused(text):
    try:
        schedule = from_csv(text).schedule
    except ScenarioError:
        return
    assert from_csv(to_csv(schedule)).schedule == schedule
