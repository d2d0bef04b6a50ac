"""A host whose files are below a temporary directory, without a runtime yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.kernel.naming.host_files import HostFiles

Put = Callable[[str, object], Path]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostFiles:
    """Return the files of a host that has none; no variable leads to the sockets of this machine."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("CONTAINER_RUNTIME_ENDPOINT", raising=False)
    root = tmp_path / "host"
    root.mkdir()
    return HostFiles(root)


@pytest.fixture
def put(files: HostFiles) -> Put:
    """Return a function that writes a file of the host: bytes, or a JSON document."""

    def write(path: str, content: object) -> Path:
        file = files.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return file

    return write
