"""A database of PostgreSQL, and pgbench, which reads its rows at random."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROGRAMS: Final = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

_SCALE: Final = 5  # about 75 MiB
_START: Final = """
postgres -D data -k "$PWD" -c listen_addresses= -c shared_buffers=8MB -c autovacuum=off > log 2>&1 &
until psql -q -h "$PWD" -d postgres -c "" 2> waiting; do sleep 0.1; done
"""
_FILL: Final = (
    f"{_START} pgbench -q -i -s {_SCALE} -h $PWD postgres 2> filled && pg_ctl -D data stop > stopped && wait"
)
_READ: Final = f"""{_START}
pgbench -n -S -c 2 -t 16000 --random-seed=11 -h "$PWD" postgres > read &&
pg_ctl -D data stop -m fast > stopped && wait
"""


@contextmanager
def database() -> Iterator[Path]:
    """Make a directory of the user postgres, with the filled database cluster `data`."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as name:
        os.chown(name, pwd.getpwnam("postgres").pw_uid, 0)
        for words in (["initdb", "-D", "data", "--no-sync", "-A", "trust"], ["sh", "-c", _FILL]):
            subprocess.run(_as_postgres(*words), cwd=name, check=True, stdout=subprocess.DEVNULL)
        yield Path(name)


def reading(folder: Path) -> list[str]:
    """Return the command that starts the server of a database, reads, and stops it."""
    return ["env", "-C", str(folder), *_as_postgres("sh", "-c", _READ)]


def _as_postgres(*words: str) -> list[str]:
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return [*user, "env", f"PATH={PROGRAMS}:{os.environ['PATH']}", "LC_ALL=C", *words]
