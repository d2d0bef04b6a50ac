"""Anatomies of real processes, whatever else the machine does."""

from __future__ import annotations

import pytest

from tracer.kernel.anatomy import process_anatomy


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each process whole: a recorder leaves out what takes long, as on a busy machine."""
    monkeypatch.setattr(process_anatomy, "MOST_S", 60.0)
