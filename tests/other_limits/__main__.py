"""Compare what `whatif` says with runs at other limits: `PYTHONPATH=tests python -m other_limits [NAME]...`.

It needs root. Each program is recorded twice: with room for all its work, and at a limit of its own. Both
traces are asked about six limits, at which the program then runs untraced. The output is the table of
docs/examples/whatif.md. `--swap-mib` is the swap beside each limit, of which the machine must have as much.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from other_limits.programs import PROGRAMS
from tracer.lab.other_limits import Answered, asked_and_run
from tracer.units import size

_COLUMNS = (
    *("program", "second limit", "run at MiB", "right", "unknown", "wrong"),
    *("read again inside", "at most 1.5 wide"),
)


def row(name: str, limit: str, answered: Sequence[Answered]) -> str:
    """Return the row of the table about answers; `limit` is that of the second recording."""
    outcomes = Counter(
        "wrong" if one.is_wrong else "right" if one.is_decided else "unknown" for one in answered
    )
    ranges = [one for one in answered if one.is_counted]
    inside = sum(not one.is_outside for one in ranges)
    above = [one for one in ranges if one.is_above]
    narrow = sum(not one.is_wide for one in above)
    limits = sorted({one.at.limit_bytes for one in answered})
    parts = (
        name,
        limit,
        ", ".join(f"{limit / (1 << 20):.0f}" for limit in limits) if limit else "",
        *(str(outcomes[word]) for word in ("right", "unknown", "wrong")),
        f"{inside} of {len(ranges)}",
        f"{narrow} of {len(above)}",
    )
    return f"| {' | '.join(parts)} |"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the names of the programs to run, and the swap beside each limit, in MiB."""
    parser = argparse.ArgumentParser(prog="other_limits", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*PROGRAMS, []], metavar="NAME", help="default: all")
    parser.add_argument("--swap-mib", type=int, default=0, metavar="N")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Print the row of each program, and return the exit status: 1 if an answer was wrong."""
    asked = arguments(argv)
    every: list[Answered] = []
    print(f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", sep="\n")
    for name in asked.names or PROGRAMS:
        program = replace(PROGRAMS[name], swap_bytes=asked.swap_mib << 20)
        with tempfile.TemporaryDirectory(prefix="memcg-tracer-", dir="/var/tmp") as folder:
            answered = asked_and_run(program, Path(folder))
        print(row(name, size(program.limit_bytes), answered), flush=True)
        for one in answered:
            print(one.line(), file=sys.stderr, flush=True)
        every += answered
    print(row("all", "", every))
    return int(any(one.is_wrong for one in every))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
