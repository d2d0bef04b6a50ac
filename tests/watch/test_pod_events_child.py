"""Each answer of an API server: what the child makes of it, over TLS, with the token of the moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.clusters.fake_api_server import (
    FAILED,
    TOO_MANY,
    FakeApiServer,
    ending,
    forbidden,
    make_certificate,
    status,
)

from tracer.watch.pod_events_child import ApiServer, UnavailableError, send_all

WITHIN_S = 60.0


def event(
    name: str = "web.1", *, namespace: str = "shop", count: int = 1, is_there: bool = False
) -> dict[str, Any]:
    body = {
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace},
        "message": f"kill {count}",
        "count": count,
        "lastTimestamp": "2026-11-26T12:00:00Z",
    }
    return {"namespace": namespace, "name": name, "is_there": is_there, "body": body}


def api(server: FakeApiServer, within_s: float = WITHIN_S) -> ApiServer:
    return ApiServer("127.0.0.1", server.port, server.account, within_s)


def test_event_is_made_and_then_changed(server: FakeApiServer) -> None:
    connection = api(server)
    assert connection.send(event()) == ("sent", None)
    assert connection.send(event(count=5, is_there=True)) == ("sent", None)
    assert server.events["shop", "web.1"]["count"] == 5
    assert server.events["shop", "web.1"]["message"] == "kill 5"
    own = "/api/v1/namespaces/shop/events"
    assert server.requests == [("POST", own), ("PATCH", f"{own}/web.1")]


def test_event_whose_answer_was_lost_is_there_once(server: FakeApiServer) -> None:
    server.faults = ["forget"]
    with pytest.raises(UnavailableError, match="closed the connection"):
        api(server).send(event())
    assert api(server).send(event(count=2)) == ("sent", None)
    assert [one["count"] for one in server.events.values()] == [2]


def test_event_that_has_expired_is_made_again(server: FakeApiServer) -> None:
    assert api(server).send(event(count=9, is_there=True)) == ("sent", None)
    assert server.events["shop", "web.1"]["count"] == 9


def test_connection_that_the_server_closed_since_is_made_again(server: FakeApiServer) -> None:
    connection = api(server)
    connection.send(event("a"))
    server.faults = ["close"]
    assert connection.send(event("b")) == ("sent", None)
    assert sorted(name for _, name in server.events) == ["a", "b"]


def test_token_that_the_kubelet_has_replaced_is_read_again(server: FakeApiServer) -> None:
    connection = api(server)
    connection.send(event("a"))
    server.rotate("token-2")
    assert connection.send(event("b")) == ("sent", None)


def test_token_that_has_expired_is_no_reason_to_drop_the_event(server: FakeApiServer) -> None:
    server.token = "another"
    with pytest.raises(UnavailableError, match="401 Unauthorized"):
        api(server).send(event())


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "naïve"])
def test_invalid_token_is_not_sent(server: FakeApiServer, text: str) -> None:
    (server.account / "token").write_text(text, "utf-8")
    with pytest.raises(UnavailableError, match="token"):
        api(server).send(event())
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (status(400, "BadRequest", "the object is\nno event"), "refused", "400 the object is no event"),
        (forbidden("create", "shop"), "later", "403 events is forbidden"),
        (ending("shop"), "refused", "because it is being terminated"),
        (status(404, "NotFound", 'namespaces "shop" not found'), "refused", "404 namespaces"),
        (status(422, "Invalid", "Event is invalid"), "refused", "422 Event is invalid"),
        (FAILED, "later", "500 Internal error occurred"),
    ],
    ids=["400", "403", "403-ending", "404", "422", "500"],
)
def test_answer_decides_about_the_event(server: FakeApiServer, answer: Any, state: str, words: str) -> None:
    server.faults = [answer]
    found, why = api(server).send(event())
    assert found == state
    assert words in (why or "")


@pytest.mark.parametrize(
    ("fault", "words", "pause_s"),
    [
        (TOO_MANY, "429", 7.0),
        ((503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"<html>"), "503", None),
        ((404, {}, b"404 page not found"), "404 without a message", None),  # another server
        ((302, {"Location": "https://elsewhere/"}, b""), "302", None),
        ((200 + 99, {}, b"{}"), "299", None),
        ("close", "closed the connection without an answer", None),
    ],
    ids=["429", "503", "404-of-a-proxy", "302", "299", "close"],
)
def test_server_that_cannot_be_used_now(
    server: FakeApiServer, fault: Any, words: str, pause_s: float | None
) -> None:
    server.faults = [fault]
    with pytest.raises(UnavailableError, match=words) as raised:
        api(server).send(event())
    assert raised.value.retry_after_s == pause_s
    assert len(server.requests) == 1


def test_server_that_hangs_is_left(server: FakeApiServer) -> None:
    server.faults = ["hang"]
    with pytest.raises(UnavailableError, match="does not answer in time"):
        api(server, within_s=0.05).send(event())


def test_server_that_is_not_there(server: FakeApiServer) -> None:
    connection = api(server)
    server.close()
    with pytest.raises(UnavailableError, match="Connection refused"):
        connection.send(event())


@pytest.mark.parametrize("wrong", ["authority", "address"])
def test_server_with_another_certificate_gets_no_token(
    server: FakeApiServer, tmp_path: Path, wrong: str
) -> None:
    host = "127.0.0.1"
    if wrong == "authority":
        other, _ = make_certificate(tmp_path, "other")
        (server.account / "ca.crt").write_bytes(other.read_bytes())
    else:
        host = "localhost"  # the certificate is for an address
    with pytest.raises(UnavailableError, match="certificate of the API server is not valid"):
        ApiServer(host, server.port, server.account, WITHIN_S).send(event())
    assert server.requests == []


def test_authority_that_is_missing_or_damaged_is_named(server: FakeApiServer) -> None:
    path = server.account / "ca.crt"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(UnavailableError, match=r"ca\.crt: "):
        api(server)
    path.unlink()
    with pytest.raises(UnavailableError, match=r"ca\.crt: No such file"):
        api(server)


def test_namespace_without_rights_does_not_hold_up_the_others(
    server: FakeApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.denied = {"shop"}
    send_all(api(server), [event("a"), event("b"), event("c", namespace="bank")])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one[:2] for one in told] == [["a", "later"], ["c", "sent"]]
    assert [name for _, name in server.events] == ["c"]


def test_namespace_whose_webhook_fails_does_not_hold_up_the_others(
    server: FakeApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [FAILED]
    send_all(api(server), [event("a"), event("b"), event("c", namespace="bank")])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one[:2] for one in told] == [["a", "later"], ["c", "sent"]]


def test_child_prints_a_line_for_each_event_and_the_end(server: FakeApiServer) -> None:
    server.faults = [None, TOO_MANY]
    command = [sys.executable, "-m", "tracer.watch.pod_events_child", "127.0.0.1", str(server.port)]
    ended = subprocess.run(
        [*command, str(server.account)],
        input=json.dumps([event("a"), event("b"), event("c")]),
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    *told, end = [json.loads(line) for line in ended.stdout.splitlines()]
    assert told == [["a", "sent", None]]
    assert end == {"error": "429 without a message", "retry_after_s": 7.0}
    assert ended.stderr == ""
    assert len(server.requests) == 2


def test_child_loads_nothing_that_is_large() -> None:
    script = (
        "import sys, tracer.watch.pod_events_child\nprint(*{'numpy', 'pyarrow', 'rich'} & {*sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=True, capture_output=True
    )
    assert found.stdout.split() == []
