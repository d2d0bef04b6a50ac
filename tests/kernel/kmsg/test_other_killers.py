"""Kills by user-space killers, from their lines in the journal."""

from __future__ import annotations

import pytest

from tracer.kernel.kmsg import other_killers


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
        (
            "05-01 10:00:00.000 9 9 I lmkd    : Reclaim 'com.example' (4711), uid 10007, oom_score_adj 900, "
            "state 7 to free 2000kB rss, 3000kB swap; reason: a watermark is breached",
            *("lmkd", "com.example", 4711, "a watermark is breached"),
        ),
        (
            "<6>lowmemorykiller: Killing 'com.example' (4711), adj 1000,",
            *("lowmemorykiller", "com.example", 4711, "adj 1000"),
        ),
        (
            "<4>lowmemorykiller: send sigkill to 4711 (example), adj 7, size 2900",
            *("lowmemorykiller", "example", 4711, "adj 7, size 2900"),
        ),
        (
            "May 01 10:00:00 h systemd-oomd[6]: Marked /user.slice/app.scope for killing due to memory used "
            "(16000) / total (16500) and swap used (900) / total (1000) being more than 90.00%",
            *("systemd-oomd", "/user.slice/app.scope", None, "memory used (16000) / total (16500)"),
        ),
        (
            "May 01 10:00:00 h systemd[1400]: app.scope: systemd-oomd killed 12 process(es) in this unit.",
            *("systemd-oomd", "app.scope", None, "killed 12 process(es) in this unit"),
        ),
        (
            "May 1 10:00:00 systemd[1]: a.service: A process of this unit has been killed by the OOM killer",
            *("kernel", "a.service", None, "has been killed by the OOM killer"),
        ),
        (
            "May 01 10:00:00 h systemd-oomd[6]: Killed /user.slice/app.sc",  # the end was cut off
            *("systemd-oomd", "/user.slice/app.sc", None, "Killed"),
        ),
        (
            'killing process 4711 "hog" with signal 15: badness 612, VmRSS 4100 MiB',
            *("earlyoom", "hog", 4711, "badness 612, VmRSS 4100 MiB"),
        ),
        (
            "Killing process 'hog' with signal 15, pid: 4711, badness: 613, VmRSS: 4101 MiB",
            *("earlyoom", "hog", 4711, "badness: 613, VmRSS: 4101 MiB"),
        ),
        (
            "slurmstepd: error: Detected 2 oom_kill events in StepId=7.batch. Some of the step tasks",
            *("kernel", "StepId=7.batch", None, "Detected 2 oom_kill events"),
        ),
        (
            "slurmstepd: error: Detected 1 oom-kill event(s) in step 7.0 cgroup.",
            *("kernel", "step 7.0", None, "Detected 1 oom-kill event(s)"),
        ),
    ],
)
def test_userspace_kill_is_read(line: str, killer: str, victim: str, pid: int | None, reason: str) -> None:
    found = other_killers.kill(line, 3)
    assert found is not None
    assert (found.line, found.killer, found.victim, found.pid) == (3, killer, victim, pid)
    assert reason in found.reason


def test_kernel_kill_is_no_userspace_kill() -> None:
    line = "Memory cgroup out of memory: Killed process 7 (systemd-oomd) total-vm:9kB, anon-rss:8kB"
    assert other_killers.kill(line, 1) is None


def test_lines_of_one_kill_by_systemd_oomd_are_one_kill() -> None:
    lines = [
        "systemd-oomd[612]: Marked /user.slice/app.scope for killing due to memory used (9) / total (9)",
        "systemd[1400]: app.scope: systemd-oomd killed 12 process(es) in this unit.",
        "systemd[1400]: app.scope: systemd-oomd killed 3 process(es) in this unit.",
    ]
    found = [one for at, line in enumerate(lines) if (one := other_killers.kill(line, at)) is not None]
    assert [one.line for one in other_killers.without_copies(found)] == [0, 2]


def test_process_that_is_sent_a_signal_twice_is_killed_once() -> None:
    signal = 'earlyoom[9]: sending SIG{} to process {} uid 0 "hog": badness 614, VmRSS 410 MiB'
    lines = [signal.format("TERM", 7), signal.format("KILL", 7), signal.format("TERM", 8)]
    found = [one for at, line in enumerate(lines) if (one := other_killers.kill(line, at)) is not None]
    assert [(one.line, one.pid) for one in other_killers.without_copies(found)] == [(1, 7), (2, 8)]


@pytest.mark.parametrize(
    ("line", "reporter"),
    [
        ("systemd[1]: a.service: A process of this unit has been killed by the OOM killer", "systemd"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the", "Slurm"),
        ("systemd[1]: a.service: Failed with result 'oom-kill'.", "systemd"),
        ('level=info msg="TaskOOM event &TaskOOM{ContainerID:4f2a,XXX_unrecognized:[],}"', "containerd"),
        (r'level=info msg="TaskOOM event container_id:\"4f2a\""', "containerd"),
        ("      Reason:       OOMKilled", "Kubernetes or Docker"),
        ('"terminated": {"exitCode": 137, "reason": "OOMKilled"}', "Kubernetes or Docker"),
        ("web-0   0/1   OOMKilled   3 (20s ago)   5m", "Kubernetes or Docker"),
        ('"OOMKilled": true,', "Kubernetes or Docker"),
    ],
)
def test_reporter_of_a_kill_by_the_oom_killer_is_named(line: str, reporter: str) -> None:
    found = other_killers.kill(line, 1)
    assert found is not None and found.is_by_oom_killer and found.reporter == reporter
    named = ("a.service", "StepId=7.0", "4f2a", "web-0")
    assert found.victim == next((name for name in named if name in line), None)


@pytest.mark.parametrize(
    "line", ['"OOMKilled": false,', "restarts of OOMKilled pods", "oom-kill:constraint=CONSTRAINT_MEMCG"]
)
def test_line_without_a_kill_of_a_container_is_none(line: str) -> None:
    assert other_killers.kill(line, 1) is None


def test_result_of_a_unit_is_no_further_kill() -> None:
    killed = "systemd[1]: a.service: A process of this unit has been killed by the OOM killer."
    by_oomd = "systemd-oomd[7]: Killed /system.slice/b.service due to memory pressure"
    results = [f"systemd[1]: {unit}.service: Failed with result 'oom-kill'." for unit in "abca"]
    lines = [killed, results[0], by_oomd, *results[1:]]
    found = [one for at, line in enumerate(lines) if (one := other_killers.kill(line, at)) is not None]
    told = [(one.victim, one.killer) for one in other_killers.without_copies(found)]
    either = "kernel/systemd-oomd"
    assert told[:2] == [("a.service", "kernel"), ("/system.slice/b.service", "systemd-oomd")]
    assert told[2:] == [("c.service", either), ("a.service", either)]
