"""The text that `record --summary` appends: from a trace, and from counts with the kill of the kernel log."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from support.recorded import TRACES
from synthetic.oom_log import Dump

from tracer.capture.counted_run import CountedRun
from tracer.capture.options import Options
from tracer.capture.session import Recording
from tracer.cli.run_summary import of_counts, of_trace
from tracer.kernel.kmsg import log_files, this_machine

OPTIONS = Options(output=Path("traces/x"), command=("make", "test"))
RUN = CountedRun("command", "/memcg-tracer-41-make", 137, 1.5, peak_bytes=100 << 20, kills=1)


def test_trace_is_summed_up_with_the_place_where_it_will_be() -> None:
    text = of_trace(OPTIONS, Recording(TRACES / "thrash", 0), "s3://oom/x")
    assert text.startswith("\n## Memory of `make test`\n\nExit status 0 (success).\n")
    assert "reached its limit of 40 MiB" in text
    assert "Trace: `s3://oom/x`\n" in text


def test_kill_of_a_counted_command_is_explained_from_the_kernel_log(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Dump(pid=4242, comm="cc1plus", oom_memcg=RUN.path or "", task_memcg=RUN.path or "")
    other = Dump(pid=77, comm="other", oom_memcg="/elsewhere", task_memcg="/elsewhere")
    lines = "".join(f"[  7.5] {line}\n" for dump in (own, other) for line in dump.lines())
    log = log_files.read_stream(BytesIO(lines.encode()), "dmesg")
    monkeypatch.setattr(this_machine, "read", lambda: ("dmesg", log))
    text = of_counts(OPTIONS, RUN, "no BPF")
    assert "### The kill, by the kernel log" in text
    assert "cc1plus (pid 4242)" in text
    assert "other" not in text.partition("The kill, by the kernel log")[2].partition("### What to do")[0]
    monkeypatch.setattr(this_machine, "read", lambda: None)
    assert "it cannot be read here, or does not have the kill" in of_counts(OPTIONS, RUN, "no BPF")
    survived = of_counts(OPTIONS, replace(RUN, kills=0), "no BPF")
    assert "kernel log" not in survived
