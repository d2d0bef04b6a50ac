"""pgbench reads rows at random from a database that does not fit below the limit of PostgreSQL."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from applications.rerun import MIB, assert_reads_nothing_again_at_the_upper_end
from workloads.pgbench import PROGRAMS, database, reading

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        PROGRAMS is None or not (PROGRAMS / "pgbench").exists() or shutil.which("setpriv") is None,
        reason="needs PostgreSQL with pgbench",
    ),
]


def test_pgbench_at_the_suggested_limit_reads_nothing_again(tmp_path: Path) -> None:
    with database() as folder:
        assert_reads_nothing_again_at_the_upper_end(
            reading(folder), tmp_path / "trace", 48 * MIB, folder, folder / "data"
        )
