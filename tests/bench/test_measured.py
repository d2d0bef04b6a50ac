"""What the measurements rest on: accounts of processes, traces that are counted, and the works themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
from bench import accounting, postgresql
from bench.reading import CACHED_PAGES, EXAMPLE, FORMATS, random_events
from bench.tracers import page_cache_events
from bench.work import PHASES
from bench.works import WORK

from tracer.cli.verbs import export
from tracer.errors import TracerError

BUSY = "import os, time\nif os.fork(): os.wait()\nelse:\n while time.process_time() < 0.3: pass\n"


def test_processor_time_includes_descendants_alive_and_ended() -> None:
    idle = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]]); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", idle, BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = accounting.processor_s(process.pid)
        process.communicate(b"\n")
    assert used >= 0.29


def test_tree_has_children_of_children() -> None:
    with subprocess.Popen(["sh", "-c", "sh -c 'cat; :'; :"], stdin=subprocess.PIPE) as process:
        while len(found := accounting.tree(process.pid)) < 3:
            assert process.poll() is None
        assert found[0] == process.pid
        process.communicate(b"")


FORKED = """
import mmap, os, sys

def taken(mib):
    memory = mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    return memory

shared = taken(60)
if not os.fork():
    own = taken(30)
    print(flush=True)
sys.stdin.read()
"""


def test_memory_of_a_fork_is_what_it_does_not_share() -> None:
    """Beside 60 MiB and 30 MiB, each of both takes some MiB for Python."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", FORKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = accounting.memory(process.pid).total_mib
        process.communicate(b"")
    assert 95 < found < 125


def test_memory_counts_a_ring_once() -> None:
    memory = accounting.Memory(peak_kib=300 * 1024, mapped_kib=80 * 1024, maps_kib=50 * 1024)
    assert memory.total_mib == 270


def test_mapped_size_is_that_of_mappings_of_bpf_maps() -> None:
    smaps = (
        "7f46-7f47 r--s 00001000 00:10 18      anon_inode:bpf-map\nSize: 16 kB\nRss:  8 kB\n"
        "7f50-7f51 r--p 00000000 00:00 0\nRss:  100 kB\n"
        "7f60-7f61 rw-s 00000000 00:10 18      anon_inode:bpf-map\nRss:  4 kB\n"
    )
    assert accounting.mapped_kib(smaps) == 12


def test_page_cache_events_of_rows_without_a_count_are_rows() -> None:
    events, disk_bytes = page_cache_events(EXAMPLE)
    assert events == pq.read_metadata(EXAMPLE / "pagecache.parquet").num_rows
    assert disk_bytes == (EXAMPLE / "pagecache.parquet").stat().st_size


def test_page_cache_events_of_runs_are_their_folios(tmp_path: Path) -> None:
    table = pq.read_table(EXAMPLE / "pagecache.parquet", columns=["time", "index"]).slice(0, 3)
    (tmp_path / "pagecache").mkdir()
    for part, folios in enumerate(([1, 2, 30], [4, 5, 600])):
        pq.write_table(table.append_column("folios", [folios]), tmp_path / "pagecache" / f"{part}.parquet")
    assert page_cache_events(tmp_path)[0] == 642


def test_random_events_add_and_delete_each_page_in_turn(tmp_path: Path) -> None:
    count = 3 * CACHED_PAGES
    rows = pq.read_table(random_events(tmp_path / "random", count) / "pagecache.parquet")
    is_add = np.array(rows["op"].to_pylist()) == "add"
    index = rows["index"].to_numpy()
    assert len(index) == count
    assert is_add.sum() == 2 * CACHED_PAGES
    assert (index[is_add][:CACHED_PAGES] == index[~is_add]).all()
    assert len(set(index[is_add])) == 2 * CACHED_PAGES
    assert (np.diff(rows["time"].cast("int64").to_numpy()) >= 0).all()


def test_time_of_a_transaction_is_from_the_output_of_pgbench() -> None:
    output = (
        "number of transactions actually processed: 4000\nlatency average = 2 ms\n"
        "tps = 500.000000 (without initial connection time)\n"
    )
    assert postgresql.spent(output, 8.0) == {"pgbench": (0.002, 0.002)}


def test_time_of_a_transaction_is_refused_when_none_was_done() -> None:
    with pytest.raises(TracerError, match="did nothing"):
        postgresql.spent("number of transactions actually processed: 0\ntps = 0.0\n", 8.0)


@pytest.mark.parametrize(
    "phases", ["fault", "shared_fault", "read", "random_read", "write,delete", "ping_pong", "sqlite"]
)
def test_works_report_wall_and_processor_time_of_each_phase(phases: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    size = {"ping_pong": 100, "sqlite": 30}.get(phases, 1 << 20)
    argv = [sys.executable, "-I", "-S", str(WORK), phases, str(size), "1"]
    done = subprocess.run([*argv, str(tmp_path)], check=True, capture_output=True, text=True)
    spent = json.loads(done.stdout)
    assert list(spent) == phases.split(",")
    assert set(spent) <= set(PHASES)
    assert all(wall > 0 and processor >= 0 for wall, processor in spent.values())
    assert not (tmp_path / "written").exists()


def test_formats_that_are_measured_are_all_that_need_no_stacks() -> None:
    (to,) = (one for one in export.command.params if one.name == "form")
    assert isinstance(to.type, click.Choice)
    assert {*FORMATS} == {*to.type.choices} - {"folded", "pprof", "dataset"}
