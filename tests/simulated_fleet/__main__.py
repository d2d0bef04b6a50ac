"""A simulated fleet with known answers: `PYTHONPATH=tests python -m simulated_fleet traces DIR`.

judge   limits from a week of known needs, replayed on the next week: and kills and slack of each rule
traces  trace directories made from the recorded experiments, and truth.json: what `fleet` must find in them
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from simulated_fleet.judging import REPORTED_SEEDS, scores, stated
from simulated_fleet.score_tables import table_of_rates, tables
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
    judge = actions.add_parser("judge", help="compare the rules for limits")
    judge.add_argument("--seeds", type=_seeds, default=REPORTED_SEEDS, metavar="FIRST-LAST")
    return parser.parse_args(argv)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(argv: list[str]) -> int:
    """Do what is asked for, and return the exit status."""
    options = vars(arguments(argv))
    begin_s = time.perf_counter()
    if options.pop("action") == "judge":
        with ProcessPoolExecutor() as workers:
            found = dict(zip(options["seeds"], workers.map(scores, options["seeds"]), strict=True))
            rates = list(workers.map(stated, options["seeds"]))
        print(tables(found), table_of_rates(rates), sep="\n\n")
        print(f"{len(found)} fleets in {time.perf_counter() - begin_s:.0f} s", file=sys.stderr)
        return 0
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
