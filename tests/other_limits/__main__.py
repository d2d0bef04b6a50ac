"""Compare what `whatif` says with runs at other limits: `PYTHONPATH=tests python -m other_limits [NAME]...`.

It needs root. Each program is recorded twice: with room for all its work, and at a limit of its own. Both
traces are asked about six limits, at which the program then runs untraced. The output is the table of
docs/examples/whatif.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from other_limits.programs import PROGRAMS
from tracer.lab.other_limits import Answered, asked_and_run
from tracer.units import size


def row(name: str, answered: Sequence[Answered], limit_bytes: int) -> str:
    """Return the row of the table about the answers of both traces of a program."""
    outcomes = Counter(
        "wrong" if one.is_wrong else "right" if one.is_decided else "unknown" for one in answered
    )
    ranges = [one for one in answered if one.is_counted]
    inside = sum(not one.is_outside for one in ranges)
    limits = ", ".join(f"{one.at.limit_bytes / (1 << 20):.0f}" for one in answered[: len(answered) // 2])
    parts = (
        name,
        size(limit_bytes),
        limits,
        *(str(outcomes[word]) for word in ("right", "unknown", "wrong")),
        f"{inside} of {len(ranges)}",
    )
    return f"| {' | '.join(parts)} |"


def main(names: Sequence[str]) -> int:
    """Print the row of each program, and return the exit status: 1 if an answer was wrong."""
    failed = 0
    print(
        "| program | second limit | run at MiB | right | unknown | wrong | read again inside |\n"
        "|---|---|---|---|---|---|---|"
    )
    for program in (PROGRAMS[name] for name in names or PROGRAMS):
        with tempfile.TemporaryDirectory(prefix="memcg-tracer-", dir="/var/tmp") as folder:
            answered = asked_and_run(program, Path(folder))
        print(row(program.name, answered, program.limit_bytes), flush=True)
        for one in answered:
            print(one.line(), file=sys.stderr, flush=True)
            failed |= one.is_wrong
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
