"""Fixtures for pushing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.storing.object_store import ObjectStore, object_store


@pytest.fixture
def store() -> Iterator[type[ObjectStore]]:
    with object_store() as kind:
        yield kind
