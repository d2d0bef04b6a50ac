"""The memory of real processes, compared with what they touched, and the texts that runtimes show."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compiled import compiled

from tracer.kernel.anatomy import process_anatomy, smaps
from tracer.kernel.anatomy.mapping_kinds import Group
from tracer.kernel.anatomy.process_anatomy import (
    ProcessAnatomy,
    node_options,
    parse_environment,
    read_process,
    server_title,
)
from tracer.kernel.anatomy.shown import Shown

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def mapper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """Start tests/workloads/mappings.c, and yield it with all of its memory touched."""
    folder = tmp_path_factory.mktemp("mappings")
    program = compiled("mappings", folder, "-pthread")
    files = (f"/dev/shm/memcg-tracer-mappings-{os.getpid()}", str(folder / "private"))
    with subprocess.Popen([program, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            yield one
        finally:
            one.kill()
            Path(files[0]).unlink(missing_ok=True)


def anatomy_of(pid: int) -> ProcessAnatomy:
    found = read_process(pid)
    assert found is not None
    return found


def only(found: ProcessAnatomy, kind: str, name: str) -> Group:
    (one,) = [group for group in found.groups if group.kind == kind and name.encode() in group.name]
    return one


def test_each_kind_holds_what_the_program_touched(mapper: subprocess.Popen[str]) -> None:
    found = anatomy_of(mapper.pid)
    held = {
        "heap": only(found, "heap", "").anon_bytes,
        "shared": only(found, "shared", "/dev/shm/memcg-tracer-mappings").rss_bytes,
        "private": only(found, "file copy", "/private").anon_bytes,
        "anonymous": sum(one.anon_bytes for one in found.groups if one.kind == "anonymous"),
        "bss": only(found, "bss", "/mappings").anon_bytes,
    }
    assert {kind: round(bytes_ / MIB) for kind, bytes_ in held.items()} == {
        **{"heap": 23, "shared": 9, "private": 7, "anonymous": 15, "bss": 5}
    }
    assert all(abs(bytes_ - round(bytes_ / MIB) * MIB) < MIB // 4 for bytes_ in held.values()), held


def test_stacks_and_arenas_are_counted(mapper: subprocess.Popen[str]) -> None:
    found = anatomy_of(mapper.pid)
    (threads,) = [one for one in found.groups if one.kind == "stack" and one.name != b"main"]
    (arenas,) = [one for one in found.groups if one.kind == "arena"]
    assert threads.count == 37
    assert 37 * 300 * KIB <= threads.anon_bytes <= 37 * 340 * KIB
    assert 1 <= arenas.count <= 5, "some may have been merged with other memory below them"
    assert arenas.count * 200 * KIB <= arenas.anon_bytes <= arenas.count * 260 * KIB


def has_marked_stacks() -> bool:
    """Return whether the kernel marks memory that was mapped for stacks (since v6.7)."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_STACK
    with mmap.mmap(-1, 12345 * KIB, flags=flags):
        listed = smaps.read_smaps(Path("/proc/self"), time.monotonic() + 60, 1 << 30).mappings
    return any(one.is_small_paged and one.end - one.start >= 12345 * KIB for one in listed)


