"""Programs of many kinds, whose runs at other limits are compared with what `whatif` says about them.

Some are work of known sizes, some are programs that people run. All of them end, and do the same work each
time, some with other timing.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tracer.kernel.process.children import argv_of_module
from tracer.lab.experiments import Experiment
from tracer.lab.scratch import write_uncached

MIB: Final = 1 << 20


@dataclass(frozen=True)
class Program(Experiment):
    """Work in the place of an experiment.

    `argv` gets the place of its file, `read-me`, and returns its command. `limit_bytes` is the limit of its
    second recording: one at which it lives, and may read again.
    """

    argv: Callable[[Path], Sequence[str]] = field(default=lambda _: ())

    def command(self, place: Path) -> list[str]:
        """Return the command to record."""
        return [*self.argv(place)]


def with_content(
    content: Callable[[], bytes], name: str = "read-me"
) -> Callable[[Path], AbstractContextManager[Path]]:
    """Return a `prepare` that makes a file of this content that is not in the page cache."""

    @contextmanager
    def prepare(scratch: Path) -> Iterator[Path]:
        data = content()
        write_uncached(scratch / name, len(data), data)
        yield scratch

    return prepare


def _random(mib: int) -> Callable[[Path], AbstractContextManager[Path]]:
    return with_content(lambda: b"\0" * (mib * MIB))


def _steps(*steps: str) -> Callable[[Path], list[str]]:
    """Return the command of steps of the workload; FILE stands for the file."""

    def argv(place: Path) -> list[str]:
        words = " then ".join(steps).replace("FILE", str(place / "read-me")).split()
        return [*argv_of_module("tracer.lab.workload", "--pause-ms", "1"), *words]

    return argv


def _python(code: str) -> Callable[[Path], list[str]]:
    """Return the command of a Python program; its first argument is the file."""
    return lambda place: [sys.executable, "-c", code, str(place / "read-me")]


def _lines() -> bytes:
    return b"".join(
        b"%016x %08d\n" % (number * 0x9E3779B97F4A7C15 % (1 << 64), number) for number in range(1_000_000)
    )


def _source() -> bytes:
    functions = (
        f"static int f{n}(int a, int b) {{ int s = {n}; for (int i = 0; i < a; i++) "
        f"{{ s += (i * b) ^ (s >> {n % 7}); if (s % {n + 3} == 1) s -= b * i; }} return s; }}\n"
        for n in range(400)
    )
    calls = "".join(f"  total += f{n}(argc + {n}, argc);\n" for n in range(400))
    return (
        "".join(functions) + f"int main(int argc, char **argv) {{ int total = 0;\n{calls}  return total; }}\n"
    ).encode()


_SAWTOOTH = """
import mmap, time
for round in range(5):
    memory = mmap.mmap(-1, 67 << 20)
    for page in range(0, len(memory), 4096): memory[page] = 1
    time.sleep(0.05)
    memory.close()
