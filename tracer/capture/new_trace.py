"""The first meta.json of a recording."""

from __future__ import annotations

import sys
from typing import Any

from tracer.capture.options import Options
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.stored_names import stored_path
from tracer.trace import meta
from tracer.urls import shown_url


def first_meta(options: Options, hierarchy: Hierarchy) -> meta.Meta:
    """Return the metadata of a recording that begins now."""
    return meta.begin(
        command_line=["memcg-tracer", *(stored_path(shown_url(word)) for word in sys.argv[1:])],
        cgroup_version=hierarchy.version,
        cgroup_mount_options=map(stored_path, hierarchy.options),
        filters=_filters(options),
        probes={},
    )


def _filters(options: Options) -> dict[str, Any]:
    """Return the request for meta.json. `cgroups`, the matched paths, are added as they are found."""
    return {
        "asked": [stored_path(argument) for argument in options.cgroups],
        "cgroups": None,
        "limit_bytes": options.limit_bytes,
        "swap_bytes": options.swap_bytes,
        "command": [stored_path(shown_url(word)) for word in options.command] or None,
        "stacks_bytes": options.stacks_bytes,
        "most_overhead_percent": options.most_overhead_percent,
    }
