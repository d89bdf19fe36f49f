"""What need not be watched: resources that nobody can ask for more than they have."""

from sim.engine.watched import watched
from tests.plans import PlanMaker


def loads_of(maker, names):
    """Watched resources of each op, by name."""
    plan = maker.plan()
    found = watched(plan)
    return {row.name: [names[r] for r, _ in loads] for row, loads in zip(plan.ops, found, strict=True)}


def test_a_resource_of_one_stream_is_not_watched():
    """The stream runs one op at a time, whatever each asks for up to all there is."""
    maker = PlanMaker({"link": 1.0, "sm": 1.0}, ranks=1, streams=("compute", "comm"), group_sizes=())
    maker.op("gemm", stream="compute", duration=1.0, loads={"sm": 1.0})
    maker.op("reduce", stream="comm", duration=1.0, loads={"link": 1.0, "sm": 0.1})
    maker.op("gather", stream="comm", duration=1.0, loads={"link": 1.0})
    assert loads_of(maker, ["link", "sm"]) == {"gemm": ["sm"], "reduce": ["sm"], "gather": []}


def test_two_streams_that_fit_together_are_not_watched_and_three_that_do_not_are():
    maker = PlanMaker({"hbm": 1.0}, ranks=1, streams=("a", "b", "c"), group_sizes=())
    maker.op("one", stream="a", duration=1.0, loads={"hbm": 0.5})
    maker.op("two", stream="b", duration=1.0, loads={"hbm": 0.5})
    assert loads_of(maker, ["hbm"]) == {"one": [], "two": []}
    maker.op("three", stream="c", duration=1.0, loads={"hbm": 0.1})
    assert loads_of(maker, ["hbm"]) == {"one": ["hbm"], "two": ["hbm"], "three": ["hbm"]}
