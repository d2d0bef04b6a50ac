from __future__ import annotations

import pyarrow as pa

from tracer.fleet.summary.summaries import COMPOSITION_COLUMNS, SUMMARIES
from tracer.schema import TIME

ORIGIN = ["date", "host", "boot_id", "trace", "trace_id", "summary_version", "time"]


def test_every_row_says_which_trace_it_is_of_and_when() -> None:
    for schema in SUMMARIES.values():
        assert schema.names[: len(ORIGIN)] == ORIGIN
        assert schema.field("date").type == pa.date32()
        assert schema.field("time").type == TIME
        assert all(schema.field(name).nullable == (name == "boot_id") for name in ORIGIN)


def test_composition_of_a_kill_has_a_column_a_part() -> None:
    assert {"anon_bytes", "file_clean_bytes", "other_bytes"} <= {*COMPOSITION_COLUMNS}
    assert {*COMPOSITION_COLUMNS} <= {*SUMMARIES["kills"].names}


def test_numbers_have_their_unit_in_the_name() -> None:
    plain = {"kill_id", "cgroup_id", "cgroup_version", "victim_pid", "summary_version", "bytes_on_disk"}
    plain |= {"pid", "sender_pid", "grown_line"}
    counts = {"kills", "sigkills", "victims", "lost_records", "reclaim_attempts", "lost_share"}
    counts |= {"psi_some_share", "grown_share"}
    for schema in SUMMARIES.values():
        for field in schema:
            if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
                continue
            named = field.name in plain | counts or field.name.endswith("_cgroup_id")
            assert named or field.name.endswith(("_bytes", "_ns", "_ms", "_s")), field.name
