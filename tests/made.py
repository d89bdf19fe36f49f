"""Made-up steps for analysis tests: ops by hand, run by the engine, every number known beforehand."""


from msgspec.structs import replace as changed
from plans import PlanMaker

from sim.timeline.columns import MemoryRow


class Made(PlanMaker):
    """A plan whose ops have a category, a kind and memory effects."""

    def add(self, name, duration, category="forward", *, kind="none", size=0.0, memory=(), phase="F", **more):
        index = self.op(name, duration, **more)
        row = changed(self.rows[-1], category=category, kind=kind, size=size, memory=tuple(memory), phase=phase)
        self.rows[-1] = row
        return index


def made(**more):
    return Made({"link": 1.0, "sm": 1.0}, **more)


def holds(owner, size, *, at_end=False, where="gpu"):
    """A memory effect."""
    return MemoryRow(owner=owner, size=size, at_end=at_end, where=where)
