"""pgbench reads rows at random from a database that does not fit below the limit of PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from applications.rerun import MIB, assert_reads_nothing_again_at_the_upper_end

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        PROGRAMS is None or not (PROGRAMS / "pgbench").exists() or shutil.which("setpriv") is None,
        reason="needs PostgreSQL with pgbench",
    ),
]

SCALE = 5  # about 75 MiB
START = """
postgres -D data -k "$PWD" -c listen_addresses= -c shared_buffers=8MB -c autovacuum=off > log 2>&1 &
until psql -q -h "$PWD" -d postgres -c "" 2> waiting; do sleep 0.1; done
"""
FILL = f"{START} pgbench -q -i -s {SCALE} -h $PWD postgres 2> filled && pg_ctl -D data stop > stopped && wait"
READ = f"""{START}
pgbench -n -S -c 2 -t 16000 --random-seed=11 -h "$PWD" postgres > read &&
pg_ctl -D data stop -m fast > stopped && wait
"""


@pytest.fixture
def database() -> Iterator[Path]:
    """A directory of the user postgres, with the filled database cluster `data`."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as name:
        os.chown(name, pwd.getpwnam("postgres").pw_uid, 0)
        for words in (["initdb", "-D", "data", "--no-sync", "-A", "trust"], ["sh", "-c", FILL]):
            subprocess.run(as_postgres(*words), cwd=name, check=True, stdout=subprocess.DEVNULL)
        yield Path(name)


def as_postgres(*words: str) -> list[str]:
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return [*user, "env", f"PATH={PROGRAMS}:{os.environ['PATH']}", "LC_ALL=C", *words]


def test_pgbench_at_the_suggested_limit_reads_nothing_again(database: Path, tmp_path: Path) -> None:
    read = as_postgres("sh", "-c", READ)
    assert_reads_nothing_again_at_the_upper_end(
        read, tmp_path / "trace", 48 * MIB, database, database / "data"
    )
