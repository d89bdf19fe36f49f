"""Plans that cannot go on, or not begin: refused with the names of all that is blocked, never dropped in silence."""

import pytest
from plans import PlanMaker

from sim.engine.core import simulate
from sim.errors import DeadlockError

LINK = {"link": 1.0, "other": 1.0}


def test_a_queue_of_nothing_is_refused():
    maker = PlanMaker(LINK, launch_queue=0)
    maker.op("a", 1.0)
    with pytest.raises(ValueError, match="launch_queue = 0"):
        simulate(maker.plan())


def test_unsignalled_token_is_named():
    maker = PlanMaker(LINK)
    maker.op("a", 1.0, waits=("never",))
    with pytest.raises(DeadlockError, match=r"rank0, stream compute, microbatch 0: a waits for 'never'"):
        simulate(maker.plan())


def test_deadlock_names_each_blocked_op_and_what_it_waits_for():
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2, 2))
    for rank, order in enumerate(((0, 1), (1, 0))):
        before = ()
        for group in order:
            before = (maker.op(f"r{rank}g{group}", 1.0, rank=rank, deps=before, group=group),)
    with pytest.raises(DeadlockError) as caught:
        simulate(maker.plan())
    said = str(caught.value)
    here = "rank0, stream compute, microbatch 0: r0g0 waits for its peers: "
    assert here + "rank1 has yet to do r1g0, behind r1g1" in said
    here = "rank1, stream compute, microbatch 0: r1g1 waits for its peers: "
    assert here + "rank0 has yet to do r0g1, behind r0g0" in said


def test_deadlock_looks_past_the_last_op_of_a_stream_and_through_a_held_host():
    """Rank 1 meets in the other order, ops follow, and rank 0's host waits for a sync that cannot end."""
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2, 2))
    maker.op("r0g0", 1.0, group=0, sync=True)
    maker.op("r0g1", 1.0, group=1)
    maker.op("r1g1", 1.0, rank=1, group=1)
    maker.op("r1g0", 1.0, rank=1, group=0)
    maker.op("more", 1.0, rank=1)
    with pytest.raises(DeadlockError) as caught:
        simulate(maker.plan())
    said = str(caught.value)
    assert "r0g0 waits for its peers: rank1 has yet to do r1g0, behind r1g1" in said
    assert "r1g1 waits for its peers: the host of rank0 is held, behind r0g0" in said
    assert "rank0: the host waits for r0g0" in said


def test_deadlock_of_a_peer_that_has_ended():
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2,))
    maker.op("r0", 1.0, group=0)
    maker.op("again", 1.0, group=0)
    maker.op("r1", 1.0, rank=1, group=0)
    with pytest.raises(DeadlockError, match="again waits for its peers: rank1 has ended its program"):
        simulate(maker.plan())


def test_deadlock_of_a_peer_that_is_blocked_itself_and_has_no_more_ops_for_it():
    """Rank 0 wants to meet twice at group 0, rank 1 once, and then at group 1: it has not ended, it hangs there."""
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2, 2))
    for group in (0, 0, 1):
        maker.op(f"r0g{group}", 1.0, group=group)
    for group in (0, 1):
        maker.op(f"r1g{group}", 1.0, rank=1, group=group)
    said = r"r0g0 waits for its peers: rank1 has no more op for it, and is itself blocked at r1g1"
    with pytest.raises(DeadlockError, match=said):
        simulate(maker.plan())


@pytest.mark.parametrize("dep", [1, -1])
def test_an_op_that_waits_for_itself_is_not_lost(dep):
    """Index 1 is the op itself, and so is the last one issued: it can never run, and a step without it is no step."""
    maker = PlanMaker(LINK)
    maker.op("a", 1.0)
    maker.op("b", 1.0, stream="comm", deps=(dep,))
    with pytest.raises(DeadlockError, match=r"stream comm, microbatch 0: b waits for an op that is not before it"):
        simulate(maker.plan())


def test_a_rank_cannot_meet_itself():
    """Two ops of rank 0 at one rendezvous of two, on two streams: without rank 1, they would pass for peers."""
    maker = PlanMaker(LINK, ranks=2, group_sizes=(2,))
    maker.op("a", 1.0, stream="comm", group=0)
    maker.op("b", 1.0, stream="copy", group=0)
    late = maker.op("work", 5.0, rank=1)
    maker.op("c", 1.0, rank=1, stream="comm", group=0, deps=(late,))
    with pytest.raises(ValueError, match="rank0: b comes to a rendezvous from stream copy, others before from comm"):
        simulate(maker.plan())


def test_deadlock_looks_into_a_chain_that_has_not_come_to_its_rendezvous():
    """Rank 1 is kept from its layer by a message that rank 2 never takes; rank 0 waits for it inside the layer."""
    maker = PlanMaker(LINK, ranks=3, streams=("compute", "tp", "pp"), group_sizes=(2, 2))
    for rank in (0, 1):
        last = () if rank == 0 else (maker.op("message", 1.0, rank=1, stream="pp", group=1),)
        for i in range(2):
            last = (maker.op(f"r{rank}k{i}", 1.0, rank=rank, deps=last),)
            last = (maker.op(f"r{rank}c{i}", 1.0, rank=rank, stream="tp", group=0, deps=last),)
    maker.op("alone", 1.0, rank=2)
    with pytest.raises(DeadlockError) as caught:
        simulate(maker.plan())
    said = str(caught.value)
    assert "r0c0 waits for its peers: rank1 has yet to do r1c0, behind message" in said
