"""The line of `--on soon` and the code that grows, from rows without a kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from synthetic.live_rows import MIB, cgroup, rows

from tracer.schema import UNLIMITED_BYTES
from tracer.trace.meta import begin
from tracer.watch.watching import WatchOptions, _Watcher

S = 1_000_000_000
T0 = 1_764_000_000 * S


def sample(step: int) -> dict[str, Any]:
    sizes = {"usage_bytes": (20 + step) * MIB, "anon_bytes": (20 + step) * MIB, "file_bytes": 0}
    limits = {"limit_bytes": 100 * MIB, "effective_limit_bytes": 100 * MIB, "high_bytes": UNLIMITED_BYTES}
    return {"cgroup_id": 2, "source": "periodic", "time": T0 + step * S // 10} | sizes | limits


@pytest.mark.parametrize(("is_sampled", "told"), [(True, True), (False, False)])
def test_line_before_a_kill_names_the_code_if_it_was_sampled(
    tmp_path: Path, is_sampled: bool, told: bool
) -> None:
    reporter = Mock()
    watcher = _Watcher(WatchOptions(directory=tmp_path, on=frozenset({"soon"})), reporter, Mock())
    meta = begin(command_line=["memcg-tracer", "watch"], cgroup_version=2, filters={}, probes={})
    history: Any = watcher.open_sink(meta)
    stories: Any = SimpleNamespace(trigger=Mock(), name_of=lambda _: "/web")
    watcher._stories, watcher._verdicts, watcher._has_begun = stories, Mock(), True
    history.append("cgroups", rows("cgroups", cgroup(2, path="/web")))
    history.append("stacks", rows("stacks", {"stack_id": 70, "frames": ["load [app.py:41]"]}))
    if is_sampled:
        known = {"time": T0, "cgroup_id": 2, "tgid": 0, "tid": 0, "category": "anon", "bytes": MIB}
        history.append("code_samples", rows("code_samples", known | {"stack_id": 70}))
    for step in range(80):
        history.append("samples", rows("samples", sample(step)))
    ((sentence, place), _) = reporter.alarmed.call_args
    assert place == "/web"
    assert ("What grows: 16 to 100 % in load (app.py:41)" in sentence) == told
    ((triggers,), _) = stories.trigger.call_args
    assert triggers[0].sentence == sentence
