from __future__ import annotations

import os

from tracer.watch.own_memory import resident_bytes


def test_resident_memory_is_that_of_the_process() -> None:
    before = resident_bytes()
    held = bytearray(os.urandom(1)) * (64 << 20)
    assert resident_bytes() - before > 60 << 20
    assert len(held) == 64 << 20
