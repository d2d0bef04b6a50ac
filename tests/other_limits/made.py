"""Work of known sizes, and Python programs that use memory in one way each."""

from __future__ import annotations

from typing import Final

from other_limits.work import MIB, program, python, random_file, steps

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
_AT_RANDOM = """
import os, random, sys
random.seed(11)
file = os.open(sys.argv[1], os.O_RDONLY)
read = random.sample(range(16384), 6000)  # of all parts of the file
for _ in range(24000): os.pread(file, 8192, random.choice(read) * 8192)
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
_SPIKE = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
parts = range(0, os.fstat(file).st_size, 1 << 16)
for part in parts: os.pread(file, 1 << 16, part)
memory = mmap.mmap(-1, 31 << 20)
for page in range(0, len(memory), 4096): memory[page] = 1
memory.close()
for part in reversed(parts): os.pread(file, 1 << 16, part)
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
MADE: Final = (
    program("anon", steps(f"anon {61 * MIB}"), 90),
    program("stream", steps("read FILE"), 40, random_file(117)),
    program("re-read", steps("read FILE FILE FILE"), 40, random_file(83)),
    program("anon-and-re-read", steps(f"anon {41 * MIB}", "read FILE FILE FILE"), 70, random_file(53)),
    program("shmem-and-re-read", steps(f"shmem {43 * MIB}", "read FILE FILE FILE"), 70, random_file(37)),
    program("locked", steps(f"mlock {37 * MIB}"), 60),
    program("sawtooth", python(_SAWTOOTH), 90),
    program("gives-back", python(_GIVES_BACK), 100),
    program("sparse-huge-pages", python(_SPARSE), 130),
    program("hot-set", python(_HOT_SET), 20, random_file(64)),
    program("reads-at-random", python(_AT_RANDOM), 30, random_file(128)),
    program("mapped", python(_MAPPED), 40, random_file(53)),
    program("sqlite", python(_SQLITE), 40, random_file(1)),
    program("sqlite-in-memory", python(_SQLITE_MEMORY), 80),
    program("pandas", python(_PANDAS), 200),
    program("numpy", python(_NUMPY), 150),
    program("python-list", python(_LIST), 100),
    program("json", python(_JSON), 200),
    program("four-workers", python(_WORKERS), 120),
    program("spike-and-reads-back", python(_SPIKE), 50, random_file(37)),
    program("writes-a-file", python(_DIRTY), 60, random_file(1)),
)