"""
_GIVES_BACK = """
import mmap, time
memory = mmap.mmap(-1, 48 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(memory), 4096): memory[page] = 1
memory.madvise(8)  # MADV_FREE
time.sleep(0.5)
kept = mmap.mmap(-1, 31 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, len(kept), 4096): kept[page] = 1
time.sleep(0.3)
"""
_SPARSE = """
import mmap, time
memory = mmap.mmap(-1, 96 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
for page in range(0, len(memory), 2 << 20): memory[page] = 1
time.sleep(0.3)
"""
_HOT_SET = """
import os, random, sys
random.seed(7)
file = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
for _ in range(60000):
    part = random.randrange(4096) if random.random() < 0.8 else random.randrange(16384)
    os.pread(file, 4096, part * 4096)
"""
_MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
for _ in range(3):
    sum(memory[page] for page in range(0, len(memory), 4096))
"""
_SQLITE = """
import random, sqlite3, sys
random.seed(3)
db = sqlite3.connect(sys.argv[1] + ".db")
db.execute("pragma synchronous=off")
db.execute("create table t (k integer primary key, v blob)")
with db: db.executemany("insert into t values (?, randomblob(900))", ((n,) for n in range(40000)))
find = "select length(v) from t where k = ?"
for _ in range(20000): db.execute(find, (random.randrange(40000),)).fetchone()
"""
_SQLITE_MEMORY = """
import sqlite3
db = sqlite3.connect(":memory:")
db.execute("create table t (k integer primary key, v blob)")
for n in range(50000): db.execute("insert into t values (?, randomblob(900))", (n,))
"""
_PANDAS = """
import numpy as np, pandas as pd
left = pd.DataFrame({"k": np.arange(900000) % 70000, "v": np.arange(900000.0)})
right = left.groupby("k", as_index=False)["v"].mean()
print(left.merge(right, on="k")["v_y"].sum())
"""
_NUMPY = """
import numpy as np
a = np.arange(4_000_000.0)
for n in range(5): b = np.sort(a[::-1] * n); del b
"""
_LIST = """
kept = []
for n in range(600000): kept.append(str(n) * 10)
"""
_WORKERS = """
import os, time
def work(mib):
    kept = []
    for _ in range(mib): kept.append(bytearray(b"x") * (1 << 20)); time.sleep(0.002)
pids = []
for mib in (31, 17, 23, 7):
    pid = os.fork()
    if not pid: work(mib); os._exit(0)
    pids.append(pid)
failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
raise SystemExit(1 if failed else 0)
"""
_DIRTY = """
import os, sys
with open(sys.argv[1] + ".out", "wb", buffering=0) as file:
    for _ in range(90): file.write(os.urandom(1 << 20))
"""
_JSON = """
import json
text = json.dumps([{"id": n, "name": "x" * (n % 50), "tags": [n, n + 1]} for n in range(150000)])
print(len(json.loads(text)))
"""
_REDIS = """
redis-server --port 0 --unixsocket "$0.sock" --save "" --appendonly no &
server=$!
until redis-cli -s "$0.sock" ping; do kill -0 $server || exit 1; sleep 0.05; done
{
    redis-benchmark -s "$0.sock" -q -t set -n 60000 -r 60000 -d 700 -c 4
    redis-cli -s "$0.sock" shutdown nosave
} &
wait $server
"""


def _program(
    name: str,
    argv: Callable[[Path], Sequence[str]],
    limit_mib: int,
    prepare: Callable[[Path], AbstractContextManager[Path]] = nullcontext,
) -> Program:
    return Program(name, "", None, lambda _: [], limit_bytes=limit_mib * MIB, argv=argv, prepare=prepare)


def _tool(*words: str) -> Callable[[Path], list[str]]:
    """Return the command of an installed program; FILE stands for the file."""
    return lambda place: [
        shutil.which(words[0]) or words[0],
        *(w.replace("FILE", str(place / "read-me")) for w in words[1:]),
    ]


def _shell(script: str) -> Callable[[Path], list[str]]:
    """Return the command of a script; $0 is the file."""
    return lambda place: ["sh", "-c", script, str(place / "read-me")]


_OF_LINES: Final = with_content(_lines)

PROGRAMS: Final = {
    one.name: one
    for one in (
        _program("anon", _steps(f"anon {61 * MIB}"), 90),
        _program("stream", _steps("read FILE"), 40, _random(117)),
        _program("re-read", _steps("read FILE FILE FILE"), 40, _random(83)),
        _program("anon-and-re-read", _steps(f"anon {41 * MIB}", "read FILE FILE FILE"), 70, _random(53)),
        _program("shmem-and-re-read", _steps(f"shmem {43 * MIB}", "read FILE FILE FILE"), 70, _random(37)),
        _program("locked", _steps(f"mlock {37 * MIB}"), 60),
        _program("sawtooth", _python(_SAWTOOTH), 90),
        _program("gives-back", _python(_GIVES_BACK), 100),
        _program("sparse-huge-pages", _python(_SPARSE), 130),
        _program("hot-set", _python(_HOT_SET), 20, _random(64)),
        _program("mapped", _python(_MAPPED), 40, _random(53)),
        _program("sqlite", _python(_SQLITE), 40, _random(1)),
        _program("sqlite-in-memory", _python(_SQLITE_MEMORY), 80),
        _program("pandas", _python(_PANDAS), 200),
        _program("numpy", _python(_NUMPY), 150),
        _program("python-list", _python(_LIST), 100),
        _program("json", _python(_JSON), 200),
        _program("four-workers", _python(_WORKERS), 120),
        _program("writes-a-file", _python(_DIRTY), 60, _random(1)),
        _program(
            "sort", _tool("sort", "-S", "40M", "--parallel=1", "-o", "/dev/null", "FILE"), 60, _OF_LINES
        ),
        _program("xz", _tool("xz", "-6", "-T1", "-k", "-c", "FILE"), 130, _OF_LINES),
        _program("redis", _shell(_REDIS), 90),
        _program("gzip", _tool("gzip", "-c", "FILE"), 20, _OF_LINES),
        _program("awk", _tool("awk", "{ seen[$1] = $2 } END { print length(seen) }", "FILE"), 160, _OF_LINES),
        _program(
            "gcc",
            _tool("gcc", "-x", "c", "-O1", "-S", "-o", "/dev/null", "FILE"),
            60,
            with_content(_source),
        ),
    )
}
