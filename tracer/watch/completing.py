"""The child of `watch` that completes a trace and explains it: `python -m tracer.watch.completing TRACE`.

With `--complete-only` before TRACE, the trace is not explained, and the parent decides the priority. With
`--pods-since=NS` (CLOCK_REALTIME), the answer has the pods that had a kill since then.

It turns journals into Parquet, for which the recorder has no memory to spare. Then it prints one line, a JSON
object:

    kills       the number of kills in the trace, null if it could not be explained
    sentence    the verdict on the newest kill, else how near a cgroup came to its limit
    causes      [kill_id, cause] of each kill in the trace
    cause, container, pod, cgroup    the facts of the newest kill, else null; `cgroup` is a path
    pods        the containers of pods that had a kill (`tracer.watch.killed_pods`), or null
    pods_left_out    how many containers are not there, or null
    error       null, or what could not be done
    is_complete    false if journals are left: the disk may be full, and another attempt may succeed

The child has a low priority, and the OOM killer chooses it first. If the child is killed, the trace is as
readable as before, and the next `watch` completes it.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from tracer.errors import Defects, TracerError
from tracer.kernel.process.children import be_first_victim, end_with_parent, stand_back

COMPLETE_ONLY: Final = "--complete-only"
PODS_SINCE: Final = "--pods-since="


def main(arguments: list[str]) -> int:
    """Complete and explain the trace in the last argument; return the exit status."""
    end_with_parent()
    explains = COMPLETE_ONLY not in arguments[:-1]
    if explains:
        stand_back()
    else:
        be_first_victim()
    trace = Path(arguments[-1])
    answer: dict[str, Any] = dict.fromkeys(
        ("kills", "sentence", "causes", "cause", "container", "pod", "cgroup", "pods", "pods_left_out")
    )
    errors: list[str] = []
    answer["is_complete"] = False
    try:  # first: if this process is killed, the next `watch` reports each trace that still has journals
        if explains:
            since = [one.removeprefix(PODS_SINCE) for one in arguments[:-1] if one.startswith(PODS_SINCE)]
            told, defects = explained(trace, pods_since_ns=int(since[0]) if since else None)
            answer |= told
            errors += defects.sentences()
    except Exception as error:  # any error: the parent waits for an answer, and the trace is readable
        errors.append(f"not explained: {_in_one_line(error)}")
    try:
        complete(trace)
        answer["is_complete"] = True
    except Exception as error:
        errors.append(f"not completed: {_in_one_line(error)}")
    print(json.dumps(answer | {"error": "; ".join(errors) or None}), flush=True)
    return 0


def complete(path: Path) -> None:
    """Turn the journals of a trace into Parquet, and write the number of rows of each table to meta.json.

    Afterwards, all files are on disk. A trace without journals does not change. Raises TraceError if `path`
    is not a trace, is being written or cannot be read, and OSError or pa.ArrowException if it cannot be
    written.
    """
    from tracer.schema import TABLES
    from tracer.trace import layout
    from tracer.trace.meta import read_meta, write_meta
    from tracer.trace.read.reader import Trace
    from tracer.trace.write import claim
    from tracer.trace.write.journal import compact_stored
    from tracer.version import VERSION

    with claim.open_own(path) as trace:
        claim.lock(trace)
        meta = read_meta(path)
        if layout.JOURNAL not in trace.names():
            return
        compact_stored(trace)
        reader = Trace(path)
        known = [name for name in TABLES if meta["tool_version"] == VERSION or reader.has_table(name)]
        write_meta(trace, {**meta, "rows": {name: reader.rows(name) for name in known}}, is_durable=True)
        with suppress(OSError):  # the folder has a file that no recorder writes
            trace.rmdir(layout.JOURNAL)
        trace.sync()


def explained(path: Path, *, pods_since_ns: int | None = None) -> tuple[dict[str, Any], Defects]:
    """Return the part of the answer about the kills in a trace, and the defects that left out a part of it.
    Unless `pods_since_ns` is None, it has the pods with a kill since then.

    Raises TraceError if the trace cannot be read.
    """
    from tracer.analysis.explain import kill_filter
    from tracer.analysis.explain.survivors import nearest_lives
    from tracer.analysis.trace import AnalysedTrace
    from tracer.render.words import survivor_facts
    from tracer.render.words.escape import visible
    from tracer.watch.killed_pods import killed_pods

    trace = AnalysedTrace(path)
    reports, post_mortems = trace.judged()
    if not reports:
        lives = nearest_lives(trace, trace.held_cgroups())
        summary = visible(survivor_facts.summary(lives, interrupted=trace.interrupted))
        return {"kills": 0, "sentence": summary}, trace.defects
    explain = cache(post_mortems.one)
    newest = explain(kill_filter.newest(reports).kill_id)
    owner = newest.limit_owner
    found = {
        "kills": len(reports),
        "causes": [[report.kill_id, report.verdict.cause] for report in reports],
        "sentence": visible(newest.verdict.summary),
        "cause": newest.verdict.cause,
        "container": owner.container,
        "pod": owner.pod,
        "cgroup": owner.cgroup,
    }
    if pods_since_ns is not None:
        found["pods"], found["pods_left_out"] = killed_pods(trace, reports, explain, pods_since_ns)
    return found, trace.defects


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    words = " ".join(str(error).split())[:500]
    return words if isinstance(error, TracerError) else f"{type(error).__name__}: {words}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
