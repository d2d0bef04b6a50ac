"""The message of a line in each style of log."""

from __future__ import annotations

import pytest

from tracer.kernel.kmsg.text.lines import Reader, split
from tracer.kernel.kmsg.text.styles import MOST_CHARACTERS, Record, Stamp

TEXT = "oom_reaper: reaped process 7 (a), now anon-rss:0kB"
US = 1_000
SECOND = 1_000_000_000


def read(line: str, number: int) -> Record | None:
    """Return the message of a line, or None."""
    found = Reader().read(line, number)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("prefix", "since_boot_ns", "wall"),
    [
        ("6,1234,5678,-;", 5678 * US, None),
        ("4,1,99,c,caller=T1;", 99 * US, None),
        ("[   12.345678] ", 12_345_678 * US, None),
        ("[12345678.000001] ", 12345678 * SECOND + US, None),
        ("<6>[   12.345678] ", 12_345_678 * US, None),
        ("kern  :info  : [   12.345678] ", 12_345_678 * US, None),
        ("[   12.345678 <    0.000012>] ", 12_345_678 * US, None),
        ("[   12.345678                ] ", 12_345_678 * US, None),  # the first line of dmesg -d
        ("6.12.1-amd64,6,1234,5678,-;", 5678 * US, None),  # netconsole with the release
        (
            "Thu Mar  3 10:00:05 2026 kern.warn kernel: [   12.345678] ",  # logread of OpenWrt
            12_345_678 * US,
            "Thu Mar  3 10:00:05 2026",
        ),
        ("[<    0.000012>] ", None, None),
        ("[  +0.000012] ", None, None),
        ("[Nov25 10:00] ", None, "Nov25 10:00"),
        ("[Wed Nov 25 09:28:48 2026] ", None, "Wed Nov 25 09:28:48 2026"),
        ("[二 9月  3 05:57:48 2024] ", None, "二 9月  3 05:57:48 2024"),
        ("2026-11-25T09:28:48,676527+00:00 ", None, "2026-11-25T09:28:48,676527+00:00"),
        ("kern:    info: [2026-07-25T14:23:17.527285605Z]: ", None, "2026-07-25T14:23:17.527285605Z"),
        ("Nov 25 10:00:00 host kernel: ", None, "Nov 25 10:00:00"),
        ("Nov  5 10:00:00 host kernel: [   12.345678] ", 12_345_678 * US, "Nov  5 10:00:00"),
        ("    Nov 25 10:00:00 host kernel: ", None, "Nov 25 10:00:00"),
        ("    [Wed Nov 25 09:28:48 2026] ", None, "Wed Nov 25 09:28:48 2026"),
        ("Nov 25 10:00:00.123456 host kernel: ", None, "Nov 25 10:00:00.123456"),
        ("2026-11-25T10:00:00+0100 host kernel: ", None, "2026-11-25T10:00:00+0100"),
        (
            "2026-11-25T10:00:00.123+01:00 host kernel: [ 1.5] ",
            SECOND * 3 // 2,
            "2026-11-25T10:00:00.123+01:00",
        ),
        ("<6>1 2026-11-25T10:00:00Z host kernel - - - ", None, "2026-11-25T10:00:00Z"),
        ("Wed 2026-11-25 10:00:00 UTC host kernel: ", None, "Wed 2026-11-25 10:00:00 UTC"),
        ("1764064800.123456 host kernel: ", None, "1764064800.123456"),
        ("[   12.345678] host.example kernel: ", 12_345_678 * US, None),
        ("[   12.345678] [    T7] ", 12_345_678 * US, None),
    ],
)
def test_line_of_each_style_is_read(prefix: str, since_boot_ns: int | None, wall: str | None) -> None:
    record = read(prefix + TEXT, 3)
    assert record is not None
    assert (record.text, record.stamp) == (TEXT, Stamp(3, since_boot_ns, wall))
    assert record.prefix == len(prefix)


