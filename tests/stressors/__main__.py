"""stress-ng's memory stressors in memory cgroups, traced, as root: `make stress` (ARGS="--only vm brk").

Each stressor runs in a cgroup of its own with a limit that most of them exceed, in namespaces of its own
(processes, mounts, System V segments), so that nothing of it is left. Stressors that touch more of the
machine than their own memory are not in the list. Some stressors at a time are recorded in one trace. Then

* the kills that the trace has of each cgroup must be as many as the kernel counted (memory.events, on v1
  memory.oom_control), and `explain` must have a report of each;
* each verb must read the trace without an error.

The exit status is 1 if a check fails, and 77 if there is no stress-ng here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from support.memcg_files import read_columns
from support.recorder import Recorder

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.trace.read.reader import Trace

_STRESSORS: Final = (
    "atomic bad-altstack bigheap bitonicsort brk bsearch bubblesort context dev-shm env fibsearch "
    "heapsort hsearch insertionsort list lsearch madvise malloc matrix matrix-3d mcontend memcpy memfd "
    "memrate memthrash mergesort mincore misaligned mlock mlockmany mmap mmapaddr mmapcow mmapfiles "
    "mmapfixed mmapfork mmapmany mprotect mremap mseal msync msyncmany munmap oom-pipe pagemove pipe "
    "pipeherd prefetch ptr-chase qsort radixsort randlist remap rmap shellsort shm shm-sysv skiplist "
    "sparsematrix spinmem stack stackmmap str stream tlb-shootdown tree tsearch userfaultfd vm vm-addr "
    "vm-rw vm-segv vm-splice vma wcs zlib "
)
_BYTES: Final = {
    "shm-sysv": ["--shm-sysv-bytes", "128M", "--shm-sysv-segs", "3"],
    "shm": ["--shm-bytes", "64M"],
}
_LEAST: Final = 60
"""So many of the stressors must be in the stress-ng of this machine, unless some are chosen."""
_LIMIT_BYTES: Final = 96 << 20
_INSTANCES: Final = 2
_SKIPPED: Final = 77
_LATE_S: Final = 30.0
_VERBS: Final = (
    ("explain",),
    ("explain", "--list"),
    ("explain", "-v", "--last"),
    ("timeline",),
    ("timeline", "--csv"),
    ("evictions",),
    ("info",),
    ("report", "-o", "-"),
    ("export", "--to", "openmetrics", "-o", "-"),
    ("export", "--to", "chrome", "-o", "-"),
    ("fleet", "--json"),
)
_ENTER: Final = """
echo 0 > "$1/cgroup.procs"; shift
exec unshare --ipc --mount --pid --fork --kill-child --mount-proc -- sh -c '
mount -t tmpfs -o size=256m tmpfs /dev/shm && exec "$0" "$@"' "$@"
"""


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stressors", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each stressor")
    parser.add_argument("--at-once", type=int, default=16, metavar="N", help="stressors in one trace")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these stressors")
    parser.add_argument("--save", type=Path, metavar="DIR", help="copy traces with a problem here")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run the stressors; return the exit status."""
    options = arguments(argv)
    if shutil.which("stress-ng") is None:
        print("stressors: there is no stress-ng here: apt install stress-ng", file=sys.stderr)
        return _SKIPPED
    known = subprocess.run(["stress-ng", "--stressors"], capture_output=True, text=True, check=True).stdout
    there = [name for name in options.only or _STRESSORS.split() if name in known.split()]
    failures, kills = list[str](), 0
    if len(there) < (_LEAST if options.only is None else len(options.only)):
        failures.append(f"stress-ng has only {len(there)} of the stressors here")
    for first in range(0, len(there), options.at_once):
        with tempfile.TemporaryDirectory(prefix="memcg-tracer-stressors-") as folder:
            counts = dict[str, int]()
            trace = record(Path(folder), there[first : first + options.at_once], options.seconds, counts)
            kills += sum(counts.values())
            if found := [*wrong_counts(trace, counts), *failing_verbs(trace)]:
                failures += found
                if options.save is not None:
                    shutil.copytree(trace, options.save / f"stressors-{first}")
    for failure in failures:
        print(f"FAILED: {failure}", flush=True)
    print(f"{len(there)} stressors, {kills} kills by the kernel's count, {len(failures)} failures")
    return int(bool(failures))


def record(folder: Path, stressors: Sequence[str], seconds: float, counts: dict[str, int]) -> Path:
    """Record the stressors one after the other, and set the kernel's `counts` of kills, by the name of the
    cgroup; return the path of the trace."""
    pattern = f"memcg-tracer-{os.getpid()}-stress-*"
    with Recorder(folder, "--ready-file", "ready", "-c", pattern) as recorder:
        recorder.wait_until_ready()
        for stressor in stressors:
            with ephemeral_cgroup(f"stress-{stressor}", _LIMIT_BYTES, 0) as memcg:
                run(memcg, folder, stressor, seconds)
                count = read_columns(memcg, memory_hierarchy().version)["oom_kill_events"]
                assert count is not None
                counts[memcg.name] = count
        return recorder.stop()


def run(memcg: Path, folder: Path, stressor: str, seconds: float) -> None:
    """Run a stressor in a cgroup until it ends, or for too long: then it is ended with the cgroup."""
    amount = [f"--{stressor}", str(_INSTANCES), *_BYTES.get(stressor, ())]
    timed = ["--timeout", f"{seconds:g}s", "--temp-path", str(folder), "--quiet"]
    command = ["sh", "-c", _ENTER, "sh", str(memcg), "stress-ng", *amount, *timed]
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        process.wait(seconds + _LATE_S)
    except subprocess.TimeoutExpired:
        print(f"{stressor} did not end within {seconds + _LATE_S:g} s", flush=True)
    finally:
        process.kill()  # of unshare: all processes of its namespace end with it
        process.wait()


def wrong_counts(path: Path, counts: dict[str, int]) -> Iterator[str]:
    """Yield a sentence for each cgroup whose kills in the trace are not those of the kernel."""
    trace = Trace(path)
    names = {row["cgroup_id"]: row["path"].strip("/") for row in trace.table("cgroups").to_pylist()}
    victims = trace.table("oom", ["cgroup_id", "tgid"]).to_pylist()
    told = Counter(names.get(row["cgroup_id"]) for row in victims)
    for name, count in counts.items():
        print(f"{name.partition('stress-')[2]:<14} {count:>4} kills, {told[name]} told", flush=True)
        if told[name] != count:
            yield f"{name}: the kernel counted {count} kills, and the trace has {told[name]}"
    if strange := told.keys() - counts.keys():
        yield f"kills in {strange}"


def failing_verbs(path: Path) -> Iterator[str]:
    """Yield a sentence for each verb that fails, and if `explain` lacks a kill."""
    decisions = len(set(Trace(path).table("oom", ["kill_id"])["kill_id"].to_pylist()))
    for verb, *options in (("explain", "--json"), *_VERBS):
        found = tracer(verb, str(path), *options)
        if found.returncode:
            yield f"{verb} {' '.join(options)}: status {found.returncode}, {found.stderr.decode().strip()}"
        elif options == ["--json"] and verb == "explain":
            explained = len(json.loads(found.stdout)["kills"])
            if explained != decisions:
                yield f"explain has {explained} reports of {decisions} decisions"


def tracer(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "tracer", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