@pytest.mark.skipif(not has_marked_stacks(), reason="the kernel does not mark stacks (before v6.7)")
def test_stacks_of_threads_that_run_are_counted(tmp_path: Path) -> None:
    program = compiled("spinning", tmp_path, "-pthread")
    argv = ["nice", "-n", "19", str(program)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            (threads,) = [
                each for each in anatomy_of(one.pid).groups if each.kind == "stack" and not each.name
            ]
        finally:
            one.kill()
    assert threads.count == 7
    assert 7 * 200 * KIB <= threads.anon_bytes <= 7 * 240 * KIB


def sums_of_kernel(pid: int) -> dict[str, int]:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sums = {line.split()[0]: int(line.split()[1]) * KIB for line in rollup.splitlines()[1:]}
    return {name: sums[name] for name in ("Rss:", "Anonymous:")}


def test_sums_are_those_of_the_kernel(mapper: subprocess.Popen[str]) -> None:
    before = sums_of_kernel(mapper.pid)
    found, after = anatomy_of(mapper.pid), sums_of_kernel(mapper.pid)
    while after != before:  # threads may touch a page more on their way to sleep
        before, found, after = after, anatomy_of(mapper.pid), sums_of_kernel(mapper.pid)
    assert sum(one.rss_bytes for one in found.groups) == after["Rss:"]
    assert sum(one.anon_bytes for one in found.groups) == after["Anonymous:"]


def test_forked_child_shares_what_it_has_not_written() -> None:
    program = (
        "import os, sys\n"
        "held = bytearray(b'x') * (20 << 20)\n"
        "ours, theirs = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(theirs)\n"
        "    os.read(ours, 1)\n"
        "    os._exit(0)\n"
        "print(child, flush=True)\n"
        "sys.stdin.read()\n"
        "os.close(theirs)\n"
        "os.wait()\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = anatomy_of(int(parent.stdout.readline()))
        (largest,) = [one for one in child.groups if one.anon_bytes > 16 * MIB]
        assert largest.pss_bytes is not None
        assert abs(2 * largest.pss_bytes - largest.rss_bytes) < MIB
        parent.communicate()


def test_process_that_has_ended_has_no_anatomy() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert read_process(ended.pid) is None


def test_zombie_has_no_anatomy() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert read_process(child.pid) is None


def test_files_of_a_process_are_not_read_without_its_runtimes(
    mapper: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a file system of the process may not answer")

    monkeypatch.setattr(process_anatomy, "_runtimes", refuse)
    found = read_process(mapper.pid, runtimes=False)
    assert found is not None and found.groups and not found.runtimes


def test_text_behind_the_bound_is_said_to_be_unread(
    mapper: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason stays even if there are more groups than are kept, which have no names."""
    whole = anatomy_of(mapper.pid)
    monkeypatch.setattr(smaps.read_smaps, "__defaults__", (9000,))
    monkeypatch.setattr(process_anatomy, "_MOST_GROUPS", 1)
    part = anatomy_of(mapper.pid)
    (unread,) = [one for one in part.groups if one.kind == "unread"]
    assert b"text" in unread.name
    assert len(part.groups) < len(whole.groups)
    missing = sum(one.rss_bytes for one in whole.groups) - sum(one.rss_bytes for one in part.groups)
    assert abs(missing) < 4 * MIB, "the unread group has the rest of RSS"


def test_no_time_is_said(mapper: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_anatomy, "MOST_S", -1.0)
    assert [(one.kind, one.name) for one in anatomy_of(mapper.pid).groups] == [
        ("unread", b"no time was left")
    ]


def test_huge_process_is_not_read(mapper: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_anatomy, "MOST_RSS_BYTES", 20 * MIB)
    (unread,) = anatomy_of(mapper.pid).groups
    assert unread.kind == "unread"
    assert unread.rss_bytes > 60 * MIB


JAVA = """
import java.nio.ByteBuffer;
public class Held {
    public static void main(String[] arguments) throws Exception {
        byte[][] heap = new byte[17][];
        for (int number = 0; number < heap.length; number++) heap[number] = new byte[1 << 20];
        ByteBuffer outside = ByteBuffer.allocateDirect(43 << 20);
        for (int at = 0; at < outside.capacity(); at += 4096) outside.put(at, (byte) 1);
        System.gc();
        System.out.println("ready");
        System.in.read();
        System.out.println(heap.length + outside.capacity());
    }
}
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="no java")
@pytest.mark.parametrize("collector", ["Serial", "G1"])
def test_java_heap_is_told_from_direct_buffers(tmp_path: Path, collector: str) -> None:
    source = tmp_path / "Held.java"
    source.write_text(JAVA)
    options = ["-Xmx96m", f"-XX:+Use{collector}GC", "-XX:TieredStopAtLevel=1"]
    argv = ["java", *options, str(source)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as java:
        assert java.stdout is not None
        if java.stdout.readline() != "ready\n":
            pytest.skip("this java does not run a source file")
        found = anatomy_of(java.pid)
        java.communicate("\n")
    numbers = {one.name: one.value or 0 for one in found.runtimes if one.kind == "jvm"}
    assert numbers["heap_max_bytes"] == 96 * MIB
    assert 17 * MIB <= numbers["heap_used_bytes"] <= numbers["heap_committed_bytes"] <= 96 * MIB
    assert numbers["collections"] >= 1
    heap = sum(one.rss_bytes for one in found.groups if one.kind == "java heap")
    anonymous = sum(one.rss_bytes for one in found.groups if one.kind == "anonymous")
    assert 17 * MIB <= heap <= 97 * MIB
    assert 43 * MIB <= anonymous <= 43 * MIB + 40 * MIB


NODE = """
const held = [];
for (let count = 0; count < 70; count++) {
    const piece = [];
    for (let number = 0; number < 9000; number++) piece.push({number, text: [count, number]});
    held.push(piece);
}
const outside = [];
for (let count = 0; count < 30; count++) outside.push(Buffer.alloc(1 << 20, 1));
globalThis.gc();
const spaces = require('v8').getHeapSpaceStatistics();
const present = spaces.filter(space => !space.space_name.includes('code'))
    .reduce((sum, space) => sum + space.physical_space_size, 0);
console.log(present, process.memoryUsage().arrayBuffers);
process.stdin.on('data', () => { console.log(held.length + outside.length); process.exit(); });
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_v8_heap_is_what_v8_says_and_buffers_are_outside(tmp_path: Path) -> None:
    (tmp_path / "held.js").write_text(NODE)
    environment = os.environ | {"NODE_OPTIONS": "--max-old-space-size=301 --no-warnings"}
    argv = ["node", "--expose-gc", str(tmp_path / "held.js")]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as node:
        assert node.stdout is not None
        heap_bytes, buffers_bytes = map(int, node.stdout.readline().split())
        found = anatomy_of(node.pid)
        node.communicate("\n")
    heap = sum(one.rss_bytes for one in found.groups if one.kind == "v8 heap")
    outside = sum(one.rss_bytes for one in found.groups if one.kind in ("anonymous", "heap", "arena"))
    print(heap_bytes, heap, buffers_bytes, outside)
    assert heap == pytest.approx(heap_bytes, rel=0.03)
    assert heap > 60 * MIB
    assert 30 * MIB <= buffers_bytes <= outside <= buffers_bytes + 24 * MIB
    assert [one for one in found.runtimes if one.kind == "node"] == [
        Shown("node", "options", None, "--max-old-space-size=301")
    ]


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        (b"A=1\0NODE_OPTIONS=--max-old-space-size=300\0B=2\0", ["--max-old-space-size=300"]),
        (
            b"NODE_OPTIONS=--max_old_space_size=300  --require /secret --perf-basic-prof",
            ["--max_old_space_size=300", "--perf-basic-prof"],
        ),
        (
            b"NODE_OPTIONS=--max-semi-space-size=8 --max-old-space-size=9 --max-old-space-size=7",
            ["--max-semi-space-size=8", "--max-old-space-size=9", "--max-old-space-size=7"],
        ),
        (b"NODE_OPTIONS=\0NODE_OPTIONS=--max-old-space-size=300", []),  # getenv(3): the first counts
        (b"XNODE_OPTIONS=--max-old-space-size=300\0NODE_OPTIONS=--max-old-space-size=3x", []),
        (b"NODE_OPTIONS=" + 99 * b"--perf-basic-prof ", 16 * ["--perf-basic-prof"]),
        (b"", []),
    ],
)
def test_options_of_the_heap_are_kept_and_nothing_else(environment: bytes, options: list[str]) -> None:
    assert parse_environment(environment) == options


@given(st.binary(max_size=200))
def test_any_environment_gives_options_or_none(text: bytes) -> None:
    for option in parse_environment(b"NODE_OPTIONS=" + text):
        assert option.startswith("--")
        assert option.isascii()
        assert option.isprintable()


@pytest.mark.parametrize(
    ("cmdline", "title"),
    [
        (b"postgres: app shop [local] SELECT\0\0\0", "postgres: app shop [local] SELECT"),
        (
            b"postgres: 16/main: app shop 10.0.0.7(4711) idle   ",
            "postgres: 16/main: app shop 10.0.0.7(4711) idle",
        ),
        (b"postgres: \xff", "postgres: \udcff"),
        (b"postgres: " + 999 * b"x", "postgres: " + 246 * "x"),
        (b"postgres\0-D\0data\0", None),
        (b"python3\0postgres: app\0", None),
        (b"", None),
    ],
)
def test_title_of_a_backend_is_shown(
    monkeypatch: pytest.MonkeyPatch, cmdline: bytes, title: str | None
) -> None:
    monkeypatch.setattr(process_anatomy, "command_line", lambda _process, most_bytes: cmdline[:most_bytes])
    assert [(one.kind, one.text) for one in server_title(Path("7"))] == (
        [("postgresql", title)] if title else []
    )


@pytest.mark.parametrize(
    ("read", "text"),
    [(b"A=1\0", ""), (b"A=1\0NODE_OPTIONS=--max-semi-space-size=7\0", "--max-semi-space-size=7")],
)
def test_environment_that_was_read_shows_the_options_or_that_there_are_none(
    monkeypatch: pytest.MonkeyPatch, read: bytes, text: str
) -> None:
    monkeypatch.setattr(process_anatomy, "environment", lambda _process, _most_bytes: read)
    assert [one.text for one in node_options(Path("7"))] == [text]


def test_process_that_has_ended_shows_no_text(tmp_path: Path) -> None:
    assert [*node_options(tmp_path), *server_title(tmp_path)] == []
