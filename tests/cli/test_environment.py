"""The settings of libraries that a verb makes before it imports them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

import tracer.cli

POOL = "ARROW_DEFAULT_MEMORY_POOL"


@pytest.mark.parametrize(
    ("verb", "given", "expected"),
    [("info", None, "system"), ("info", "mimalloc", "mimalloc"), ("fit", None, None), ("lab", None, None)],
)
def test_arrow_takes_memory_from_malloc_unless_a_command_would_inherit_it(
    verb: str, given: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, POOL: given} if given else dict(os.environ))
    if not given:
        os.environ.pop(POOL, None)
    monkeypatch.setattr(sys, "argv", ["memcg-tracer", verb, "--help"])
    monkeypatch.setattr(tracer.cli.standard_streams, "prepare", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        tracer.cli.main()
    assert ended.value.code == 0
    assert os.environ.get(POOL) == expected
