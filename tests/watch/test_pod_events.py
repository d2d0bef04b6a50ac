"""Which events pods get, how often the API server is asked, and what is said of unsent events."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.clusters.fake_api_server import FakeApiServer
from support.slowdown import SLOWDOWN

from tracer.directory import Directory
from tracer.errors import UsageError
from tracer.watch.finishing import Finished
from tracer.watch.pod_account import PodAccount, pod_account
from tracer.watch.pod_events import KEPT, MOST_MESSAGE_BYTES, MOST_WAITING, PodEvents

NOON_NS = 1_795_694_400_000_000_000  # 2026-11-26T12:00:00Z
SECOND_NS = 1_000_000_000
UID = "0f9c4fb2-6a8a-4d4c-9a0e-3f8f6f1a2b3c"
ANSWERING = """
import json, pathlib, sys
spool = pathlib.Path(sys.argv[3])
events = json.load(sys.stdin)
with open(spool / "asked", "a") as log:
    print(json.dumps(events), file=log)
answer = json.loads((spool / "answer").read_text())
for event in events:
    if (state := answer["states"].get(event["namespace"], answer["state"])) is not None:
        print(json.dumps([event["name"], state, None if state == "sent" else "403 why"]))
print(json.dumps(answer["end"]))
"""
"""Answers as the test asks, in the folder of the account."""


def killed(
    pod: str | None = "web-1", *seconds: float, namespace: str | None = "shop", uid: str = UID, **more: Any
) -> dict[str, Any]:
    """Return an object of `killed_pods`, with kills so many seconds after noon."""
    times_ns = [NOON_NS + round(one * SECOND_NS) for one in seconds or (0.0,)]
    return {
        "uid": uid,
        "pod": pod,
        "namespace": namespace,
        "container": "app",
        "kills": len(times_ns),
        "times_ns": times_ns,
        "sentence": f"It grew, {len(times_ns)}.",
    } | more


def story(*pods: dict[str, Any], name: str = "20261126T120000Z-kill-web") -> Finished:
    return Finished(Path(f"/traces/{name}"), "kill", NOON_NS, None, 1, pods=pods)


class Sent:
    """A spool with what was said of its events, and an event loop for them."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.notices: list[str] = []
        self.warnings: list[str] = []
        self.counted: list[tuple[str, int]] = []
        self.answer()

    def answer(self, state: str | None = "sent", *, error: str | None = None, **more: Any) -> None:
        """Set the state of all events, or of a namespace in `states`, and the error of the end."""
        end = {"error": error, "retry_after_s": more.pop("retry_after_s", None)}
        document = {"state": state, "states": more.pop("states", {}), "end": end}
        (self.spool / "answer").write_text(json.dumps(document))

    @property
    def asked(self) -> list[list[dict[str, Any]]]:
        """Return the events that each child of `ANSWERING` got."""
        path = self.spool / "asked"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def open(self, server: FakeApiServer | None = None, **options: Any) -> PodEvents:
        options.setdefault("within_s", 1e6)  # the time of a test may be ahead of the clock
        account = PodAccount("127.0.0.1", 1, self.spool)
        if server is None:
            options["sending"] = (sys.executable, "-c", ANSWERING)
        else:
            account = PodAccount("127.0.0.1", server.port, server.account)
        options["counted"] = lambda *of: self.counted.append(of)
        return PodEvents(self.spool, account, self.notices.append, self.warnings.append, **options)

    def run(self, work: PodEvents) -> None:
        """Step until the work is idle, or waits for a later time."""
        while work._child is not None or work.due_s <= time.monotonic():
            self.run_at(work, time.monotonic())

    def run_at(self, work: PodEvents, now_s: float) -> None:
        """Do the work of a moment, with a child until it ends."""
        end_s = time.monotonic() + 60 * SLOWDOWN
        work.step(now_s)
        while work._child is not None:
            assert time.monotonic() < end_s, "it takes too long"
            work.step(now_s)
            time.sleep(0.005)


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sent:
    monkeypatch.setenv("MEMCG_TRACER_HOST", "node-1")
    return Sent(tmp_path)


