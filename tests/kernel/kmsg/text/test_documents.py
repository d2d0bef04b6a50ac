"""Answers of log stores: each message of a document of JSON is read as if it had a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel.kmsg.test_pasted import facts_of, lines_of

from tracer.kernel.kmsg.parser import reports
from tracer.kernel.kmsg.text import documents
from tracer.kernel.kmsg.text.lines import split

LOGS: Final = ("captured-6.12-debian13-v2-dmesg-x.log", "written-5.15-ubuntu22.04-v2-callers.log")
SECOND: Final = 1714557600


def cloudwatch(lines: list[str]) -> Any:
    events = [{"timestamp": (SECOND + at) * 1000, "message": line} for at, line in enumerate(lines)]
    return {"events": events, "nextForwardToken": "f/1"}


def cloud_logging(lines: list[str]) -> Any:
    """The newest entry is the first one."""
    return [
        {
            "insertId": f"i{at}",
            "jsonPayload": {"MESSAGE": line, "_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel"},
            "labels": {"node": "gke-1"},
            "timestamp": f"2024-05-01T10:{at // 60:02d}:{at % 60:02d}Z",
        }
        for at, line in enumerate(lines)
    ][::-1]


def elasticsearch(lines: list[str]) -> Any:
    def hit(line: str) -> Any:
        source = {"event": {"original": {"raw": line}}, "tags": ["a", "b"], "ips": [{"v": 4}]}
        return {"_index": "k", "_id": "1", "_source": source}

    return {"took": 3, "hits": {"total": {"value": 9}, "hits": [hit(line) for line in lines]}}


def loki(lines: list[str]) -> Any:
    values = [[str((SECOND + at) * 10**9), line] for at, line in enumerate(lines)]
    return {"status": "success", "data": {"result": [{"stream": {"job": "kmsg"}, "values": values}]}}


STORES: Final = (cloudwatch, cloud_logging, elasticsearch, loki)


def read(text: bytes, size: int = 1 << 20) -> list[str]:
    chunks = (text[at : at + size] for at in range(0, len(text), size))
    return [line for line in split(documents.as_lines(chunks)) if line]


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("store", STORES)
def test_answer_of_a_store_has_the_facts_of_the_log(
    store: Callable[[list[str]], Any], name: str, indent: int | None
) -> None:
    lines = lines_of(name)
    text = json.dumps(store(lines), indent=indent).encode()
    assert facts_of(read(text, size=1000)) == facts_of(lines) != []


def test_objects_over_several_lines_are_read() -> None:
    """As jq prints a log of one object a line, of a shipper that puts the object of another into its own."""
    lines = lines_of(LOGS[0])
    objects = [{"message": json.dumps({"log": line}), "tags": ["x"]} for line in lines]
    text = "\n".join(json.dumps(one, indent=2) for one in objects)
    assert facts_of(read(text.encode())) == facts_of(lines) != []
    assert facts_of([json.dumps(one) for one in objects]) == facts_of(lines)


def test_times_of_a_store_are_times_of_the_kill() -> None:
    lines = [line.partition("] ")[2] for line in lines_of(LOGS[0]) if "Killed process" in line][:1]
    (report,) = reports(read(json.dumps(cloudwatch(lines)).encode()))
    assert report.kills[0].stamp.wall == f"{SECOND}.000"
    (report,) = reports(read(json.dumps(loki(lines)).encode()))
    assert report.kills[0].stamp.wall == f"{SECOND}.000000000"


@pytest.mark.parametrize(
    "text",
    [
        b"[    1.000000] a: b\n",
        b'{"log": "a", "labels": ["x"], "of": [{"a": 1}]',
        b'{"log": "a"}\n{"log": "b"}\n',
        b'[{"log": "a"}] and text',
        b"[[" * 50_000,
        b'{"a": ' * 50_000,
        b"",
    ],
)
def test_other_logs_stay_as_they_are(text: bytes) -> None:
    assert b"".join(documents.as_lines(iter([text]))) == text


def test_large_document_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(loki(["a"] * 100), indent=1).encode()
    monkeypatch.setattr(documents, "_MOST_BYTES", len(text) - 1)
    assert b"".join(documents.as_lines(iter([text[:9], text[9:]]))) == text
    monkeypatch.setattr(documents, "_MOST_BYTES", len(text))
    assert len(read(text)) == 100


VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(VALUES, st.integers(min_value=0, max_value=3))
def test_any_document_is_read(value: Any, indent: int) -> None:
    text = json.dumps(value, indent=indent).encode()
    lines = b"".join(documents.as_lines(iter([text])))
    assert lines == text or all(isinstance(json.loads(line), dict) for line in lines.splitlines())
