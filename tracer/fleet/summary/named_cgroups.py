"""The names of the cgroups of a trace, and which of them have a row in `lives`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tracer.analysis.core.columns import integers, optional_text
from tracer.analysis.core.lives import below_container, containers
from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.summary.workload import NOWHERE, workload

_NOBODY: Final[Mapping[str, Any]] = {
    "workload": NOWHERE,
    **dict.fromkeys(("namespace", "pod", "container", "container_id", "image", "cgroup", "cgroup_id")),
}


class NamedCgroups:
    """The cgroups of a trace by id."""

    def __init__(self, trace: AnalysedTrace) -> None:
        table = trace.cgroups
        self._rows: dict[int, dict[str, Any]] = {}
        self._owned: set[int] = set()
        images, units = ([optional_text(cell) for cell in table[name]] for name in ("image", "unit"))
        columns = zip(integers(table["cgroup_id"]).tolist(), containers(table), images, units, strict=True)
        for number, container, image, unit in columns:
            path = trace.places.path_of(number)
            names = {
                "namespace": container.namespace,
                "pod": container.pod,
                "container": container.name,
                "image": image,
            }
            counted_as = workload(path, **names, unit=unit, host=trace.meta["host_name"])
            self._rows[number] = {
                "workload": counted_as,
                **names,
                "container_id": container.container_id,
                "cgroup": path,
                "cgroup_id": number,
            }
            if (container.name or container.container_id) and not below_container(
                path or "", container.container_id
            ):
                self._owned.add(number)

    def row(self, cgroup_id: int | None) -> dict[str, Any]:
        """Return the columns with the names of a cgroup; None: no cgroup, or not known which."""
        if cgroup_id is None:
            return dict(_NOBODY)
        found = self._rows.get(cgroup_id)
        return dict(found or {**_NOBODY, "cgroup": f"id:{cgroup_id}", "cgroup_id": cgroup_id})

    def is_container(self, cgroup_id: int) -> bool:
        """Return whether a cgroup is a container's own, not one below it."""
        return cgroup_id in self._owned

    def is_inside_container(self, cgroup_id: int) -> bool:
        """Return whether a cgroup is below a container's own."""
        row = self._rows.get(cgroup_id)
        return bool(row and (row["container"] or row["container_id"])) and cgroup_id not in self._owned