def test_without_an_account_nothing_is_done(sent: Sent) -> None:
    work = PodEvents(sent.spool, None, sent.notices.append, sent.warnings.append)
    work.add(story(killed()))
    work.finish(time.monotonic() + 9)
    assert (work.due_s, sent.warnings, (sent.spool / KEPT).exists()) == (math.inf, [], False)


def test_pod_gets_an_event_with_the_sentence_and_the_path(sent: Sent, server: FakeApiServer) -> None:
    work = sent.open(server)
    work.add(story(killed("web-1", 0.0, 2.5)))
    sent.run(work)
    assert work.due_s == math.inf
    assert server.events == {
        ("shop", f"web-1.{NOON_NS:x}"): {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"web-1.{NOON_NS:x}", "namespace": "shop"},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "name": "web-1", "namespace": "shop", "uid": UID,
                "fieldPath": "spec.containers{app}",
            },
            "type": "Warning",
            "reason": "OOMKill",
            "message": "It grew, 2. Trace on node-1: /traces/20261126T120000Z-kill-web",
            "count": 2,
            "firstTimestamp": "2026-11-26T12:00:00Z",
            "lastTimestamp": "2026-11-26T12:00:02Z",
            "source": {"component": "memcg-tracer", "host": "node-1"},
            "reportingComponent": "memcg-tracer",
            "reportingInstance": "node-1",
        }
    }  # fmt: skip
    assert (sent.warnings, sent.notices) == ([], [])


def test_crash_loop_is_one_event_with_the_newest_sentence(sent: Sent, server: FakeApiServer) -> None:
    work = sent.open(server, every_s=0.0)
    work.add(story(killed("web-1", 0.0)))
    sent.run(work)
    work.add(story(killed("web-1", 30.0), name="second"))
    work.add(story(killed("web-1", 60.0, 61.0, sentence="The last one."), name="third"))
    sent.run(work)
    [event] = server.events.values()
    assert (event["count"], event["lastTimestamp"]) == (4, "2026-11-26T12:01:01Z")
    assert event["message"] == "The last one. Trace on node-1: /traces/third"
    assert [method for method, _ in server.requests] == ["POST", "PATCH"]
    assert sent.counted == [("sent", 1)] * 2


def test_kill_that_two_traces_have_counts_once(sent: Sent) -> None:
    work = sent.open(every_s=0.0)
    work.add(story(killed("web-1", 0.0, 5.0)))
    sent.run(work)
    work.add(story(killed("web-1", 5.0, 9.0), name="second"))
    sent.run(work)
    assert [[one["body"]["count"] for one in events] for events in sent.asked] == [[2], [3]]


def test_trace_that_is_explained_late_counts_and_leaves_the_newest_sentence(sent: Sent) -> None:
    """A trace that could not be explained is tried again, maybe after the next trace of a crash loop."""
    work = sent.open(every_s=0.0)
    work.add(story(killed("web-1", 60.0, sentence="The last one."), name="second"))
    work.add(story(killed("web-1", 20.0, 30.0), name="first"))
    sent.run(work)
    work.add(story(killed("web-1", 5.0), name="earliest"))
    sent.run(work)
    bodies = [one["body"] for [one] in sent.asked]
    assert [one["count"] for one in bodies] == [3, 4]
    assert {one["message"] for one in bodies} == {"The last one. Trace on node-1: /traces/second"}
    assert {one["lastTimestamp"] for one in bodies} == {"2026-11-26T12:01:00Z"}


def test_kill_after_an_hour_is_another_event(sent: Sent) -> None:
    work = sent.open(every_s=0.0)
    for second in (0.0, 3600.0, 7201.0):
        work.add(story(killed("web-1", second)))
        sent.run(work)
    asked = [(one["name"], one["is_there"], one["body"]["count"]) for [one] in sent.asked]
    first, later = f"web-1.{NOON_NS:x}", f"web-1.{NOON_NS + 7201 * SECOND_NS:x}"
    assert asked == [(first, False, 1), (first, True, 2), (later, False, 1)]


