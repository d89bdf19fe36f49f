"""A ring all-reduce, step by step: ``python plots/ring_steps.py``.

Four ranks, four chunks. Each cell says whose parts a rank has added up in a chunk: the first n - 1 steps are the
reduce-scatter, the last n - 1 the all-gather. In each step every rank sends one chunk, a quarter of the buffer, to
its neighbour: 2 (n - 1) / n of the buffer in all. The states are found by doing it, not written down.
"""

from __future__ import annotations

from common import keep
from matplotlib.figure import Figure

RANKS = 4
SHADES = {1: "#DDDDDD", 2: "#B7B1E6", 3: "#8F86D6", 4: "#117733"}  # how many ranks' parts are in a chunk
State = list[list[frozenset[int]]]


def steps(ranks: int) -> list[tuple[State, list[tuple[int, int]]]]:
    """(what each rank has in each chunk, (rank, chunk) that arrived) before the first step and after each."""
    have = [[frozenset({rank})] * ranks for rank in range(ranks)]
    found = [(have, [])]
    for step in range(2 * (ranks - 1)):
        gather = step >= ranks - 1
        after = [list(row) for row in have]
        arrived = []
        for rank in range(ranks):
            chunk = (rank + 1 - (step - ranks + 1) if gather else rank - step) % ranks
            to = (rank + 1) % ranks
            after[to][chunk] = have[rank][chunk] if gather else have[rank][chunk] | have[to][chunk]
            arrived.append((to, chunk))
        have = after
        found.append((have, arrived))
    return found


if __name__ == "__main__":
    states = steps(RANKS)
    assert all(chunk == frozenset(range(RANKS)) for row in states[-1][0] for chunk in row)
    figure = Figure(figsize=(12.5, 2.6), layout="constrained")
    axes = figure.subplots(1, len(states), sharey=True)
    for number, (ax, (have, arrived)) in enumerate(zip(axes, states, strict=True)):
        for rank, row in enumerate(have):
            for chunk, parts in enumerate(row):
                new = (rank, chunk) in arrived
                ax.barh(rank, 1, left=chunk, height=1, color=SHADES[len(parts)], edgecolor="white", lw=1.5)
                words, ink = "".join(str(one) for one in sorted(parts)), "black" if len(parts) < RANKS else "white"
                weight = "bold" if new else "normal"
                ax.text(chunk + 0.5, rank, words, ha="center", va="center", fontsize=8.5, color=ink, weight=weight)
        half = "reduce-scatter" if number < RANKS else "all-gather"
        ax.set_title("before" if number == 0 else f"{half} {(number - 1) % (RANKS - 1) + 1}", fontsize=9)
        ax.set_xlim(0, RANKS)
        ax.set_ylim(RANKS - 0.5, -0.5)
        ax.set_xticks([i + 0.5 for i in range(RANKS)], [str(i) for i in range(RANKS)], fontsize=8)
        ax.set_yticks(range(RANKS), [f"rank {rank}" for rank in range(RANKS)], fontsize=8.5)
        ax.set_xlabel("chunk", fontsize=8.5)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    words = "in each cell: the ranks whose parts are added up; bold: just arrived from the rank above (rank 0: from 3)"
    figure.suptitle(words, x=0.01, ha="left", fontsize=9)
    keep(figure, "ring_steps")
    print(f"{len(states) - 1} steps; each rank sends {2 * (RANKS - 1)}/{RANKS} of the buffer")
