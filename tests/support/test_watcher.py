from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import recorder, watcher

from tracer.errors import TracerError


@pytest.mark.parametrize("module", [watcher, recorder])
def test_condition_that_does_not_come_in_time_is_not_asked_of_a_killed_recorder(
    module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection would be reset, which hid that the condition had not come."""
    monkeypatch.setattr(module, "WITHIN_S", 0.05)
    script = tmp_path / "sleep"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    made = watcher.Watcher(tmp_path) if module is watcher else recorder.Recorder(tmp_path)
    try:

        def never() -> bool:
            assert made.process.poll() is None
            return False

        with pytest.raises(TracerError, match=r"did not get there within 0\.05 s"):
            made.wait_for(never)
    finally:
        made.process.kill()
        made.process.wait()