def test_containers_and_pods_have_events_of_their_own(sent: Sent) -> None:
    work = sent.open()
    other = UID.replace("0f9c", "1111")
    work.add(
        story(
            killed(), killed("web-1", 1.0, container="side"), killed("web-1", 2.0, namespace="b", uid=other)
        )
    )
    sent.run(work)
    [events] = sent.asked
    assert len({one["name"] for one in events}) == 3


def test_kills_while_the_child_works_are_sent_after_it(sent: Sent) -> None:
    work = sent.open(every_s=0.0)
    work.add(story(killed("web-1", 0.0)))
    work.step(time.monotonic())
    assert work._child is not None
    work.add(story(killed("web-1", 1.0)))
    sent.run(work)
    assert [(one["is_there"], one["body"]["count"]) for [one] in sent.asked] == [(False, 1), (True, 2)]
    assert work.due_s == math.inf


def test_events_are_sent_a_few_at_a_time(sent: Sent) -> None:
    work = sent.open()
    uids = [f"{number:08x}{UID[8:]}" for number in range(50)]
    work.add(story(*(killed(f"web-{uid}", uid=uid) for uid in uids)))
    now_s = time.monotonic()
    sent.run_at(work, now_s)
    assert [len(events) for events in sent.asked] == [20]
    assert work.due_s == now_s + 10
    sent.run_at(work, work.due_s)
    sent.run_at(work, work.due_s)
    assert [len(events) for events in sent.asked] == [20, 20, 10]
    assert work.due_s == math.inf


@pytest.mark.parametrize(
    "pod",
    [
        killed(None),
        killed("web-1", namespace=None),
        killed("../../secrets"),
        killed("web-1", namespace="shop/../../x"),
        killed("Web\x1b[2J"),
        killed("web-1", uid="x"),
    ],
)
def test_pod_without_a_valid_name_is_counted_and_said(sent: Sent, pod: dict[str, Any]) -> None:
    work = sent.open()
    work.add(story(pod))
    sent.run(work)
    assert sent.asked == []
    warning = f"1 event of pods dropped: the name of the pod {pod['uid']} is not known (1 dropped so far)"
    assert sent.warnings == [warning]
    work.add(story(killed("web-2", uid=UID.replace("0f9c", "1111"))))
    sent.run(work)
    assert (len(sent.asked), sent.warnings, sent.notices) == (1, [warning], []), "they never failed"


@pytest.mark.parametrize("container", ["c0ffee00" * 8, None, "app{", "a" * 64])
def test_container_without_a_valid_name_has_no_path(sent: Sent, container: str | None) -> None:
    work = sent.open()
    work.add(story(killed(container=container)))
    sent.run(work)
    [[event]] = sent.asked
    assert set(event["body"]["involvedObject"]) == {"apiVersion", "kind", "name", "namespace", "uid"}


def test_long_name_and_sentence_are_bounded_and_the_path_is_whole(sent: Sent) -> None:
    work = sent.open()
    work.add(story(killed("p" * 253, sentence="ä" * 2000)))
    sent.run(work)
    [[event]] = sent.asked
    message = event["body"]["message"]
    assert len(message.encode()) <= MOST_MESSAGE_BYTES
    assert message.endswith("ä… Trace on node-1: /traces/20261126T120000Z-kill-web")
    assert len(event["name"]) == 253
    assert event["body"]["involvedObject"]["name"] == "p" * 253


def test_long_path_is_the_name_of_the_trace(sent: Sent) -> None:
    work = sent.open()
    work.add(story(killed(), name="d" * 255 + "/" + "e" * 250 + "/trace"))
    sent.run(work)
    assert sent.asked[0][0]["body"]["message"] == "It grew, 1. Trace: trace"


def test_failure_is_a_line_a_minute_and_is_tried_again_later_and_later(sent: Sent) -> None:
    sent.answer(None, error="Connection refused")
    work = sent.open(again_after_s=(15.0, 25.0, 30.0))
    work.add(story(killed()))
    now_s, waits = float(round(time.monotonic())), []
    for _ in range(5):
        sent.run_at(work, now_s)
        waits.append(work._next_s - now_s)
        now_s = work._next_s
    assert waits == [15.0, 25.0, 30.0, 30.0, 30.0]
    line = "events of pods are not sent: Connection refused; 1 event waits, and it is tried again"
    assert sent.warnings == [line] * 2, "after 0 and 70 s"
    sent.answer()
    sent.run_at(work, now_s)
    assert sent.notices == ["events of pods are sent again"]
    assert work.due_s == math.inf


