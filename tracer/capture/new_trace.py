"""The trace that a recording writes to, and its first meta.json."""

from __future__ import annotations

import sys
from typing import Any

from tracer.capture.observer import Observer
from tracer.capture.options import Options
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.stored_names import stored_path
from tracer.trace import meta
from tracer.trace.write.writer import TraceWriter


def create_trace(options: Options, hierarchy: Hierarchy, observer: Observer) -> TraceWriter:
    """Create the trace. Call it after everything else that can fail.

    So an earlier trace is overwritten only if the recording can begin, and each new trace has a pipeline that
    ends it.
    """
    began = meta.begin(
        command_line=["memcg-tracer", *map(stored_path, sys.argv[1:])],
        cgroup_version=hierarchy.version,
        cgroup_mount_options=map(stored_path, hierarchy.options),
        filters=_filters(options),
        probes={},
    )
    return TraceWriter(options.output, began, force=options.force, warn=observer.warn)


def _filters(options: Options) -> dict[str, Any]:
    """Return the request for meta.json. `cgroups`, the matched paths, are added as they are found."""
    return {
        "asked": [stored_path(argument) for argument in options.cgroups],
        "cgroups": None,
        "limit_bytes": options.limit_bytes,
        "swap_bytes": options.swap_bytes,
        "command": [stored_path(word) for word in options.command] or None,
        "stacks_bytes": options.stacks_bytes,
        "most_overhead_percent": options.most_overhead_percent,
    }
