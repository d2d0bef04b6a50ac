"""The workload of a cgroup: the name under which all runs of one program are counted together, on any host.

The first of these that applies:

* for a container in a pod: `namespace/owner/container`. The owner is the Deployment, DaemonSet, Job and so
  on: the name of the pod without what its controller appended;
* for another container: its name, as in `explain`, without a trailing ordinal (`shop-web-2` is `shop-web`).
  If the name seems to be one that Docker or podman made up (`brave_turing`), or is not known: its image
  without registry, tag and digest, if that is known;
* for a systemd unit: its name, without the instance (`backup@7.service` is `backup@.service`), and in a scope
  or a unit of systemd-run with `*` for identifiers;
* for any other cgroup: its path, in which numbers and identifiers are `*`.

Names come from users of the machine and may be any text: escape them before you show them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tracer.analysis.core.columns import integers, optional_text
from tracer.analysis.core.lives import below_container, containers
from tracer.analysis.trace import AnalysedTrace

NOWHERE: Final = "?"
"""The workload of memory in no cgroup, or in a cgroup without a name."""

_RANDOM: Final = "[bcdfghjklmnpqrstvwxz2456789]{5}"
"""The end of generated names: `alphanums` of k8s.io/apimachinery/pkg/util/rand."""
_HASH: Final = "[4-9bcdf]{6,10}"
"""pod-template-hash: a decimal number of 32 bits, its digits encoded by that package's `SafeEncodeString`."""
_GENERATED: Final = (
    re.compile(rf"-{_HASH}-{_RANDOM}$"),  # Deployment, through its ReplicaSet
    re.compile(rf"-(?:\d{{8}}|\d{{10}})-{_RANDOM}$"),  # CronJob: minutes, formerly seconds, since the epoch
    re.compile(rf"-{_RANDOM}$"),  # DaemonSet, ReplicaSet, Job
    re.compile(r"-\d+$"),  # StatefulSet
)
_MADE_UP: Final = re.compile("[a-z]+_[a-z]+[0-9]?")
"""An adjective and a surname: GetRandomName in Docker's names-generator, which podman uses as well."""
_ORDINAL: Final = re.compile(r"(?<=.)[-_]\d+$")
_INSTANCE: Final = re.compile(r"@.+(?=\.\w+$)")
_TRANSIENT: Final = re.compile(r"^run-|\.scope$")
_ID: Final = re.compile(
    r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|(?<![0-9a-f])[0-9a-f]{12,}(?![0-9A-Za-z])|\d+"
)


def workload(
    cgroup: str | None,
    *,
    namespace: str | None = None,
    pod: str | None = None,
    container: str | None = None,
    image: str | None = None,
    unit: str | None = None,
    host: str | None = None,
) -> str:
    """Return the workload of a cgroup, by its path and names; None: not known. `host` is the machine's name;
    the names of its static pods end with it."""
    if pod:
        return "/".join(filter(None, [namespace, owner_of(pod, host), container]))
    if container and not _MADE_UP.fullmatch(container):
        return _ORDINAL.sub("", container)
    if image and (plain := image_name(image)):
        return plain
    if container:
        return container
    if unit:
        return _ID.sub("*", unit) if _TRANSIENT.search(unit) else _INSTANCE.sub("@", unit)
    return _ID.sub("*", cgroup) if cgroup else NOWHERE


def owner_of(pod: str, host: str | None = None) -> str:
    """Return the name of a pod's owner; the pod's own name if it seems to have no owner."""
    if host and pod.endswith(f"-{host}") and len(pod) > len(host) + 1:
        return pod.removesuffix(f"-{host}")
    for pattern in _GENERATED:
        if found := pattern.search(pod):
            return pod[: found.start()] or pod
    return pod


def image_name(image: str) -> str:
    """Return `team/web` for `registry.example:5000/team/web:1.2@sha256:…`; empty if there is only an id."""
    name = image.partition("@")[0]
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    folder, slash, last = name.rpartition("/")
    last = last.partition(":")[0]
    if re.fullmatch("sha256|[0-9a-f]{64}", last):
        return ""
    return (folder + slash + last).removeprefix("library/")


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
