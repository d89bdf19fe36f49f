"""The orders of the schedules against closed forms of their papers: bubbles, activations in flight, warm-ups.

A bubble here is the makespan of equal stages with free messages, less what a rank has to do.
"""

import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ScenarioError
from sim.workload.schedules.check import validate
from sim.workload.schedules.dry_run import dry_run
from sim.workload.schedules.paired import paired
from sim.workload.schedules.table import SCHEDULES, make

UNEQUAL = [(1, 1, 1), (1, 1.5, 0.5), (2, 1, 1), (1, 0.75, 1), (3, 4, 2)]
STAGES = {"zb-v": 2, "dualpipev": 2, "interleaved": 2}


def sized(name, p, m, v):
    """The schedule with p, m, v brought to what it takes."""
    if name == "interleaved":
        return make(name, p, p * max(1, m // p), max(v, 2))
    if name == "dualpipe":
        p += p % 2
        return make(name, p, max(2 * p, m + m % 2), 1)
    if name == "dualpipev":
        return make(name, p, max(2 * p, m), 2)
    return make(name, p, m, STAGES.get(name, 1))


def idle(schedule, *times):
    """Makespan less the work of each rank."""
    run = dry_run(schedule, *times)
    return [run.makespan - busy for busy in run.busy]


@pytest.mark.parametrize("name", SCHEDULES)
@given(p=st.integers(1, 8), m=st.integers(1, 24), v=st.integers(2, 4))
def test_every_schedule_is_sound(name, p, m, v):
    schedule = sized(name, p, m, v)
    assert validate(schedule) == []
    actions = sum(len(a.parts) * (1 if a.kind != "B" else 2) for order in schedule.orders for a in order)
    overlapped = sum(a.kind == "OVERLAP" for order in schedule.orders for a in order)
    whole = schedule.stages * schedule.microbatches
    assert actions + overlapped == 3 * whole, "F, I and W of every microbatch on every stage, B for two of them"


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@given(p=st.integers(1, 8), m=st.integers(1, 24))
def test_bubble_of_gpipe_and_one_f_one_b(name, p, m):
    """(p-1)/(m+p-1) of the step: Huang et al. 2019, §2.3; Narayanan et al. 2021, §2.2.1. Here t_B = 2 t_F."""
    run = dry_run(make(name, p, m, 1), 1, 1, 1)
    for busy in run.busy:
        assert 1 - busy / run.makespan == pytest.approx((p - 1) / (m + p - 1))


@given(p=st.integers(1, 8), groups=st.integers(1, 4), v=st.integers(2, 4))
def test_bubble_of_interleaving(p, groups, v):
    """(p-1)/(v m) of the ideal time: Narayanan et al. 2021, §2.2.2; that is (p-1)/(v m + p-1) of the step."""
    m = p * groups
    run = dry_run(make("interleaved", p, m, v), 1, 1, 1)
    for busy in run.busy:
        assert (run.makespan - busy) / busy == pytest.approx((p - 1) / (v * m))
        assert 1 - busy / run.makespan == pytest.approx((p - 1) / (v * m + p - 1))


@pytest.mark.parametrize("times", [t for t in UNEQUAL if t[2] <= t[1]])
@pytest.mark.parametrize("p", [1, 2, 4, 7])
def test_bubble_of_zero_bubble_h1(p, times):
    """(p-1)(t_F + t_I - t_W): Qi et al. 2023, table 2 (t_I is their T_B), with t_W <= t_I and m >= p."""
    f, i, w = times
    for m in (p, p + 3, 24):
        assert idle(make("zb-h1", p, m, 1), f, i, w) == pytest.approx([(p - 1) * (f + i - w)] * p)


@given(p=st.integers(1, 8), more=st.integers(0, 12))
def test_zero_bubble_v_has_none_inside_a_rank(p, more):
    """Qi et al. 2023, §6: no bubble where t_F = t_I = t_W, and enough microbatches, 2p - 1.

    A rank works without pause from its first action to its last. Rank r begins r later than the first and ends
    p - 1 - r earlier than the last, so that the step takes p - 1 more than the work; the paper does away with those by
    not synchronising the optimizer.
    """
    m = 2 * p - 1 + more
    run = dry_run(make("zb-v", p, m, 2), 1, 1, 1)
    for rank, times in enumerate(run.times):
        assert times[0][0] == rank
        assert times[-1][1] == rank + 6 * m
    assert run.makespan == 6 * m + p - 1


@pytest.mark.parametrize("p", [2, 4, 6, 8])
@pytest.mark.parametrize("gain", [0, 0.125, 0.5, 1])
def test_bubble_of_dualpipe(p, gain):
    """(p/2 - 1)(t_F&B + t_B - 3 t_W): DeepSeek-V3 report, table 2; t_B whole, for a rank in the middle, t_F = t_I."""
    for f, i, w in ((1, 1, 1), (1, 1, 0.5), (4, 4, 3)):
        both = f + i + w - gain
        for m in (2 * p, 2 * p + 6):
            middle = idle(make("dualpipe", p, m, 1), f, i, w, both)[p // 2 - 1 : p // 2 + 1]
            assert middle == pytest.approx([(p / 2 - 1) * (both + (i + w) - 3 * w)] * 2)


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize("gain", [0, 0.5])
def test_bubble_of_dualpipev(p, gain):
    """(p' / 2 - 1)(t_F&B + t_B - 3 t_W) for p' = 2p stages: the table of the published code, on half the ranks."""
    for f, i, w in ((1, 1, 1), (1, 1, 0.5)):
        both = f + i + w - gain
        for m in (2 * p, 2 * p + 3):
            schedule = make("dualpipev", p, m, 2)
            assert schedule.copies == 1
            assert idle(schedule, f, i, w, both)[-1] == pytest.approx((p - 1) * (both + (i + w) - 3 * w))
            assert max(dry_run(schedule, f, i, w, both).in_flight) == 2 * p + 1


@given(half=st.integers(1, 4), times=st.tuples(*[st.integers(1, 20)] * 3), gain=st.integers(0, 5))
def test_bubble_of_dualpipe_with_unequal_parts(half, times, gain):
    """Where t_F is not t_I the bubble lies between the table's and the same with t_F in the place of t_I."""
    f, i, w = times[0], times[1], min(times)
    p, both = 2 * half, f + i + w - min(gain, f, i)
    found = idle(make("dualpipe", p, 3 * p, 1), f, i, w, both)[half]
    assert (half - 1) * (both + min(f, i) - 2 * w) <= found <= (half - 1) * (both + max(f, i) - 2 * w)


@given(p=st.integers(1, 8), m=st.integers(1, 24))
def test_activations_in_flight(p, m):
    """GPipe m; 1F1B p - r; ZB-H1 and ZB-V no more than 1F1B's first rank, whose stage is two of ZB-V's."""
    held = {name: dry_run(make(name, p, m, STAGES.get(name, 1)), 1, 1, 1).in_flight for name in ("gpipe", "1f1b")}
    assert held["gpipe"] == (m,) * p
    assert held["1f1b"] == tuple(min(p - r, m) for r in range(p))
    assert max(dry_run(make("zb-h1", p, m, 1), 1, 1, 1).in_flight) == min(p, m)
    assert max(dry_run(make("zb-v", p, m, 2), 1, 1, 1).in_flight) / 2 == min(p, m)


@pytest.mark.parametrize("p", [2, 4, 8])
def test_dualpipe_keeps_one_activation_more_than_ranks(p):
    """p + 1: DeepSeek-V3 report, table 2."""
    assert dry_run(make("dualpipe", p, 4 * p, 1), 1, 1, 1).in_flight == (p + 1,) * p


@given(p=st.integers(1, 8), groups=st.integers(1, 4), v=st.integers(2, 4))
def test_warmup_of_interleaving(p, groups, v):
    """Megatron-LM: 2(p - r - 1) + (v - 1)p forwards before one forward and one backward in turn; at most all."""
    total = p * groups * v
    for rank, order in enumerate(make("interleaved", p, p * groups, v).orders):
        kinds = "".join(action.kind for action in order)
        assert kinds.index("B") == min(2 * (p - rank - 1) + (v - 1) * p + 1, total)


def test_interleaving_goes_by_groups():
    """Two ranks, four microbatches, two stages a rank: Narayanan et al. 2021, §2.2.2, worked by hand."""
    first, second = make("interleaved", 2, 4, 2).orders
    assert " ".join(map(str, first)) == "0F0 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 0B2 0B3"
    assert " ".join(map(str, second)) == "1F0 1F1 3F0 3B0 3F1 3B1 1F2 1B0 1F3 1B1 3F2 3B2 3F3 3B3 1B2 1B3"


def test_dualpipe_runs_both_ways():
    schedule = make("dualpipe", 4, 10, 1)
    assert schedule.copies == 2
    assert [schedule.direction(k) for k in (0, 4, 5, 9)] == [0, 0, 1, 1]
    assert [schedule.home(0, 0), schedule.home(0, 9), schedule.home(3, 0), schedule.home(3, 9)] == [0, 3, 3, 0]
    for rank, order in enumerate(schedule.orders):
        image = schedule.orders[3 - rank]
        there = [tuple((p.stage, p.kind, (p.microbatch + 5) % 10) for p in a.parts) for a in image]
        assert [tuple(p[:3] for p in a.parts) for a in order] == there, "ranks r and p - 1 - r are mirror images"


@pytest.mark.parametrize(
    ("name", "p", "m", "v", "says"),
    [
        ("interleaved", 4, 6, 2, "groups of p = 4, and m = 6 is not a multiple; set m to 4 or 8, or use 1f1b"),
        ("interleaved", 4, 3, 2, "groups of p = 4, and m = 3 is not a multiple; set m to 4, or use 1f1b"),
        ("interleaved", 4, 8, 1, "v = 1 stage a rank leaves nothing to interleave; set v to 2, or use 1f1b"),
        ("dualpipe", 3, 8, 1, "p = 3 is odd; set p to 4, or use zb-v"),
        ("dualpipe", 4, 9, 1, "set m to 10, or use zb-v"),
        ("dualpipe", 4, 6, 1, "at least p = 4 each; set m to 8, or use zb-v"),
        ("zb-v", 4, 8, 1, "each rank holds v = 2 stages of a copy, not 1; set v to 2"),
        ("1f1b", 4, 8, 2, "each rank holds v = 1 stage of a copy, not 2; set v to 1"),
        ("gpipe", 4, 0, 1, "m microbatches = 0; at least 1 is needed"),
        ("zb-h1", 0, 4, 1, "p pipeline ranks = 0; at least 1 is needed"),
        ("zbv", 4, 8, 2, "no such schedule; there are gpipe, 1f1b, interleaved, zb-h1, zb-v, dualpipe, dualpipev"),
        ("dualpipev", 4, 7, 2, "the phases need at least 2p = 8 microbatches; set m to 8, or use zb-v"),
    ],
)
def test_sizes_that_a_schedule_cannot_serve(name, p, m, v, says):
    with pytest.raises(ScenarioError) as error:
        make(name, p, m, v)
    assert str(error.value).startswith(f"schedule {name} (p = {p}, m = {m}): ")
    assert str(error.value).endswith(says)


@pytest.mark.parametrize("name", SCHEDULES)
def test_large_schedules_are_made_at_once(name):
    """64 ranks, 256 microbatches: up to 1.3e5 actions in less than 0.2 s of this process.

    Best of three, of processor time, without collecting the garbage of other tests: for a busy machine.
    """
    took = []
    gc.disable()
    try:
        for _ in range(3):
            begin = time.process_time()
            make(name, 64, 256, 4 if name == "interleaved" else STAGES.get(name, 1))
            took.append(time.process_time() - begin)
    finally:
        gc.enable()
    assert min(took) < 0.2


@given(p=st.integers(1, 8), groups=st.integers(1, 4), v=st.integers(2, 5), times=st.sampled_from(UNEQUAL))
def test_paired_backwards_keep_the_bubble_and_one_more_activation(p, groups, v, times):
    """Interleaved: a forward and a backward as one take as long as both; every action is there, once."""
    plain = make("interleaved", p, p * groups, v)
    both = paired(plain)
    assert sorted(map(str, parts(both))) == sorted(map(str, parts(plain)))
    before, after = dry_run(plain, *times), dry_run(both, *times)
    assert after.makespan <= before.makespan * (1 + 1e-12)
    more = [b - a for a, b in zip(before.in_flight, after.in_flight, strict=True)]
    assert set(more) <= {0, 1}


@given(m=st.integers(1, 12))
def test_a_lone_rank_pairs_all_but_its_first_forward_and_last_backward(m):
    """(0F1;0B0) and so on: n microbatches give n - 1 pairs, and no more time."""
    plain = make("1f1b", 1, m, 1)
    (order,) = paired(plain).orders
    assert len([action for action in order if action.pair]) == m - 1
    assert dry_run(paired(plain), 1, 1, 1).makespan == dry_run(plain, 1, 1, 1).makespan == 3 * m


def parts(schedule):
    return [part for order in schedule.orders for action in order for part in action.parts]
