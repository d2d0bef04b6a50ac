"""Copies of one kill are one kill."""

from __future__ import annotations

from kernel.kmsg.test_corpus import CORPUS

from tracer.kernel.kmsg.copies import merged
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

LOG = list(split([(CORPUS / "captured-6.18-v1-kmsg.log").read_bytes()]))


def test_copies_of_kill_most_complete_is_kept() -> None:
    (whole,) = reports(LOG)
    killed = next(line for line in LOG if "Killed process" in line).partition(";")[2]
    event = f"5m  Warning  OOMKilling  node/n1  {killed}"
    monitor = f"I1012 19:00:20.884452 3240 log_monitor.go:160] New status generated: {{Message:{killed}}}"
    for log in ([event, *LOG], [*LOG, monitor], [*LOG, "", *LOG], [event, *LOG, monitor]):
        (kept,) = merged(reports(log))
        assert (kept.missing, len(kept.tasks)) == (whole.missing, len(whole.tasks))


def test_same_pid_at_other_time_is_other_kill() -> None:
    later = [line.replace("total-vm:", "total-vm:1") for line in LOG]
    assert len(merged(reports([*LOG, *later]))) == 2
    kill = "[{}.000000] Memory cgroup out of memory: Killed process 7 (a) total-vm:9kB, anon-rss:8kB"
    assert len(merged(reports([kill.format(100), kill.format(900)]))) == 2
    assert len(merged(reports([kill.format(100), kill.format(100)]))) == 1


def test_event_of_kubelet_is_copy_of_kernel_kill() -> None:
    event = "default 53m Warning SystemOOM node/n4 System OOM encountered, victim process: my app, pid: 77"
    (found,) = reports([event])
    assert (found.constraint, [(kill.pid, kill.comm) for kill in found.kills]) == ("global", [(77, "my app")])
    kill = "Out of memory: Killed process 77 (my app) total-vm:9kB, anon-rss:8kB"
    (kept,) = merged(reports([event, kill]))
    assert kept.kills[0].anon_rss_bytes == 8192
