"""Redis saves in the background: a child lives from its parent's pages, and the parent writes to them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.evidence import numbers_of

import tracer

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server"),
]

MIB = 1 << 20
KEYS = 60_000
SAVE_DURING_WRITES = f"""
redis-server --port 0 --unixsocket "$PWD/socket" --save "" --rdb-key-save-delay 150 > log &
server=$!
until redis-cli -s socket ping > answer 2>&1; do sleep 0.1; done
on_each() {{
    redis-cli -s socket eval "for i = 1, {KEYS} do $1 end" 0
}}
on_each "redis.call('set', 'key:' .. i, string.rep('x', 1000))"
redis-cli -s socket bgsave
on_each "redis.call('setrange', 'key:' .. i, 0, 'y')"
kill -KILL $server
wait
"""


def test_copies_of_pages_shared_with_the_saving_child_are_the_factor(tmp_path: Path) -> None:
    record = [sys.executable, "-m", "tracer", "record", "-o", "trace", "--limit", "100M", "--swap", "0"]
    subprocess.run([*record, "--", "sh", "-c", SAVE_DURING_WRITES], cwd=tmp_path, check=False)
    report, *_ = tracer.open(tmp_path / "trace").explain()
    assert report.verdict.cause == "anon_growth"
    assert report.victims[0].comm == "redis-server"
    (cow,) = numbers_of(report.verdict.contributing, "cow")
    assert cow["parent_comm"] == "redis-server"
    assert cow["child_comm"] == "redis-server"
    anon = report.composition.anon or 0
    held = [one.anon_rss_bytes or 0 for one in report.candidates if one.comm == "redis-server"]
    # Each page of the child is the parent's, or was when the parent copied it.
    assert len(held) == 2
    assert min(held) > KEYS * 1000
    assert cow["copied_bytes"] == pytest.approx(anon - min(held), abs=8 * MIB)
    assert cow["shared_bytes"] == pytest.approx(sum(held) - anon, abs=8 * MIB)
    assert any(line.startswith("Memory was copied, and need not have grown") for line in report.advice)
    assert not any("Look for growth" in line for line in report.advice)
