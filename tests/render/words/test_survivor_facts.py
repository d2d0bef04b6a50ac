from __future__ import annotations

import pytest

from tracer.render.terminal import console, explain_text
from tracer.render.words import survivor_facts


@pytest.mark.parametrize("verbose", [False, True])
def test_interrupted_trace_without_data_excludes_no_kill(verbose: bool) -> None:
    text = console.to_text(
        explain_text.held([], interrupted=True, verbose=verbose), columns=1000, colour=False
    )
    assert "No OOM kill was recorded before the recording broke off" in text
    assert "a kill cannot be excluded" in text
    whole = console.to_text(explain_text.held([], verbose=verbose), columns=1000, colour=False)
    assert whole.startswith("No OOM kill, and no cgroup of this trace has a limit.")


def test_page_of_an_interrupted_trace_excludes_no_kill() -> None:
    assert "cannot be excluded" in survivor_facts.summary([], interrupted=True)
