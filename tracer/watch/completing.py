"""The child of `watch` that completes a trace and explains it: `python -m tracer.watch.completing TRACE`.

With `--complete-only` before TRACE, the trace is not explained, and the parent decides the priority. With
`--pods-since=NS` (CLOCK_REALTIME), the answer has the pods that had a kill since then.

It turns journals into Parquet, for which the recorder has no memory to spare. Then it prints one line, a JSON
object:

    kills       the number of kills in the trace, null if it could not be explained
    sentence    the verdict on the newest kill, else how near a cgroup came to its limit
    causes      [kill_id, cause] of each kill in the trace
    cause, container, pod, cgroup    the facts of the newest kill, else null; `cgroup` is a path
    pods        the containers of pods that had a kill (`killed_pods`), or null
    pods_left_out    how many containers are not there, or null
    error       null, or what could not be done
    is_complete    false if journals are left: the disk may be full, and another attempt may succeed

The child has a low priority, and the OOM killer chooses it first. If the child is killed, the trace is as
readable as before, and the next `watch` completes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracer.errors import Defects, TracerError
from tracer.kernel.cgroups.containers import identify, outermost_pod
from tracer.kernel.process.children import be_first_victim, end_with_parent, stand_back
from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.trace import AnalysedTrace


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

    trace = AnalysedTrace(path)
    reports, post_mortems = trace.listed()
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


MOST_CONTAINERS: Final = 200
_MOST_TIMES: Final = 10_000
"""The times of all containers. `watch` reads no more than a MiB of the child that prints them."""
_MOST_SENTENCE: Final = 1024
"""The characters of a sentence: no event has more (`tracer.watch.pod_events`)."""


def killed_pods(
    trace: AnalysedTrace, reports: Sequence[OomReport], explain: Callable[[int], OomReport], since_ns: int
) -> tuple[list[dict[str, Any]], int]:
    """Return an object for each container of a pod that had a kill since `since_ns`, and how many of them are
    left out: the newest `MOST_CONTAINERS` are there.

    `since_ns` is CLOCK_REALTIME by the clock pair of the trace. Earlier kills are in earlier traces.
    `explain` returns the whole report of a kill by its number.

        uid, pod, namespace    of the pod of the victim; names are not escaped, null: not known
        container              its name, else its id
        kills                  their number
        times_ns               the times of the first and of the newest kills, ascending
        sentence               the verdict on the newest kill, safe to print
    """
    found: dict[tuple[str, str | None], list[OomReport]] = {}
    pod_names, container_names = _names(trace) if reports else ({}, {})
    for report in reports:
        victim = report.victims[0] if report.victims else None
        ref = outermost_pod(victim.cgroup) if victim is not None and victim.cgroup is not None else None
        if ref is None or ref.pod_uid is None or ref.user is not None:  # a user can name cgroups like pods
            continue
        if report.time is None or report.time.value < since_ns:
            continue
        container = container_names.get(ref.container_id or "", ref.container_id)
        found.setdefault((ref.pod_uid, container), []).append(report)
    newest = sorted(found.items(), key=lambda one: one[1][-1].kill_id)[-MOST_CONTAINERS:]
    pods = []
    for (uid, container), kills in newest:
        pod, namespace = pod_names.get(uid, (None, None))
        times_ns = [int(kill.time.value) for kill in kills if kill.time is not None]
        del times_ns[1 : -(_MOST_TIMES // len(newest))]
        pods.append(
            {
                "uid": uid,
                "pod": pod,
                "namespace": namespace,
                "container": container,
                "kills": len(kills),
                "times_ns": times_ns,
                "sentence": visible(explain(kills[-1].kill_id).verdict.summary)[:_MOST_SENTENCE],
            }
        )
    return pods, len(found) - len(newest)


def _names(trace: AnalysedTrace) -> tuple[dict[str, tuple[str, str | None]], dict[str, str]]:
    """Return uid -> (name, namespace) of the pods, and id -> name of the containers, that have a name in the
    trace: the name of one container's pod holds for all."""
    pods: dict[str, tuple[str, str | None]] = {}
    containers: dict[str, str] = {}
    for cgroup_id in trace.cgroups["cgroup_id"].tolist():
        path, container = trace.places.path_of(cgroup_id), trace.places.named_container_of(cgroup_id)
        ref = identify(path) if path is not None else None
        if ref is None or container is None:
            continue
        if container.pod is not None and ref.pod_uid is not None:
            pods[ref.pod_uid] = container.pod, container.namespace
        if container.name is not None and ref.container_id is not None:
            containers[ref.container_id] = container.name
    return pods, containers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
