"""Places at URLs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.storing.folder_server import FolderServer, folder_server
from support.storing.object_store import ObjectStore, object_store

from tracer.fleet.pushing import attempts


@pytest.fixture
def store() -> Iterator[type[ObjectStore]]:
    """Return the object store at memory://."""
    with object_store() as kind:
        yield kind


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> type[FolderServer]:
    """Return the file server at folders://, which is tried again at once."""
    monkeypatch.setattr(attempts, "RETRY_AFTER_S", (0.0,) * 5)
    monkeypatch.setattr(attempts, "_silent", set())
    return folder_server()
