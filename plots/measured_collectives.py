"""All-reduces against published nccl-tests sweeps, 4 GPUs to 1024 nodes: ``python plots/measured_collectives.py``.

The table of the same figures is ``python benchmarks/collectives.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import keep, some

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from collectives import draw, systems


def main() -> None:
    """Draw every system; in a quick run the first and the last."""
    keep(draw(list(some(systems()))), "collectives")


if __name__ == "__main__":
    main()
