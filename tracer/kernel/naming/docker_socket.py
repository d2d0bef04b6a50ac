"""Names that Docker's socket gives: of containers that exist, also exited ones, and of those just removed.

The module is imported where Docker is asked: `http.client` is slow to import, and most recordings need no
name of Docker.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
import urllib.parse
from collections.abc import Collection
from pathlib import Path
from typing import Final

from tracer.kernel.cgroups.containers import ContainerNames
from tracer.kernel.naming.host_files import MOST_LIST_BYTES, HostFiles, as_name, get, parse_json, text
from tracer.kernel.naming.runtime_files import docker_names

_SOCKET: Final = "/var/run/docker.sock"
_TIMEOUT_S: Final = 0.5
_MOST_FILTERED: Final = 32


def from_docker_socket(files: HostFiles, identities: Collection[str] | None) -> dict[str, ContainerNames]:
    """Return container id -> names, by GET /containers/json of the Docker Engine API; None asks for all.

    `DOCKER_HOST` names another socket. The list of all containers is requested: Docker answers a request
    about one container only after its start, and a recording may begin earlier. Those that are not in it may
    have been removed already: a `docker run --rm` that fails at once is over in 0.1 s.
    """
    host = os.environ.get("DOCKER_HOST", "")
    try:
        place = Path(host.removeprefix("unix://")) if host.startswith("unix://") else files.place(_SOCKET)
    except OSError:
        return {}
    some = None if identities is None or len(identities) > _MOST_FILTERED else sorted(identities)
    url = "/containers/json?all=1" if some is None else f"/containers/json?all=1{_filters(id=some)}"
    listed = parse_json(_body(place, url))
    if not isinstance(listed, list):
        return {}
    found = {}
    for container in listed:
        identity, names = text(container, "Id"), get(container, "Names")
        # A link is listed as a second name, "/other/alias".
        own = [name for name in names if str(name).count("/") == 1] if isinstance(names, list) else []
        if identity is not None and own and (identities is None or identity in identities):
            image = text(container, "Image")
            named = docker_names(as_name(own[0]), get(container, "Labels"), image)
            if named is not None:
                found[identity] = named
    removed = [identity for identity in some or () if identity not in found]
    return _of_removed(place, removed) | found if removed else found


def _of_removed(place: Path, identities: Collection[str]) -> dict[str, ContainerNames]:
    """Return container id -> names, by the events of containers that Docker still has: the last 256 of all
    kinds (eventsLimit in daemon/events/events.go of moby). An event has the labels among its attributes."""
    until = f"{time.time():.9f}"  # Docker sends those before this time, and waits for no other
    url = f"/events?since=0&until={until}{_filters(type=['container'], container=identities)}"
    found = {}
    for line in (_body(place, url) or b"").splitlines():
        event = parse_json(line)
        identity, attributes = text(event, "Actor", "ID"), get(event, "Actor", "Attributes")
        named = docker_names(text(attributes, "name"), attributes, text(attributes, "image"))
        if identity is not None and identity in identities and named is not None:
            found[identity] = named
    return found


def _filters(**wanted: Collection[str]) -> str:
    """Return the parameter that asks for what has one of these values of each name."""
    return f"&filters={urllib.parse.quote(json.dumps({name: [*some] for name, some in wanted.items()}))}"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _body(path: Path, url: str) -> bytes | None:
    """Return the body of the response to GET `url`, cut; None without a response of status 200."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.read(MOST_LIST_BYTES) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
