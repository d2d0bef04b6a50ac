"""The names of containers and pods on this host, from the cheapest source that has them.

First come files that are named after the container, then lists of all containers, then sockets: a daemon that
hangs must not delay a recording. None means unknown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple
from functools import cached_property
from typing import Final

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, identify, is_container_id
from tracer.kernel.naming.cri_socket import from_cri
from tracer.kernel.naming.host_files import HostFiles
from tracer.kernel.naming.runtime_files import (
    from_container_logs,
    from_containerd,
    from_crio,
    from_docker,
    from_pod_logs,
    from_storage,
    from_storage_of,
)

_CRI_EVERY_S: Final = 10.0
"""The least time between two children that ask the CRI socket: each takes 0.12 s of a CPU."""

_MOST_PODS: Final = 4096
_UNNAMED: Final = ContainerNames()
_WITHOUT_CRI: Final = frozenset({"docker", "podman", "lxc", "systemd-nspawn"})


class HostNames:
    """The names that the files and sockets of this host have. No method raises an error. All may be called
    from any thread, but `find` from only one at a time."""

    def __init__(self, files: HostFiles | None = None) -> None:
        self.files = files if files is not None else HostFiles()
        self._pods: dict[str, ContainerNames] = {}
        self._noting = threading.Lock()
        self._cri_from_s = 0.0

    def at_once(self, ref: ContainerRef) -> ContainerNames | None:
        """Return the names in files that are named after the container; None if there is no such file.

        Takes a few system calls. The names of a pod are known once the names of one of its containers were
        found. The names of system runtimes are never given to a user's containers, because the user could
        have made the cgroup.
        """
        identity = ref.container_id
        if ref.user is not None:
            return None
        if identity is None:
            return self._pods.get(ref.pod_uid or "")
        if ref.runtime in ("lxc", "systemd-nspawn"):
            return ContainerNames(container=identity)
        if not is_container_id(identity):
            return None
        for names_of in (from_docker, from_containerd, from_crio):
            if (names := names_of(self.files, identity)) is not None:
                self._note_pod(ref, names)
                return names
        return None

    def in_files(self, refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        """Return the names that files have; each list is read once."""
        found = {ref: names for ref in refs if (names := self.at_once(ref)) is not None}
        for user in {ref.user for ref in refs} - {None}:
            own = [ref for ref in refs if ref.user == user]
            found |= _by_identity(own, from_storage_of(self.files, int(user or 0), _identities(own)))
        lacking = [ref for ref in refs if ref not in found and ref.user is None]
        if identities := _identities(lacking):
            listed = from_storage(self.files, identities) | from_container_logs(self.files, identities)
            found |= _by_identity(lacking, listed)
        if uids := _uids(ref for ref in lacking if ref not in found):
            found |= _by_uid(lacking, from_pod_logs(self.files, uids))
        for ref, names in found.items():
            self._note_pod(ref, names)
        return found

    def find(self, refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        """Return the names of all these containers and pods; unknown names are None.

        Takes half a second if Docker hangs, and some seconds if a CRI socket does.
        """
        found = self.in_files(refs)
        lacking = [ref for ref in refs if ref not in found and ref.user is None]
        if identities := _identities(ref for ref in lacking if ref.runtime in (None, "docker", "containerd")):
            found |= _by_identity(lacking, _in_docker(self.files, identities))
        asked = [
            ref
            for ref in refs
            if is_lacking(ref, found.get(ref)) and ref.user is None and ref.runtime not in _WITHOUT_CRI
        ]
        self._ask_cri(asked, found)
        for ref, names in found.items():
            self._note_pod(ref, names)
        return {ref: found.get(ref, ContainerNames()) for ref in refs}

    def _ask_cri(self, refs: Collection[ContainerRef], found: dict[ContainerRef, ContainerNames]) -> None:
        """Add the names that the CRI socket knows; the socket is asked at most every `_CRI_EVERY_S`."""
        identities, uids = _identities(refs), _uids(refs)
        if not (identities or uids) or time.monotonic() < self._cri_from_s:
            return
        containers, pods = from_cri(self.files, identities, uids)
        self._cri_from_s = time.monotonic() + _CRI_EVERY_S
        for ref, names in (_by_identity(refs, containers) | _by_uid(refs, pods)).items():
            found[ref] = filled(found.get(ref, ContainerNames()), names)

    def _note_pod(self, ref: ContainerRef, names: ContainerNames) -> None:
        if ref.pod_uid is None or names.pod is None:
            return
        with self._noting:
            self._pods[ref.pod_uid] = ContainerNames(None, names.pod, names.namespace)
            if len(self._pods) > _MOST_PODS:
                del self._pods[next(iter(self._pods))]


class NamesHere:
    """The names that this host knows for cgroup paths, including paths of removed cgroups.

    Each path is looked up once, and each socket is asked once, for all its names.
    """

    def __init__(self, files: HostFiles | None = None) -> None:
        self._host = HostNames(HostFiles(is_for_once=True) if files is None else files)
        self._known: dict[str, ContainerNames] = {}

    def names_at(self, path: str) -> ContainerNames:
        """Return the names at a path; unknown ones are None, as for another machine. Never raises."""
        ref = identify(path)
        if ref is None:
            return _UNNAMED
        if path not in self._known:
            self._known[path] = self._find(ref)
        return self._known[path]

    def _find(self, ref: ContainerRef) -> ContainerNames:
        found = self._host.in_files([ref]).get(ref)
        if found is None and ref.user is None:
            containers, pods = self._in_sockets
            found = (
                pods.get(ref.pod_uid or "") if ref.container_id is None else containers.get(ref.container_id)
            )
        return found or _UNNAMED

    @cached_property
    def _in_sockets(self) -> tuple[Mapping[str, ContainerNames], Mapping[str, ContainerNames]]:
        containers, pods = from_cri(self._host.files, None, None)
        return containers | _in_docker(self._host.files, None), pods


def _in_docker(files: HostFiles, identities: Collection[str] | None) -> dict[str, ContainerNames]:
    from tracer.kernel.naming.docker_socket import from_docker_socket  # noqa: PLC0415  slow to import

    return from_docker_socket(files, identities)


def filled(names: ContainerNames, more: ContainerNames) -> ContainerNames:
    """Return the names; a name that is None is taken from `more`."""
    return ContainerNames(
        *(a if a is not None else b for a, b in zip(astuple(names), astuple(more), strict=True))
    )


def is_lacking(ref: ContainerRef, names: ContainerNames | None) -> bool:
    """Return whether more names of a container or pod may be found: a pod's container and a container of
    containerd also have an image, and a pod's sandbox has neither image nor name."""
    if names is None or names == ContainerNames():
        return bool(_identities([ref]) or _uids([ref]))
    has_more = names.pod is not None or ref.runtime == "containerd"
    return has_more and names.container is not None and names.image is None


def _identities(refs: Iterable[ContainerRef]) -> set[str]:
    return {
        ref.container_id for ref in refs if ref.container_id is not None and is_container_id(ref.container_id)
    }


def _uids(refs: Iterable[ContainerRef]) -> set[str]:
    return {ref.pod_uid for ref in refs if ref.container_id is None and ref.pod_uid is not None}


def _by_identity(
    refs: Iterable[ContainerRef], listed: Mapping[str, ContainerNames]
) -> dict[ContainerRef, ContainerNames]:
    return {ref: names for ref in refs if (names := listed.get(ref.container_id or "")) is not None}


def _by_uid(
    refs: Iterable[ContainerRef], listed: Mapping[str, ContainerNames]
) -> dict[ContainerRef, ContainerNames]:
    pods = (ref for ref in refs if ref.container_id is None)
    return {ref: names for ref in pods if (names := listed.get(ref.pod_uid or "")) is not None}
