"""Measure what each way to limit page cache costs, for the tables of docs/faq.md.

    sudo .venv/bin/python docs/cache_limits.py --in DIRECTORY           # measure, and write the table
    sudo .venv/bin/python docs/cache_limits.py --in DIRECTORY --print   # measure, and print the table
    .venv/bin/python docs/cache_limits.py --table FILE                  # write a table that was printed

DIRECTORY is on a disk. A service in a cgroup with a limit has read its data. In the same cgroup, a backup
copies a file that is larger than the limit, in one of the ways. Then the service reads its data again, and
needs more memory. The table of this kernel's cgroup version stands between `<!-- cache limits: vN -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy  # noqa: E402  after the path
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup  # noqa: E402

PAGE: Final = TOP / "docs/faq.md"
MIB: Final = 1 << 20
LIMIT_BYTES: Final = 192 * MIB
DATA_BYTES: Final = 64 * MIB
COPIED_BYTES: Final = 384 * MIB
GROWTH_BYTES: Final = 96 * MIB
HIGH_BYTES: Final = 128 * MIB
OWN_BYTES: Final = 32 * MIB

SERVICE: Final = f"""
import mmap, os, resource, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
data, kept = os.open(sys.argv[2], os.O_RDONLY), []
def from_disk():
    return int(open("/proc/self/io").read().split("read_bytes: ")[1].split()[0])
def read():
    os.lseek(data, 0, os.SEEK_SET)
    while os.read(data, 1 << 17):
        pass
def grow():
    memory = mmap.mmap(-1, {GROWTH_BYTES}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory[::{os.sysconf("SC_PAGESIZE")}] = bytes({GROWTH_BYTES // os.sysconf("SC_PAGESIZE")})
    kept.append(memory)
read(); read()
print("ready", flush=True)
for line in sys.stdin:
    begin_s, before = time.monotonic(), from_disk()
    dict(read=read, grow=grow)[line.strip()]()
    print(time.monotonic() - begin_s, from_disk() - before, flush=True)
"""
BACKUP: Final = """
import mmap, os, resource, sys, time
_, cgroup, source, target, way = sys.argv
open(cgroup + "/cgroup.procs", "w").write("0")
begin_s = time.monotonic()
direct = os.O_DIRECT if way == "direct" else 0
reader = os.open(source, os.O_RDONLY | direct)
writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | direct, 0o600)
block, done = mmap.mmap(-1, 1 << 20), 0
while size := os.readv(reader, [block]):
    os.write(writer, memoryview(block)[:size])
    done += size
    if way == "dontneed" and done % (8 << 20) == 0:
        os.fdatasync(writer)  # a page that is not written stays
        for file in (reader, writer):
            os.posix_fadvise(file, 0, done, os.POSIX_FADV_DONTNEED)
os.fsync(writer)
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.monotonic() - begin_s, used.ru_utime + used.ru_stime)
"""


@dataclass(frozen=True)
class Measured:
    """One run: the copy, what the cgroups hold after it, and what the service notices."""

    copy_s: float
    cpu_s: float
    usage_mib: float
    read_again_mib: float
    grow_s: float


@dataclass(frozen=True)
class Way:
    """A way to limit page cache. `how` is what BACKUP does. cgroup versions from `least_version` have it."""

    words: str
    how: str = "plain"
    least_version: int = 1
    high_bytes: int | None = None
    own_bytes: int | None = None
    reclaims: bool = False


WAYS: Final = (
    Way("nothing"),
    Way("`memory.reclaim` after the backup", least_version=2, reclaims=True),
    Way(f"`memory.high` of {HIGH_BYTES // MIB} MiB", least_version=2, high_bytes=HIGH_BYTES),
    Way("POSIX_FADV_DONTNEED after each 8 MiB", how="dontneed"),
    Way("O_DIRECT", how="direct"),
    Way(f"a cgroup of {OWN_BYTES // MIB} MiB for the backup", own_bytes=OWN_BYTES),
)


class Service:
    """The service, which has read its data twice, so that its pages are active."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def do(self, what: str) -> tuple[float, float]:
        """Return the seconds that it took, and the bytes that were read from the disk for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        took_s, from_disk = self._line().split()
        return float(took_s), float(from_disk)


@contextmanager
def service(cgroup: Path, data: Path) -> Iterator[Service]:
    command = [sys.executable, "-I", "-S", "-c", SERVICE, str(cgroup), str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


def drop(file: Path) -> None:
    """Write a file to the disk, and drop its page cache."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def usage_bytes(cgroup: Path) -> int:
    name = "memory.current" if memory_hierarchy().version == 2 else "memory.usage_in_bytes"
    return int((cgroup / name).read_text())


def reclaim(cgroup: Path, most_bytes: int) -> None:
    try:
        (cgroup / "memory.reclaim").write_text(str(most_bytes))
    except OSError as error:  # less could be freed
        print(f"memory.reclaim of {most_bytes >> 20} MiB: {error.strerror}", file=sys.stderr)


def measure(way: Way, folder: Path) -> Measured:
    """Run one way once."""
    data, source, target = (folder / name for name in ("data", "source", "target"))
    drop(data)
    drop(source)
    with ExitStack() as held:
        cgroup = held.enter_context(ephemeral_cgroup("limits", LIMIT_BYTES, 0))
        cgroups = [cgroup]
        if way.high_bytes is not None:
            (cgroup / "memory.high").write_text(str(way.high_bytes))
        if way.own_bytes is not None:
            cgroups.append(held.enter_context(ephemeral_cgroup("backup", way.own_bytes, 0)))
        served = held.enter_context(service(cgroup, data))
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            BACKUP,
            str(cgroups[-1]),
            str(source),
            str(target),
            way.how,
        ]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode:
            raise SystemExit(
                f"the backup ended with {ended.returncode} ({way.words}): is {folder} on a disk?"
            )
        copy_s, cpu_s = map(float, ended.stdout.split())
        if way.reclaims:
            begin_s, before_s = time.monotonic(), time.process_time()
            reclaim(cgroup, LIMIT_BYTES - DATA_BYTES - OWN_BYTES)
            copy_s += time.monotonic() - begin_s
            cpu_s += time.process_time() - before_s
        usage = sum(map(usage_bytes, cgroups))
        _, read_again = served.do("read")
        grow_s, _ = served.do("grow")
    target.unlink()
    return Measured(copy_s, cpu_s, usage / MIB, read_again / MIB, grow_s)


