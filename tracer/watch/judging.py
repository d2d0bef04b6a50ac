"""The child that judges kills: `python -m tracer.watch.judging`.

It loads its libraries first, which takes ten times as long as a kill takes to judge. Each line of its input
is the path of a small trace. For each, it prints a line: a JSON list of the kills whose cause the trace
shows, with `kill_id`, `cause`, `summary`, and the `cgroup`, `container` and `pod` of the limit.
"""

from __future__ import annotations

import gc
import json
import select
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tracer.kernel.process.children import be_first_victim, end_with_parent


def main() -> None:
    """Answer until the input ends. The parent decides the priority."""
    end_with_parent()
    be_first_victim()
    _load()
    if not select.select([sys.stdin], [], [], 0)[0]:  # nobody waits yet
        from tracer.watch.cost import drop_code

        drop_code()
    for line in sys.stdin:
        try:
            answer = judged(Path(line.rstrip("\n")))
        except Exception:  # any error: the explanation of the whole trace follows, and reports it
            answer = []
        print(json.dumps(answer), flush=True)


_NEEDED: Final = (
    "tracer.analysis.trace",
    "tracer.analysis.explain.kill_filter",
    "tracer.analysis.explain.postmortem",
    "tracer.analysis.explain.recorded_facts",
    "tracer.analysis.kernel_log.logged_reports",
    "tracer.analysis.views.lost_time",
    "tracer.analysis.views.miss_curve",
    "tracer.analysis.views.refaults",
    "tracer.kernel.kmsg.machine_log",
    "tracer.kernel.kmsg.parser",
    "tracer.render.words.escape",
    "pyarrow.pandas_compat",
    "pyarrow.vendored.version",
    "encodings.ascii",
)
"""What `judged` runs, including what the analysis, pandas and Arrow import when they first need it."""


def _load() -> None:
    gc.disable()  # what is loaded is no garbage: neither now, nor in any later collection
    for name in _NEEDED:
        import_module(name)
    gc.freeze()
    gc.enable()


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
