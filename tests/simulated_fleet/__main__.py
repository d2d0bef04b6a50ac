"""A simulated fleet with known answers: `PYTHONPATH=tests python -m simulated_fleet traces DIR`.

traces  trace directories made from the recorded experiments, and truth.json: what `fleet` must find in them
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from simulated_fleet.trace_fleet import size_on_disk, write_fleet


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulated_fleet", description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    traces = actions.add_parser("traces", help="write traces into a new folder")
    traces.add_argument("directory", type=Path)
    traces.add_argument("--number", type=int, default=1000)
    traces.add_argument("--seed", type=int, default=1)
    traces.add_argument("--hosts", type=int, default=50)
    traces.add_argument("--days", type=int, default=7)
    traces.add_argument("--workloads", type=int, default=30)
    traces.add_argument("--broken", type=int, default=0, help="damage that many of them")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Do what is asked for, and return the exit status."""
    options = vars(arguments(argv))
    options.pop("action")
    begin_s = time.perf_counter()
    top: Path = options.pop("directory")
    truth = write_fleet(top, **options)
    lasted_s = time.perf_counter() - begin_s
    print(
        f"{truth['traces']} traces and {len(truth['broken'])} damaged ones in {lasted_s:.1f} s, "
        f"{size_on_disk(top) / 1e6:.1f} MB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
