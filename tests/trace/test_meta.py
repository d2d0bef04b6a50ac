from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from tracer.directory import Directory
from tracer.errors import TraceError
from tracer.schema import SCHEMA_VERSION
from tracer.trace.meta import (
    Meta,
    begin,
    is_meta,
    is_trace,
    read_clocks,
    read_meta,
    trace_id,
    utc_time,
    write_meta,
)


@pytest.mark.parametrize("cgroups", [["/a"], [], None], ids=["some", "none-yet", "all"])
def test_read_meta_returns_the_written_document(tmp_path: Path, cgroups: list[str] | None) -> None:
    meta = begin(
        command_line=["memcg-tracer", "--name", "\x1b[31m"],
        cgroup_version=2,
        filters={"asked": [], "cgroups": cgroups},
        probes={"oom": {"hook": "raw_tp:mark_victim"}},
    )
    write_meta(Directory.open(tmp_path), meta)
    assert read_meta(tmp_path) == meta
    assert json.loads((tmp_path / "meta.json").read_text()) == meta
    assert "\x1b" not in (tmp_path / "meta.json").read_text()
    assert (tmp_path / "meta.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["meta.json"]


def test_meta_of_a_begun_trace_has_no_end(meta: Meta) -> None:
    assert meta["schema_version"] == SCHEMA_VERSION
    assert (meta["ended"], meta["end_reason"], meta["rows"], meta["lost"]) == (None, None, None, None)
    assert datetime.fromisoformat(meta["started"]).timestamp() == pytest.approx(
        meta["clock"]["realtime_ns"] / 1e9, abs=1e-5
    )


def test_trace_id_tells_traces_apart_that_begin_at_one_moment(meta: Meta) -> None:
    """Each trace of `watch` within the time of its history has the start and the clocks of the first."""
    first: Meta = {**meta, "ended": "2026-11-27T00:00:05+00:00"}
    others: list[Meta] = [
        {**first, "ended": "2026-11-27T00:00:06+00:00"},
        {**first, "started": "2026-11-27T00:00:00+00:00"},
        {**first, "host_name": "another"},
        {**first, "boot_id": None},
        {**first, "clock": {"monotonic_ns": 1, "realtime_ns": 1}},
    ]
    assert len({trace_id(one) for one in [first, *others]}) == 6
    assert trace_id({**first, "rows": {"oom": 1}}) == trace_id(first)


def test_utc_time_follows_clock_pair() -> None:
    pair = {"monotonic_ns": 5_000_000_000, "realtime_ns": 1_700_000_000_000_000_000}
    assert utc_time(pair, 6_500_001_999) == "2023-11-14T22:13:21.500001+00:00"  # type: ignore[arg-type]
    first, second = read_clocks(), read_clocks()
    assert second["monotonic_ns"] > first["monotonic_ns"]


def test_write_meta_that_fails_keeps_the_old_document(
    tmp_path: Path, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_meta(Directory.open(tmp_path), meta)

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(SystemExit):
        write_meta(Directory.open(tmp_path), {**meta, "ended": "now"})
    assert read_meta(tmp_path) == meta


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "has no meta.json"),
        ("", "damaged, it is not JSON"),
        ('{"format": "memcg-tra', "damaged, it is not JSON"),
        ("[" * 100_000, "damaged, it is not JSON"),
        ('{"format": "memcg-tracer", "x": ' + '{"a":' * 500 + "1" + "}" * 501, "damaged, it is not JSON"),
        ("\x00\xff", "damaged, it is not JSON"),
        ("[]", "not a trace of memcg-tracer"),
        ('{"format": "other"}', "not a trace of memcg-tracer"),
        (f'{{"format": "memcg-tracer trace", "schema_version": {SCHEMA_VERSION}}}', "lacks architecture, "),
    ],
)
def test_read_meta_of_other_directory_raises(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "meta.json").write_text(content, encoding="latin-1")
    with pytest.raises(TraceError, match=says) as raised:
        read_meta(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["one", "host/one"])
def test_read_meta_of_a_folder_of_traces_names_the_verb_for_it(tmp_path: Path, meta: Meta, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    write_meta(Directory.open(tmp_path / name), meta)
    with pytest.raises(
        TraceError, match="is a folder of traces: name one of them, or look at all with memcg-tracer fleet"
    ):
        read_meta(tmp_path)


def test_read_meta_of_file_or_nothing_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match="not a trace but a file"):
        read_meta(tmp_path / "file")
    with pytest.raises(TraceError, match="does not exist"):
        read_meta(tmp_path / "absent")


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (SCHEMA_VERSION + 1, r"update memcg-tracer to '9\.1\\x1b\[31m' or newer"),
        (0, r"open it with memcg-tracer '9\.1\\x1b\[31m', which wrote it"),
        ("1", "open it with"),
        (None, "open it with"),
    ],
)
def test_read_meta_of_other_schema_raises(tmp_path: Path, meta: Meta, version: object, remedy: str) -> None:
    other = {**meta, "schema_version": version, "tool_version": "9.1\x1b[31m"}
    (tmp_path / "meta.json").write_text(json.dumps(other))
    with pytest.raises(TraceError, match=remedy) as raised:
        read_meta(tmp_path)
    assert f"schema {version!r}, this version reads {SCHEMA_VERSION}" in str(raised.value)
    assert is_trace(tmp_path), "a trace of another schema is a trace"
    assert is_meta((tmp_path / "meta.json").read_bytes()), "metadata of another schema is metadata"


def test_host_in_a_container_is_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCG_TRACER_HOST", "node-7")
    assert begin(command_line=[], cgroup_version=2, filters={}, probes={})["host_name"] == "node-7"
    monkeypatch.delenv("MEMCG_TRACER_HOST")
    assert begin(command_line=[], cgroup_version=2, filters={}, probes={})["host_name"] == os.uname().nodename
