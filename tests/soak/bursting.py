"""A process that makes and removes many cgroups at once: `python -m soak.bursting DIRECTORY NUMBER`.

At each line of stdin it makes NUMBER empty cgroups, keeps them for `HELD_S`, removes them, and prints their
number. It ends with stdin.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

HELD_S: Final = 30.0


def main(directory: str, number: str) -> int:
    """Make cgroups below `directory` until the end of stdin."""
    for _ in sys.stdin:
        made = []
        try:
            for place in range(int(number)):
                made.append(Path(directory, f"burst-{place}"))
                made[-1].mkdir()
            time.sleep(HELD_S)
        finally:
            for cgroup in made:
                cgroup.rmdir()
        print(len(made), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