def test_failure_that_ends_before_its_line_is_not_said(sent: Sent) -> None:
    work = sent.open()
    work.add(story(killed(None)))
    now_s = time.monotonic()
    sent.run_at(work, now_s)
    sent.answer(None, error="Connection refused")
    work.add(story(killed()))
    sent.run_at(work, now_s)
    sent.answer()
    sent.run_at(work, work._next_s)
    assert (len(sent.asked), work.due_s) == (2, math.inf)
    assert ([line[:24] for line in sent.warnings], sent.notices) == (["1 event of pods dropped:"], [])


@pytest.mark.parametrize(("asked_s", "waited_s"), [(7.0, 10.0), (45.0, 45.0), (86400.0, 600.0)])
def test_pause_that_the_server_asks_for_is_kept_within_bounds(
    sent: Sent, asked_s: float, waited_s: float
) -> None:
    sent.answer(None, error="429", retry_after_s=asked_s)
    work = sent.open()
    work.add(story(killed()))
    sent.run_at(work, 1000.0)
    assert work._next_s == 1000.0 + waited_s


def test_child_that_hangs_loses_nothing(sent: Sent) -> None:
    work = sent.open(within_s=5.0)
    work._sending = (sys.executable, "-c", "import time; time.sleep(999)")
    work.add(story(killed()))
    now_s = time.monotonic()
    work.step(now_s)
    assert work._child is not None
    sent.run_at(work, work._child.deadline_s)
    line = "events of pods are not sent: their process took longer than 5 s and was killed; 1 event waits"
    assert sent.warnings == [f"{line}, and it is tried again"]
    work._within_s, work._sending = 1e6, (sys.executable, "-c", ANSWERING)
    sent.run_at(work, now_s + 60)
    assert len(sent.asked) == 1


def test_namespace_without_rights_waits_alone(sent: Sent) -> None:
    sent.answer(states={"shop": "later"})
    work = sent.open(every_s=0.0)
    other = UID.replace("0f9c", "1111")
    work.add(story(killed(), killed("bank-1", namespace="bank", uid=other)))
    now_s = time.monotonic()
    sent.run_at(work, now_s)
    assert [one["namespace"] for one in sent.asked[0]] == ["shop", "bank"]
    assert "403 why; 2 events wait" in sent.warnings[0]
    work.add(story(killed("bank-1", 9.0, namespace="bank", uid=other)))
    sent.run_at(work, now_s)
    assert [one["namespace"] for one in sent.asked[1]] == ["bank"]
    sent.answer()
    sent.run_at(work, work.due_s)
    assert [one["namespace"] for one in sent.asked[2]] == ["shop"]
    assert sent.notices == ["events of pods are sent again"]


def test_event_that_the_server_refuses_is_counted_and_said(sent: Sent) -> None:
    sent.answer("refused")
    work = sent.open()
    work.add(story(killed()))
    sent.run(work)
    assert sent.warnings == ["1 event of pods dropped: the API server refuses it: 403 why (1 dropped so far)"]
    assert work._waiting == {}


def test_oldest_events_are_dropped_when_too_many_wait(sent: Sent) -> None:
    work = sent.open()
    uids = [f"{number:08x}{UID[8:]}" for number in range(MOST_WAITING + 3)]
    work.add(story(*(killed("web", number, uid=uid) for number, uid in enumerate(uids))))
    assert len(work._waiting) == MOST_WAITING
    work._next_s = math.inf
    work.step(time.monotonic())
    assert uids[2] not in {event.uid for event in work._waiting.values()}
    assert sent.warnings == [
        f"3 events of pods dropped: more than {MOST_WAITING} wait for the API server (3 dropped so far)"
    ]
    assert sent.counted == [("dropped", 3)]


