"""Approaches to a memory limit, recorded and replayed: `PYTHONPATH=tests python -m approaches record FILE`.

record  carry out the planned approaches of a seed, as root, and write their samples to FILE
score   replay the approaches of files, and print what the rule of `watch --on soon` makes of each
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from approaches.plans import plans
from approaches.recording import record
from approaches.scores import Score, scores


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="approaches", description=(__doc__ or "").partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    recording = actions.add_parser("record", help="carry out and record approaches")
    recording.add_argument("file", type=Path)
    recording.add_argument("--seed", type=int, default=1)
    recording.add_argument("--at-once", type=int, default=8)
    recording.add_argument("--fastest", type=float, default=1000, metavar="MIB_A_SECOND")
    recording.add_argument("--half", action="store_true", help="half as many of each kind")
    scoring = actions.add_parser("score", help="replay recorded approaches")
    scoring.add_argument("files", type=Path, nargs="+")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Do what is asked for, and return the exit status."""
    options = arguments(argv)
    if options.action == "record":
        chosen = list(plans(options.seed, fastest=options.fastest, is_half=options.half))
        record(chosen, options.file, options.at_once)
        return 0
    for file in options.files:
        found = scores(file)
        for name, score in (found | {"all": sum(found.values(), Score())}).items():
            print(
                f"{file.stem:16} {name:24}", *(f"{count} {what}" for what, count in score._asdict().items())
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
