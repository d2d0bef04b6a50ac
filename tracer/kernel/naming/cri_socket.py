"""Names that a runtime's CRI socket gives (containerd, CRI-O, cri-dockerd), asked by a child process.

This needs the packages of the extra `cri`. Without them, nothing is asked.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import HostFiles, as_name, get, parse_json
from tracer.kernel.process.children import argv_of_module, environment_of_modules

ENDPOINT_VARIABLE: Final = "CONTAINER_RUNTIME_ENDPOINT"
"""The variable that crictl reads: `unix:///path`, in place of the usual sockets."""

_SOCKETS: Final = (
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)
_WITHIN_S: Final = 30.0  # on a busy machine, Python takes seconds to start; all calls together have 4 s


def from_cri(
    files: HostFiles, identities: Collection[str] | None, uids: Collection[str] | None
) -> tuple[dict[str, ContainerNames], dict[str, ContainerNames]]:
    """Return container id -> names and pod uid -> names, as far as a socket knows them; None asks for all.
    Takes at most `_WITHIN_S` for each socket."""
    containers: dict[str, ContainerNames] = {}
    pods: dict[str, ContainerNames] = {}
    if _has_packages():
        wanted = {"containers": _listed(identities), "pods": _listed(uids)}
        for socket in _sockets(files):
            answer = _ask(socket, wanted)
            containers |= _names(get(answer, "containers"))
            pods |= _names(get(answer, "pods"))
    return containers, pods


def _has_packages() -> bool:
    try:
        return find_spec("grpc") is not None and find_spec("google.protobuf") is not None
    except ModuleNotFoundError:  # there is no package google at all
        return False


def _listed(wanted: Collection[str] | None) -> list[str] | None:
    return None if wanted is None else sorted(wanted)


def _sockets(files: HostFiles) -> Iterator[Path]:
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
    is_named = endpoint.startswith("unix://")
    for path in (endpoint.removeprefix("unix://"),) if is_named else _SOCKETS:
        with suppress(OSError):
            place = Path(path) if is_named else files.place(path)
            if stat.S_ISSOCK(place.stat().st_mode):
                yield place


def _ask(socket: Path, wanted: dict[str, list[str] | None]) -> Any:
    argv = [*argv_of_module("tracer.kernel.naming.cri_client"), str(socket)]
    try:
        done = subprocess.run(
            argv,
            input=json.dumps(wanted).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment_of_modules(),
            timeout=_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_json(done.stdout)


def _names(found: Any) -> dict[str, ContainerNames]:
    listed = found.items() if isinstance(found, dict) else ()
    return {key: ContainerNames(*(as_name(name) for name in names)) for key, names in listed}