def test_pods_that_a_trace_leaves_out_are_counted_and_said(sent: Sent) -> None:
    work = sent.open()
    work.add(replace(story(), pods_left_out=7))
    sent.run(work)
    assert sent.counted == [("dropped", 7)]
    assert "7 events of pods dropped: a trace has kills of too many containers" in sent.warnings[0]


def test_unsent_events_outlive_the_recorder(sent: Sent) -> None:
    sent.answer(None, error="Connection refused")
    work = sent.open()
    work.add(story(killed()))
    assert (sent.spool / KEPT).stat().st_mode & 0o777 == 0o600
    work.finish(time.monotonic() + 60 * SLOWDOWN)
    assert sent.warnings[-1] == "1 event of pods not sent yet: the next start sends them"
    sent.answer()
    again = sent.open()
    sent.run(again)
    assert [one["name"] for one in sent.asked[-1]] == [f"web-1.{NOON_NS:x}"]
    assert not (sent.spool / KEPT).exists()


def test_kill_after_a_restart_is_another_event(sent: Sent) -> None:
    for second in (0.0, 30.0):
        work = sent.open()
        work.add(story(killed("web-1", second)))
        sent.run(work)
    asked = [(one["name"], one["is_there"], one["body"]["count"]) for [one] in sent.asked]
    assert asked == [
        (f"web-1.{NOON_NS:x}", False, 1),
        (f"web-1.{NOON_NS + 30 * SECOND_NS:x}", False, 1),
    ]


def test_end_of_watch_sends_what_waits(sent: Sent) -> None:
    work = sent.open()
    work.add(story(killed()))
    work.finish(time.monotonic() + 60 * SLOWDOWN)
    assert (len(sent.asked), sent.warnings, (sent.spool / KEPT).exists()) == (1, [], False)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{}", "[1]", '[{"namespace": "a"}]', '"text"', "[" * 9999,
        json.dumps([dict.fromkeys(("namespace", "pod", "uid", "container", "count", "first_ns", "last_ns",
                                   "message"), "x")]),
        json.dumps([{"namespace": "../x", "pod": "x", "uid": UID, "container": "", "count": 1, "first_ns": 1,
                     "last_ns": 1, "message": ""}]),
        json.dumps([{"namespace": "x", "pod": "x", "uid": UID, "container": "", "count": 1, "first_ns": 1,
                     "last_ns": 1 << 70, "message": ""}]),
    ],
)  # fmt: skip
def test_damaged_file_is_said_and_left_behind(sent: Sent, text: str) -> None:
    (sent.spool / KEPT).write_text(text)
    work = sent.open()
    sent.run(work)
    assert work._waiting == {}
    assert len(sent.warnings) == (0 if text == "{}" else 1)
    work.add(story(killed()))
    sent.run(work)
    assert not (sent.spool / KEPT).exists()


def test_link_in_place_of_the_file_is_not_followed(sent: Sent, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("[]")
    (sent.spool / KEPT).symlink_to(target)
    work = sent.open()
    assert "cannot be read" in sent.warnings[0]
    sent.answer(None, error="away")
    work.add(story(killed()))
    assert not (sent.spool / KEPT).is_symlink()
    assert target.read_text() == "[]"


def test_full_disk_does_not_hold_up_events(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Directory, "write_whole", refuse)
    work = sent.open()
    work.add(story(killed()))
    sent.run(work)
    assert len(sent.asked) == 1


@pytest.mark.parametrize(
    ("environment", "files", "words"),
    [
        ({}, ("token", "ca.crt"), "is for a pod of Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ("token", "ca.crt"), "is for a pod of Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, ("ca.crt",), "token"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, ("token",), "ca.crt"),
    ],
)
def test_account_is_needed(
    tmp_path: Path, environment: dict[str, str], files: tuple[str, ...], words: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("x")
    with pytest.raises(UsageError, match=words):
        pod_account(environment, tmp_path)


def test_account_is_that_of_the_pod(tmp_path: Path) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert pod_account(environment, tmp_path) == PodAccount("fd00::1", 443, tmp_path)
