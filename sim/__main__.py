"""``python -m sim`` is ``stepline``."""

from sim.cli import main

if __name__ == "__main__":
    main()