@pytest.mark.parametrize(
    ("prefix", "wall"),
    [
        ("10.5.0.2: kern:     err: [2026-03-03T10:00:05.12Z]: ", "2026-03-03T10:00:05.12Z"),
        ("Timestamp:2026-03-03 10:00:05.1 +0000 UTC Message:", "2026-03-03 10:00:05.1"),
        ("/var/log/messages:Mar  3 10:00:05 n1 kernel: ", "Mar  3 10:00:05"),
        ("10.5.0.2 12026-03-03T10:00:05 ", None),
    ],
)
def test_date_in_a_prefix_of_no_known_style_is_read(prefix: str, wall: str | None) -> None:
    record = read(f"{prefix}Memory cgroup out of memory: Killed process 7 (a), UID 0", 3)
    assert record is not None
    assert (record.stamp.wall, record.text[:13]) == (wall, "Memory cgroup")


def test_space_of_windows_1252_is_a_space() -> None:
    (line,) = split([b"[   12.345678]\xa0java invoked oom-killer: order=0"])
    record = read(line, 3)
    assert record is not None
    assert record.text == "java invoked oom-killer: order=0"


def test_bare_line_is_read() -> None:
    assert read(TEXT, 1) == Record(Stamp(1), TEXT)
    row = "[    123]     0   123     4000     2100    61440        0             0 a"
    assert read(row, 1) == Record(Stamp(1), row)


@pytest.mark.parametrize(
    "prefix",
    [
        "14,1234,5678,-;",
        "<30>",
        "user  :notice: [   12.345678] ",
        "Nov 25 10:00:00 host app[7]: ",
        "    Nov 25 10:00:00 host app[7]: ",
        "2026-11-25T10:00:00Z host systemd-oomd: ",
        '{"_TRANSPORT":"syslog","MESSAGE":"a"}',
    ],
)
def test_line_of_other_program_is_none(prefix: str) -> None:
    assert read(prefix + TEXT, 1) is None


def test_caller_and_host_are_read() -> None:
    def caller_and_host(line: str) -> tuple[str | None, str | None]:
        record = read(line, 1)
        assert record is not None
        return record.caller, record.host

    assert caller_and_host("[ 1.000000] [   C3] text") == ("C3", None)
    assert caller_and_host("4,1,99,-,caller=T41;text") == ("T41", None)
    assert caller_and_host("Nov 25 10:00:00 web-3 kernel: [ 1.000000][ T7] text") == ("T7", "web-3")


def test_escapes_of_dev_kmsg_are_decoded() -> None:
    record = read(r"6,1,2,-;a\x0ab\x5cx41 \xc3\xa4\xff", 1)
    assert record is not None
    assert record.text == "a\nb\\x41 ä\udcff"


def test_colours_and_line_ends_are_removed() -> None:
    record = read("\x1b[32m[    1.000000] \x1b[0m\x1b[33mMem-Info:\x1b[0m\r\n", 1)
    assert record is not None
    assert record.text == "Mem-Info:"


def test_json_of_journalctl_is_read() -> None:
    line = '{"MESSAGE":[97,255],"__REALTIME_TIMESTAMP":"1731254400123456","_SOURCE_MONOTONIC_TIMESTAMP":"7"}'
    assert read(line, 1) == Record(Stamp(1, 7 * US, "1731254400.123456"), "a\udcff", prefix=1)
    for broken in ("{", "{}", '{"MESSAGE":7}', "[" * 9, '{"MESSAGE":"a","_HOSTNAME":[]}'):
        read(broken, 1)


def test_long_line_is_cut_and_next_is_whole() -> None:
    lines = list(split([b"x" * 50_000, b"y" * 50_000, b"z" * 50_000 + b"\nshort\n", b"last"]))
    assert [len(line) for line in lines] == [4 * MOST_CHARACTERS, 5, 4]
    record = read(lines[0], 1)
    assert record is not None
    assert len(record.text) == MOST_CHARACTERS
