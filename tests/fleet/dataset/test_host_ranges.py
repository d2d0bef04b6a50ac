"""The parts of a dataset: what traces share is within one of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.recorded import TRACES
from support.storing.dataset_rows import rows_of

from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.dataset.appending import Appender
from tracer.fleet.dataset.compaction import compact
from tracer.fleet.dataset.host_ranges import host_ranges
from tracer.fleet.dataset.store import Store

BOOTS = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")


@pytest.mark.parametrize("is_compacted", [False, True])
def test_hosts_with_a_boot_in_common_are_in_one_part(tmp_path: Path, is_compacted: bool) -> None:
    store = Store(str(tmp_path / "fleet"))
    appender = Appender(store, is_raw=False)
    for host, boot in (("a", BOOTS[0]), ("b", BOOTS[1]), ("c", BOOTS[0])):
        shutil.copytree(TRACES / "cow", tmp_path / host)
        meta = json.loads((tmp_path / host / "meta.json").read_text())
        (tmp_path / host / "meta.json").write_text(json.dumps(meta | {"host_name": host, "boot_id": boot}))
        appender.append(AnalysedTrace(tmp_path / host))
    if is_compacted:
        compact(store)
    parts = host_ranges(store.url, ["kills"], part_bytes=1)
    assert [(part.first, part.last) for part in parts] == [("a", "c"), ("b", "b")]
    assert [part.boots for part in parts] == [frozenset({boot}) for boot in BOOTS]
    rows = rows_of(store.url, part_bytes=1)
    assert rows == rows_of(store.url)
    assert (len(rows["sources"]), len(rows["kills"])) == (3, 2)
