"""Log files: text, compressed text, and others that are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel.kmsg.test_corpus import CORPUS

from tracer.errors import TracerError
from tracer.kernel.kmsg import log_files
from tracer.kernel.kmsg.log_files import merged
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text.lines import split

LOG = (Path(__file__).parent / "corpus/captured-6.18-v1-kmsg.log").read_bytes()


def victims(path: Path) -> list[int | None]:
    return [kill.pid for report in log_files.read(str(path)).reports for kill in report.kills]


@pytest.mark.parametrize(
    "content",
    [
        lambda: gzip.compress(LOG),
        lambda: gzip.compress(LOG[:999]) + gzip.compress(LOG[999:]),
        lambda: gzip.compress(LOG) + bytes(99),  # padding, as of tar
        lambda: gzip.compress(LOG + b"x" * (5 << 20))[:-20],
        lambda: lzma.compress(LOG),
        lambda: lzma.compress(LOG + b"x" * (5 << 20))[:-40],
        lambda: bz2.compress(LOG),
        lambda: bz2.compress(LOG + random.Random(7).randbytes(1 << 20).hex().encode())[:-20],
    ],
    ids=["whole", "members", "padded", "cut", "xz", "xz cut", "bzip2", "bzip2 cut"],
)
def test_compressed_log_is_read(tmp_path: Path, content: Callable[[], bytes]) -> None:
    plain, zipped = tmp_path / "kern.log", tmp_path / "kern.log.1.gz"
    plain.write_bytes(LOG)
    zipped.write_bytes(content())
    assert victims(zipped) == victims(plain) != []


@pytest.mark.parametrize(
    ("kind", "content"),
    [("gzip", gzip.compress(LOG)), ("xz", lzma.compress(LOG)), ("bzip2", bz2.compress(LOG))],
)
def test_broken_compressed_log_raises(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "kern.log.2"
    whole = bytearray(content)
    whole[60:90] = bytes(30)
    path.write_bytes(whole)
    with pytest.raises(TracerError, match=rf"kern\.log\.2 is {kind}, and broken"):
        victims(path)


def test_log_with_unreadable_kill_raises(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for text in (
        "Nov 25 10:00:00 host app[7]: saw Killed process 7",
        "java invoked oom-killer again, help",
        "[    5.000000] oom_reaper: reaped process 7 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
    ):
        path.write_text(f"hello\n{text}\n")
        with pytest.raises(TracerError, match="names a kill that could not be read, in line 2"):
            log_files.read(str(path))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/kmsg"])
def test_endless_device_raises(device: str) -> None:
    if not os.access(device, os.R_OK):
        pytest.skip(f"{device} cannot be read here")
    with pytest.raises(TracerError, match=f"{device} has no end"):
        log_files.read(device)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"\n", "has no line of the kernel"),
        (b"-- No entries --\n", "has no line of the kernel"),
        (
            b"# memcg-tracer\n\n**Why** does a container: not die?\n\n```\nmake demo  # [see] below\n```\n",
            "has no line",
        ),
        (b"Nov 25 10:00:00 host sshd[7]: Accepted publickey\n", "has no line of the kernel"),
        (b"<30>Nov 25 10:00:00 host systemd[1]: Started a unit.\n", "has no line of the kernel"),
    ],
)
def test_log_without_a_line_of_the_kernel_is_no_answer(tmp_path: Path, content: bytes, what: str) -> None:
    """ "The kernel killed nothing" would be wrong: it is not known."""
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(TracerError, match=f"log {what}.*, so it cannot show a kill: give what dmesg or"):
        log_files.read(str(tmp_path / "log"))


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] Linux version 6.12",
        "[Wed Nov 26 10:10:51 2025] Linux version 6.12",
        "2025-11-26T10:10:51,567072+00:00 Linux version 6.12",
        "Nov 26 10:10:51 host kernel: Linux version 6.12",
        "2025-11-26T10:10:51.567072+00:00 host kernel: Linux version 6.12",
        "kern  :info  : [    1.000000] Linux version 6.12",
        "6,1,1000000,-;Linux version 6.12",
        '{"MESSAGE": "Linux version 6.12", "_TRANSPORT": "kernel"}',
        '      "msg": "Linux version 6.12"',
        "> [    1.000000] Linux version 6.12",
    ],
)
def test_log_with_a_line_of_the_kernel_and_no_kill_is_an_answer(tmp_path: Path, line: str) -> None:
    (tmp_path / "log").write_text(f"{line}\n")
    found = log_files.read(str(tmp_path / "log"))
    assert (len(found.reports), found.other_kills) == (0, [])


def test_device_that_has_an_end_is_read() -> None:
    with pytest.raises(TracerError, match="is empty"):
        log_files.read(os.devnull)


COPIES_LOG = list(split([(CORPUS / "captured-6.18-v1-kmsg.log").read_bytes()]))


def test_copies_of_kill_most_complete_is_kept() -> None:
    (whole,) = reports(COPIES_LOG)
    killed = next(line for line in COPIES_LOG if "Killed process" in line).partition(";")[2]
    event = f"5m  Warning  OOMKilling  node/n1  {killed}"
    monitor = f"I1012 19:00:20.884452 3240 log_monitor.go:160] New status generated: {{Message:{killed}}}"
    for log in (
        [event, *COPIES_LOG],
        [*COPIES_LOG, monitor],
        [*COPIES_LOG, "", *COPIES_LOG],
        [event, *COPIES_LOG, monitor],
    ):
        (kept,) = merged(reports(log))
        assert (kept.missing, len(kept.tasks)) == (whole.missing, len(whole.tasks))


def test_same_pid_at_other_time_is_other_kill() -> None:
    later = [line.replace("total-vm:", "total-vm:1") for line in COPIES_LOG]
    assert len(merged(reports([*COPIES_LOG, *later]))) == 2
    kill = "[{}.000000] Memory cgroup out of memory: Killed process 7 (a) total-vm:9kB, anon-rss:8kB"
    assert len(merged(reports([kill.format(100), kill.format(900)]))) == 2
    assert len(merged(reports([kill.format(100), kill.format(100)]))) == 1


def test_choice_of_killed_task_is_copy_of_kill() -> None:
    """A post quotes the choice by the time of syslog, and the kill by the time since boot."""
    choice = "Out of memory: Kill process 71 (java) score 77 or sacrifice child"
    killed = "[ 9.100003] Killed process {} (java) total-vm:3618080kB, anon-rss:2540308kB, file-rss:0kB"
    quoted = f"Jul 27 13:29:54 build7 kernel: {choice}"
    whole = [f"[ 9.100002] {choice}", killed.format(71)]
    for log in ([quoted, *whole], [*whole, quoted]):
        (kept,) = merged(reports(log))
        assert [kill.pid for kill in kept.kills] == [71]
    assert len(merged(reports([quoted, f"[ 9.100002] {choice}", killed.format(72)]))) == 2  # of a child
    assert len(merged(reports([f"[ 9.100002] {choice}", f"[ 9.200002] {choice}"]))) == 2


def test_event_of_kubelet_is_copy_of_kernel_kill() -> None:
    event = "default 53m Warning SystemOOM node/n4 System OOM encountered, victim process: my app, pid: 77"
    (found,) = reports([event])
    assert (found.constraint, [(kill.pid, kill.comm) for kill in found.kills]) == ("global", [(77, "my app")])
    kill = "Out of memory: Killed process 77 (my app) total-vm:9kB, anon-rss:8kB"
    (kept,) = merged(reports([event, kill]))
    assert kept.kills[0].anon_rss_bytes == 8192


def test_progress_is_the_bytes_of_text_read_so_far(tmp_path: Path) -> None:
    path, seen = tmp_path / "log.gz", list[int]()
    content = LOG + b"nothing\n" * (1 << 18)
    path.write_bytes(gzip.compress(content))
    log_files.read(str(path), seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert seen[-1] == len(content)
