"""The child that judges kills: `python -m tracer.watch.judging`.

Each line of its input is the path of a small trace. For each, it prints a line: a JSON list of the kills
whose cause the trace shows, with `kill_id`, `cause`, `summary`, and the `cgroup`, `container` and `pod` of
the limit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tracer.kernel.process.children import end_with_parent, stand_back


def main() -> None:
    """Answer until the input ends."""
    end_with_parent()
    stand_back(is_awaited=True)
    for line in sys.stdin:
        try:
            answer = judged(Path(line.rstrip("\n")))
        except Exception:  # any error: the explanation of the whole trace follows, and reports it
            answer = []
        print(json.dumps(answer), flush=True)


def judged(path: Path) -> list[dict[str, Any]]:
    """Return the kills of a trace whose cause it shows."""
    from tracer.analysis.results.kill import UNKNOWN
    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.words.escape import visible

    return [
        {
            "kill_id": report.kill_id,
            "cause": report.verdict.cause,
            "summary": visible(report.verdict.summary),
            "cgroup": report.limit_owner.cgroup,
            "container": report.limit_owner.container,
            "pod": report.limit_owner.pod,
        }
        for report in AnalysedTrace(path).explain(is_sized=False)
        if report.verdict.cause != UNKNOWN
    ]


if __name__ == "__main__":
    main()
