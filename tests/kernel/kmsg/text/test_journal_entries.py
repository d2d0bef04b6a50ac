"""Entries of the journal with a line for each field: each message is read as if it had one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from kernel.kmsg.test_pasted import facts_of, lines_of

from tracer.analysis.explain import logged_kills
from tracer.kernel.kmsg.log_files import merged
from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text import journal_entries
from tracer.kernel.kmsg.text.lines import split

LOG: Final = "captured-6.12-debian13-v2-dmesg-x.log"
SECOND: Final = 1_714_557_600


def messages() -> list[str]:
    return [line.partition("] ")[2] for line in lines_of(LOG)]


def verbose(at: int, message: str) -> str:
    us = SECOND * 1_000_000 + at * 1000
    cursor = f"[s=1d8f;i=a{at:x};b=796d;m=1f67;t={us:x};x=e534]"
    return (
        f"Wed 2024-05-01 12:00:00.000000 CEST {cursor}\n    _TRANSPORT=kernel\n    PRIORITY=4\n"
        f"    MESSAGE={message}\n    SYSLOG_IDENTIFIER=kernel\n    _HOSTNAME=box7\n"
        f"    _SOURCE_MONOTONIC_TIMESTAMP={at * 1000}\n"
    )


def export(at: int, message: str) -> str:
    return (
        f"__CURSOR=s=1d8f;i=a{at:x}\n__REALTIME_TIMESTAMP={SECOND * 1_000_000 + at * 1000}\n"
        f"_TRANSPORT=kernel\nMESSAGE={message}\n_HOSTNAME=box7\n\n"
    )


def short(at: int, message: str) -> str:
    return f"Wed 2024-05-01 10:00:{at // 1000:02d}.{at % 1000:03d}000 UTC\n    MESSAGE={message}\n"


@pytest.mark.parametrize("size", [64, 1 << 20])
@pytest.mark.parametrize("style", [verbose, export, short])
@pytest.mark.parametrize("before", ["", "$ journalctl -k -o verbose\n"])
def test_fields_on_lines_of_their_own_are_read_with_their_times(
    before: str, style: Callable[[int, str], str], size: int
) -> None:
    text = (before + "".join(style(at, message) for at, message in enumerate(messages()))).encode()
    chunks = [text[:4096], *(text[at : at + size] for at in range(4096, len(text), size))]
    lines = list(split(journal_entries.as_lines(iter(chunks))))
    assert len(lines) == text.count(b"\n") + 1 - text.endswith(b"\n")
    assert facts_of(lines) == facts_of(lines_of(LOG)) != []
    times = [report.time for report in logged_kills.explain(reports(lines))]
    assert all(time is not None and time.isoformat().startswith("2024-05-01T10:00:0") for time in times)


def test_message_of_several_lines_is_read() -> None:
    entry = verbose(1, "Memory cgroup stats for /a:\n            anon 4096\n            file 8192")
    lines = list(split(journal_entries.as_lines(iter([entry.encode()]))))
    (report,) = merged(reports(lines))
    assert report.stats[0].values == {"anon": 4096, "file": 8192}


def test_message_of_another_program_is_no_message_of_the_kernel() -> None:
    kill = "Memory cgroup out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:4kB, file-rss:0kB"
    forged = verbose(1, kill).replace("_TRANSPORT=kernel", "_TRANSPORT=syslog")
    forged = forged.replace("SYSLOG_IDENTIFIER=kernel", "SYSLOG_IDENTIFIER=sh")
    lines = list(split(journal_entries.as_lines(iter([forged.encode()]))))
    assert not [*reports(lines)]


def test_log_without_entries_stays_as_it_is() -> None:
    log = b"[ 1.000000] a=b\nMESSAGE=x\n"
    assert b"".join(journal_entries.as_lines(iter([log[:5], log[5:]]))) == log


def test_line_without_an_end_is_given_on_in_pieces() -> None:
    chunks = [verbose(1, "a").encode(), *[b"x" * (1 << 18)] * 20]
    pieces = list(journal_entries.as_lines(iter(chunks)))
    assert max(map(len, pieces)) < 2 << 20
    assert b"".join(pieces).endswith(b"\n" + b"x" * (20 << 18))


STATS: Final = "anon 104000000\nfile 4096\nkernel_stack 16384\nslab 8192"


def binary(at: int, message: str) -> bytes:
    data = message.encode()
    entry = export(at, "").encode().removesuffix(b"\n")
    field = b"MESSAGE\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return entry.replace(b"MESSAGE=\n", field) + b"\n"


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_binary_fields_of_an_export_are_read(size: int) -> None:
    """A size of ten bytes has a line end in it."""
    killed = "Memory cgroup out of memory: Killed process 41 (a) total-vm:4kB, anon-rss:4kB, file-rss:0kB"
    text = export(1, "a invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0").encode()
    text += export(2, "memory: usage 102400kB, limit 102400kB, failcnt 7").encode()
    text += export(3, "Memory cgroup stats for /a:").encode() + binary(4, STATS) + binary(5, "0123456789")
    text += export(6, killed).encode()
    chunks = [text[:512], *(text[at : at + size] for at in range(512, len(text), size))]
    lines = list(split(journal_entries.as_lines(iter(chunks))))
    assert len(lines) == text.count(b"\n") + 1 - text.endswith(b"\n")
    (report,) = reports(lines)
    assert report.stats[0].values == {"anon": 104000000, "file": 4096, "kernel_stack": 16384, "slab": 8192}
    assert report.kills[0].stamp.line == text[: text.index(b"Killed")].count(b"\n") + 1


@pytest.mark.parametrize("style", [verbose, export])
def test_quoted_entries_are_read_with_their_times(style: Callable[[int, str], str]) -> None:
    text = "".join(style(at, message) for at, message in enumerate(messages()))
    quoted = "".join(f"> {line}\n" for line in text.splitlines()).encode()
    lines = list(split(journal_entries.as_lines(iter([quoted[:3000], quoted[3000:]]))))
    assert facts_of(lines) == facts_of(lines_of(LOG))
    times = [report.time for report in logged_kills.explain(reports(lines))]
    assert all(time is not None and time.isoformat().startswith("2024-05-01T10:00:0") for time in times)
