"""Kills by user-space killers, from their lines in the journal."""

from __future__ import annotations

import pytest

from tracer.kernel.kmsg import userspace


@pytest.mark.parametrize(
    ("line", "killer", "victim", "pid", "reason"),
    [
        (
            "May 01 10:00:00 h systemd-oomd[612]: Killed /user.slice/app.scope due to memory pressure "
            "for /user.slice being 62.50% > 50.00% for > 20s with reclaim activity",
            *("systemd-oomd", "/user.slice/app.scope", None),
            "memory pressure for /user.slice being 62.50% > 50.00%",
        ),
        (
            'May 01 10:00:00 h earlyoom[9]: sending SIGTERM to process 4711 uid 1000 "firefox": oom_score '
            "901, VmRSS 2040 MiB",
            *("earlyoom", "firefox", 4711, "oom_score 901, VmRSS 2040 MiB"),
        ),
        (
            "May 01 10:00:00 h oomd[8]: oomd kill: 85.20 60.10 20.00 system.slice/hog.service "
            "123456789 ruleset:[memory pressure] detectorgroup:[high] killer:kill_by_memory_size_or_growth",
            *("oomd", "system.slice/hog.service", 123456789, "ruleset:[memory pressure]"),
        ),
        (
            "I0501 10:00:00.000000 77 eviction_manager.go:627] "
            '"Eviction manager: pod is evicted successfully" pod="default/hog"',
            *("kubelet", "default/hog", None, "is evicted successfully"),
        ),
        (
            "5m Warning Evicted pod/hog The node was low on resource: memory. Threshold quantity: 100Mi",
            *("kubelet", "hog", None, "The node was low on resource: memory"),
        ),
        (
            "May 01 10:00:00 pc nohang[530]:   Send SIGTERM to the victim; total response time: 13246 ms",
            *("nohang", "victim", None, "Send SIGTERM to the victim"),
        ),
        (
            'user: warning: [2026-01-12T20:27:31Z]: [talos] Sending SIGKILL to cgroup {"component": "c", '
            '"controller": "runtime.OOMController", "cgroup": "/sys/fs/cgroup/kubepods/burstable/pod7"}',
            *("Talos", "/sys/fs/cgroup/kubepods/burstable/pod7", None, "Sending SIGKILL to cgroup"),
        ),
        (
            "05-01 10:00:00.000 612 612 I lowmemorykiller: Kill 'com.example' (4711), uid 10123, "
            "oom_score_adj 900 to free 123456kB rss; reason: low watermark is breached",
            *("lmkd", "com.example", 4711, "low watermark is breached"),
        ),
    ],
)
def test_userspace_kill_is_read(line: str, killer: str, victim: str, pid: int | None, reason: str) -> None:
    found = userspace.kill(line, 3)
    assert found is not None
    assert (found.line, found.killer, found.victim, found.pid) == (3, killer, victim, pid)
    assert reason in found.reason


def test_kernel_kill_is_no_userspace_kill() -> None:
    line = "Memory cgroup out of memory: Killed process 7 (systemd-oomd) total-vm:9kB, anon-rss:8kB"
    assert userspace.kill(line, 1) is None
