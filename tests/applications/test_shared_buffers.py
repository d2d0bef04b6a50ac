"""PostgreSQL fills a segment of shared memory that every backend maps, and the own memory of one backend."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.evidence import numbers_of

import tracer
from tracer.units import size

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(PROGRAMS is None or shutil.which("setpriv") is None, reason="needs PostgreSQL"),
]

MIB = 1 << 20
BUFFERS_MIB = 96
LIMIT_MIB = 90
FILL = f"""
postgres -D data -k "$PWD" -c listen_addresses= -c shared_buffers={BUFFERS_MIB}MB -c huge_pages=off \
    -c autovacuum=off > log 2>&1 &
until psql -q -h "$PWD" -d postgres -c "create table t (x text)" 2> waiting; do
    kill -0 $! || exit
    sleep 0.1
done
psql -q -h "$PWD" -d postgres -c "insert into t select repeat('x', 900) from generate_series(1, 130000)"
pg_ctl -D data stop -m immediate > stopped
wait
"""


@pytest.fixture
def postgres_dir() -> Iterator[Path]:
    """A directory of the user postgres, with the database cluster `data`."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as name:
        os.chown(name, pwd.getpwnam("postgres").pw_uid, 0)
        as_postgres(Path(name), "initdb", "-D", "data", "--no-sync", "-A", "trust")
        yield Path(name)


def command(*words: str) -> list[str]:
    return [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "env",
        *environment(),
        *words,
    ]


def environment() -> list[str]:
    return [f"PATH={PROGRAMS}:{os.environ['PATH']}", "LC_ALL=C"]


def as_postgres(folder: Path, *words: str) -> None:
    subprocess.run(command(*words), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def test_segment_of_every_backend_is_named_with_its_size(postgres_dir: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    record = [sys.executable, "-m", "tracer", "record", "-o", str(trace)]
    limits = ["--limit", f"{LIMIT_MIB}M", "--swap", "0"]
    subprocess.run([*record, *limits, "--", *command("sh", "-c", FILL)], cwd=postgres_dir, check=False)
    report, *_ = tracer.open(trace).explain()
    assert report.verdict.cause == "shmem"
    assert "shared memory (shared anonymous mappings)" in report.verdict.summary
    segment = report.shared_files[0]
    assert (segment.kind, segment.name, segment.is_mapped) == ("anonymous", "/dev/zero", True)
    assert BUFFERS_MIB * MIB < segment.size_bytes < (BUFFERS_MIB + 16) * MIB
    # The last look is at the kill, or an eighth of the segment before it.
    assert segment.held_bytes > 0.85 * (report.composition.shmem or 0)
    for kind in ("unmapped_shmem", "ended_writer"):
        assert numbers_of(report.verdict.contributing, kind) == []
    assert any(line.startswith("Make the shared mapping smaller") for line in report.advice)
    assert not any("tmpfs" in line for line in report.advice)


HASH = """
postgres -D data -k "$PWD" -c listen_addresses= -c shared_buffers=8MB -c autovacuum=off -c jit=off \
    -c work_mem=$1 > log 2>&1 &
until psql -q -h "$PWD" -d postgres -c "" 2> waiting; do
    kill -0 $! || exit
    sleep 0.1
done
psql -q -A -t -h "$PWD" -d postgres -c "select count(*) from (
    select md5(i::text), count(*) from generate_series(1, 400000) i
    where case when i % 4000 = 0 then pg_sleep($2)::text else '' end is not null group by 1) as groups"
pg_ctl -D data stop -m immediate > stopped
wait
"""


def test_work_mem_that_is_advised_to_be_lower_was_the_memory_of_the_backend(
    postgres_dir: Path, tmp_path: Path
) -> None:
    def counted(trace: str, work_mem: str, pause_s: str) -> str:
        record = [sys.executable, "-m", "tracer", "record", "-o", str(tmp_path / trace)]
        run = command("sh", "-c", HASH, "sh", work_mem, pause_s)
        record += ["--limit", "70M", "--swap", "0", "--", *run]
        ended = subprocess.run(
            record, cwd=postgres_dir, check=False, capture_output=True, text=True, errors="replace"
        )
        return ended.stdout

    # It grows for seconds, so that a look finds it on any machine.
    assert "400000\n" not in counted("killed", "300MB", "0.05")
    report, *_ = tracer.open(tmp_path / "killed").explain()
    of_victim = [one for one in report.runtime if one["pid"] == report.victims[0].pid]
    (backend,) = [one for one in of_victim if one["kind"] == "postgresql"]
    assert backend["title"].startswith("postgres: postgres postgres [local] ")
    assert report.advice[0].startswith("Lower work_mem, which each sort and hash"), report.advice
    assert f"had {size(report.victims[0].anon_rss_bytes)} of its own" in report.advice[0]
    assert "400000\n" in counted("lived", "4MB", "0")
    assert tracer.open(tmp_path / "lived").explain() == []
