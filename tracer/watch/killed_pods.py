"""The pods in which a trace has kills, as the child that explains a trace reports them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from tracer.kernel.cgroups.containers import identify, outermost_pod
from tracer.render.words.escape import visible

if TYPE_CHECKING:
    from tracer.analysis.results.kill import OomReport
    from tracer.analysis.trace import AnalysedTrace

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
