"""Which of two runs is faster: what makes a pair, what a right sign is, the noise that no simulator can foretell."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.validation.noise import floor
from sim.validation.ratios import KINDS, Timed, pairs, ratios
from sim.validation.rows import Row

CELLS = {
    "id": "a", "source": "made", "layers": "4", "hidden": "512", "seq_len": "1024", "gpu": "a100-sxm-80gb", "gpus": "8",
    "tp": "1", "pp": "1", "dp": "8", "micro_batch": "1", "global_batch": "32", "recompute": "none",
}  # fmt: skip


def timed(measured, simulated, stack="one", file="t.csv", **cells):
    said = {**CELLS, **{key: str(value) for key, value in cells.items()}}
    return Timed(row=Row(file, 2, said), stack=stack, measured=measured, simulated=simulated)


def kinds(*found):
    return [(pair.kind, pair.slower.measured, pair.right) for pair in pairs(found)]


def test_a_pair_differs_in_one_thing():
    a = timed(2.0, 2.0, id="x", notes="Monday", group="g", memory_gib=3)
    assert kinds(a, timed(1.0, 1.0, micro_batch=2)) == [("micro-batch", 2.0, True)]
    assert kinds(a, timed(3.0, 1.0, tp=2, dp=4, sequence_parallel=1)) == [("TP against DP", 3.0, False)]
    assert kinds(timed(1.0, 1.0, tp=2, dp=4), timed(2.0, 2.0, pp=2, dp=4)) == [("TP against PP", 2.0, True)]
    full = timed(1.42, 1.40, recompute="full")
    assert kinds(full, timed(1.1, 1.0, recompute="selective", sequence_parallel=1)) == [("recompute", 1.42, True)]


@pytest.mark.parametrize(
    "other",
    [
        {},  # the same again is noise, not a pair
        {"micro_batch": 2, "recompute": "full"},  # two things
        {"micro_batch": 2, "global_batch": 64},  # other work
        {"micro_batch": 2, "seq_len": 512},
        {"gpus": 16, "dp": 16},  # more GPUs are faster, which is no question
        {"micro_batch": 2, "stack": "another"},
        {"micro_batch": 2, "file": "u.csv"},
        {"tp": 2},  # TP must be paid for by DP, PP or CP
    ],
)
def test_what_is_no_pair(other):
    assert pairs([timed(1.0, 1.0), timed(2.0, 2.0, **other)]) == []


def test_two_measured_networks_are_one_if_they_are_alike():
    slow, fast, other = (timed(1.0, 1.0, micro_batch=i, measured_world_allreduce_busbw_GBps=bw) for i, bw in
                         ((1, 100), (2, 115), (3, 200)))  # fmt: skip
    assert len(pairs([slow, fast])) == 1
    assert len(pairs([slow, fast, other])) == 1


def test_shares_count_pairs_that_differ():
    """Four micro-batches of 1.00, 1.02, 1.20 and 1.50 s: six pairs, one a tie; the last two are swapped here."""
    found = ratios(
        [timed(m, s, micro_batch=i) for i, (m, s) in enumerate(((1, 1), (1.02, 0.9), (1.2, 1.5), (1.5, 1.4)))]
    )
    assert (found["pairs"], found["differ"], found["right"], found["share"]) == (6, 5, 4, 0.8)
    (kind,) = found["kinds"]
    assert (kind["kind"], kind["pairs"]) == ("micro-batch", 6)
    (wrong,) = found["worst"]
    assert (wrong["slower"]["cells"], wrong["faster"]["cells"]) == ({"micro_batch": "3"}, {"micro_batch": "2"})
    assert wrong["measured"] == pytest.approx(1.25)
    assert wrong["simulated"] == pytest.approx(1.4 / 1.5)
    assert found["few"] == []


def test_no_pairs_have_no_share():
    found = ratios([timed(1.0, 1.0)])
    assert (found["pairs"], found["share"], found["ratio_error"], found["kinds"]) == (0, None, None, [])


TIMES = st.floats(0.01, 100.0)


@given(st.lists(st.tuples(TIMES, TIMES, st.sampled_from([1, 2, 4]), st.sampled_from([1, 2])), max_size=9))
def test_pairs_are_those_that_every_two_rows_make(given_rows):
    """Against looking at every two rows; whoever simulates what was measured is right in all, the inverse in none."""
    rows = [timed(m, s, micro_batch=b, vpp=v, pp=2, dp=4) for m, s, b, v in given_rows]
    moved = {"micro-batch": "micro_batch", "interleaving": "vpp"}
    expected = 0
    for a, b in combinations(rows, 2):
        expected += sum(a.row.text(column) != b.row.text(column) for column in moved.values()) == 1
    assert len(pairs(rows)) == expected
    for power, share in ((1, 1.0), (-1, 0.0)):
        exact = [timed(r.measured, r.measured**power, **r.row.cells) for r in rows]
        assert ratios(exact)["share"] in (share, None)
        assert len(ratios(exact[::-1])["worst"]) == len(ratios(exact)["worst"])


def test_every_kind_says_what_moves():
    assert all(kind.moved and not set(kind.moved) & set(kind.along) for kind in KINDS.values())


def test_the_noise_floor_is_the_error_of_the_best_single_number():
    """1.0 and 1.1 s for one scenario: 1.0 is 1/11 off the second, 1.1 a tenth off the first."""
    found = floor([("a", 1.0), ("a", 1.1), ("b", 5.0), ("c", 7.0)])
    assert (found["rows"], found["scenarios"]) == (2, 1)
    assert found["spread"] == pytest.approx(0.1)
    assert found["mape"] == pytest.approx(1 / 11 / 2)
    assert found["all"] == pytest.approx(1 / 11 / 4)
    assert floor([])["all"] is None
    assert floor([("a", 1.0)])["mape"] is None


@given(st.lists(TIMES, min_size=2, max_size=6), TIMES)
def test_no_single_number_is_below_the_noise_floor(times, guess):
    off = sum(abs(guess / t - 1) for t in times) / len(times)
    assert floor([("a", t) for t in times])["mape"] <= off + 1e-9