def table(folder: Path, times: int) -> str:
    """Measure all ways of this kernel in turn, so that a change of the machine's load meets all of them."""
    version = memory_hierarchy().version
    ways = [way for way in WAYS if way.least_version <= version]
    for name, size in (("data", DATA_BYTES), ("source", COPIED_BYTES)):
        (folder / name).write_bytes(os.urandom(size))
    found: dict[Way, list[Measured]] = {way: [] for way in ways}
    for turn in range(times):
        for way in ways:
            found[way].append(measure(way, folder))
            print(turn, way.words, found[way][-1], file=sys.stderr, flush=True)
    heads = ("way", "copy", "CPU of it", "usage after", "data read again", "96 MiB more took")
    lines = [
        f"<!-- cache limits: v{version} -->",
        f"cgroup v{version}, Linux {platform.release()}, the median of {times} runs and their range:",
        "",
        f"| {' | '.join(heads)} |",
        f"|---|{'---:|' * (len(heads) - 1)}",
        *(row(way, found[way]) for way in ways),
        "<!-- end -->",
    ]
    return "\n".join(lines)


def row(way: Way, runs: list[Measured]) -> str:
    def shown(name: str, digits: int, unit: str, *, has_range: bool = True) -> str:
        values = [getattr(run, name) for run in runs]
        least, middle, most = (f"{of(values):.{digits}f}" for of in (min, statistics.median, max))
        return f"{middle} {unit} ({least} to {most})" if has_range else f"{middle} {unit}"

    cells = (
        shown("copy_s", 1, "s"),
        shown("cpu_s", 2, "s", has_range=False),
        shown("usage_mib", 0, "MiB", has_range=False),
        shown("read_again_mib", 0, "MiB"),
        shown("grow_s", 2, "s"),
    )
    return f"| {way.words} | {' | '.join(cells)} |"


def write(new: str) -> None:
    """Put a table in place of the one of the same cgroup version."""
    begin, text = new.splitlines()[0], PAGE.read_text("utf-8")
    before, rest = text.split(begin, 1)
    PAGE.write_text(before + new.strip() + rest.split("<!-- end -->", 1)[1], "utf-8")


def main() -> None:
    """Measure, or take a printed table, and replace the table of the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--in", dest="folder", type=Path, help="a directory on a disk")
    parser.add_argument("--print", dest="is_printed", action="store_true", help="print the table instead")
    parser.add_argument("--table", type=Path, help="a table that was printed")
    parser.add_argument("--times", type=int, default=5, help="how often each way is measured")
    asked = parser.parse_args()
    if asked.table is not None:
        write(asked.table.read_text("utf-8"))
        return
    folder = asked.folder / f"cache-limits-{os.getpid()}"
    folder.mkdir()
    try:
        found = table(folder, asked.times)
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    print(found) if asked.is_printed else write(found)


if __name__ == "__main__":
    main()
