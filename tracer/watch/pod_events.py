"""Events of Kubernetes on pods that had an OOM kill, sent by one child at a time beside the recording loop.

They are of core/v1, since events.k8s.io/v1 does not let a later kill change the message of an event
(pkg/apis/core/validation/events.go, `ValidateEventUpdate`).
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tracer.directory import Directory
from tracer.kernel.process.children import argv_of_module, environment_of_modules
from tracer.render.words.escape import visible
from tracer.trace.meta import host_name, utc_time
from tracer.watch.child import Child
from tracer.watch.finishing import Finished
from tracer.watch.pod_account import PodAccount

REASON: Final = "OOMKill"
KEPT: Final = ".unsent-events.json"
"""The file in the directory of traces that has the unsent events, so that they outlive the recorder."""

EVERY_S: Final = 10.0
AT_ONCE: Final = 20
"""At most `AT_ONCE` events are sent each `EVERY_S`, and each pod's container is one of them once."""
MOST_WAITING: Final = 256
SERIES_S: Final = 3600.0
"""A kill so soon after another of its pod and container counts in the same event. The API server keeps an
event for as long by default (kube-apiserver, `--event-ttl`)."""
MOST_MESSAGE_BYTES: Final = 1024
"""The limit of events.k8s.io (`NoteLengthLimit`), which core/v1 does not check."""
AGAIN_AFTER_S: Final = (10.0, 20.0, 60.0, 120.0, 300.0)
"""The times between attempts while the API server cannot be used; the last one is repeated."""
MOST_PAUSE_S: Final = 600.0
SENDING_WITHIN_S: Final = 120.0
LINES_EVERY_S: Final = 60.0

_SENDING: Final = argv_of_module("tracer.watch.pod_events_child")
_MOST_SERIES: Final = 4096
_MOST_KEPT_BYTES: Final = 4 << 20
_MOST_NAME: Final = 253
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_UID: Final = re.compile(r"[0-9a-f-]{32,36}")


@dataclass(frozen=True, slots=True)
class PodEvent:
    """An event on a pod. `count` kills were seen from `first_ns` to `last_ns` (CLOCK_REALTIME).

    `is_there`: the API server has the event, with an older count.
    """

    namespace: str
    pod: str
    uid: str
    container: str
    count: int
    first_ns: int
    last_ns: int
    message: str
    is_there: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Return what the kills of one event share."""
        return self.uid, self.container

    @property
    def name(self) -> str:
        """Return the name of the event, which the first kill decides: each attempt has the same."""
        end = f".{self.first_ns:x}"
        return self.pod[: _MOST_NAME - len(end)].rstrip("-.") + end

    def body(self, node: str) -> dict[str, Any]:
        """Return the object of the API.

        `fieldPath` names the container, as in events of the kubelet (pkg/kubelet/container/ref.go). No node
        knows the kind of a container, so the path of an init container is that of the others too. A container
        without a name has an id, which is longer than any name, and no path.
        """
        is_named = _LABEL.fullmatch(self.container) is not None
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": self.pod,
                "namespace": self.namespace,
                "uid": self.uid,
                **({"fieldPath": f"spec.containers{{{self.container}}}"} if is_named else {}),
            },
            "type": "Warning",
            "reason": REASON,
            "message": self.message,
            "count": self.count,
            "firstTimestamp": _time(self.first_ns),
            "lastTimestamp": _time(self.last_ns),
            "source": {"component": "memcg-tracer", "host": node},
            "reportingComponent": "memcg-tracer",
            "reportingInstance": node,
        }


class PodEvents:
    """Sends an event for each container of a pod that had kills. Without an `account`, it does nothing.

    Kills of a container within `SERIES_S` are one event, whose count, time and message change. Events that
    cannot be sent wait, and are kept in a file of `spool` for the next start. `notice` and `warn` are called
    with a line, at most once in `LINES_EVERY_S`; `counted` with `sent` or `dropped`, and a number of events.

    For an event loop: call `step`, which never blocks, now and then, unless `due_s` is infinite.
    """

    def __init__(
        self,
        spool: Path,
        account: PodAccount | None,
        notice: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        counted: Callable[[str, int], object] = lambda _result, _count: None,
        sending: tuple[str, ...] = _SENDING,
        within_s: float = SENDING_WITHIN_S,
        every_s: float = EVERY_S,
        again_after_s: Sequence[float] = AGAIN_AFTER_S,
        lines_every_s: float = LINES_EVERY_S,
    ) -> None:
        self._spool = spool
        self._account = account
        self._notice = notice
        self._warn = warn
        self._counted = counted
        self._sending = sending
        self._within_s = within_s
        self._every_s = every_s
        self._again_after_s = again_after_s
        self._lines_every_s = lines_every_s
        self._node = host_name()
        self._waiting: dict[tuple[str, str], PodEvent] = {}
        self._series: dict[tuple[str, str], PodEvent] = {}  # what the API server has, the newest last
        self._child: Child | None = None
        self._given: dict[str, PodEvent] = {}  # the events that the child has, by name
        self._next_s = 0.0
        self._failed = 0  # failed attempts in a row
        self._pauses: dict[str, tuple[int, float]] = {}  # namespace -> failed attempts, time of the next one
        self._line = ""  # the newest warning that waits until a line may be printed
        self._said_s = -math.inf
        self._is_of_failure = False  # the line; false: of events that were dropped
        self._has_complained = False  # of a failure, since the last success
        self._is_kept = False  # the file is there
        self._dropped = 0
        if account is not None:
            self._load()

    @property
    def due_s(self) -> float:
        """Return the time on CLOCK_MONOTONIC at which `step` must be called; infinite: there is no work."""
        if self._child is not None:
            return 0.0
        said_s = self._said_s + self._lines_every_s if self._line else math.inf
        ready_s = min((self._pause_s(event) for event in self._waiting.values()), default=math.inf)
        return min(max(self._next_s, ready_s), said_s)

    def add(self, story: Finished) -> None:
        """Take the kills of an explained trace."""
        if self._account is None:
            return
        for pod in story.pods:
            if (event := self._event_of(pod, story.trace)) is None:
                self._drop(1, f"the name of the pod {pod['uid']} is not known")
            else:
                self._waiting[event.key] = event
        if story.pods_left_out:
            self._drop(story.pods_left_out, "a trace has kills of too many containers")
        if len(self._waiting) > MOST_WAITING:
            oldest = sorted(self._waiting.values(), key=lambda event: event.last_ns)[:-MOST_WAITING]
            for event in oldest:
                del self._waiting[event.key]
            self._drop(len(oldest), f"more than {MOST_WAITING} wait for the API server")
        if story.pods:
            self._keep()

    def step(self, now_s: float) -> None:
        """Do what can be done without waiting; `now_s` is CLOCK_MONOTONIC."""
        if self._child is None:
            events = [event for event in self._waiting.values() if self._pause_s(event) <= now_s]
            if events and self._next_s <= now_s:
                self._begin(events[:AT_ONCE], now_s)
        elif (status := self._child.poll(now_s)) is not None:
            child, self._child = self._child, None
            self._end(child, status, now_s)
        if self._line and now_s >= self._said_s + self._lines_every_s:
            self._say(now_s)

    def finish(self, deadline_s: float) -> None:
        """Send what waits until `deadline_s` (CLOCK_MONOTONIC), for the end of `watch`."""
        failed = self._failed
        self._next_s = 0.0  # one more attempt, even if the server could not be used
        while self.due_s < math.inf and self._failed <= failed and (now_s := time.monotonic()) < deadline_s:
            if self._child is None:
                if not any(self._pause_s(event) <= now_s for event in self._waiting.values()):
                    break
                self._next_s = 0.0
            self.step(now_s)
            if self._child is not None:
                self._child.wait(deadline_s)
        if self._child is not None:
            self._child.end()
            self._child = None
        if self._line:
            self._say(time.monotonic())
        if self._waiting:
            self._warn(f"{_events(len(self._waiting))} of pods not sent yet: the next start sends them")

    # Events

    def _event_of(self, pod: Mapping[str, Any], trace: Path) -> PodEvent | None:
        """Return the event with the kills of `tracer.watch.completing`; None without a valid name."""
        name, namespace, uid = (str(pod[key] or "") for key in ("pod", "namespace", "uid"))
        is_valid = _NAME.fullmatch(name) and _LABEL.fullmatch(namespace) and _UID.fullmatch(uid)
        if not is_valid or not pod["times_ns"]:
            return None
        times_ns = sorted(pod["times_ns"])
        event = PodEvent(
            namespace=namespace,
            pod=name,
            uid=uid,
            container=str(pod["container"] or ""),
            count=pod["kills"],
            first_ns=times_ns[0],
            last_ns=times_ns[-1],
            message=_message(pod["sentence"], self._node, trace),
        )
        before = self._waiting.get(event.key)
        if before is None:
            before = self._series.get(event.key)
            if before is None or event.first_ns - before.last_ns > SERIES_S * 1e9:
                return event
        # Another trace may have had some. One that could not be explained at first comes after later ones.
        fresh = sum(not before.first_ns <= one <= before.last_ns for one in times_ns)
        return replace(
            event if event.last_ns >= before.last_ns else before,
            count=before.count + (event.count if fresh == len(times_ns) else fresh),
            first_ns=before.first_ns,
            last_ns=max(event.last_ns, before.last_ns),
            is_there=before.is_there,
        )

    def _drop(self, count: int, why: str) -> None:
        self._dropped += count
        self._counted("dropped", count)
        self._line, self._is_of_failure = f"{_events(count)} of pods dropped: {why}", False

    # The child

    def _begin(self, events: Sequence[PodEvent], now_s: float) -> None:
        assert self._account is not None
        self._given = {event.name: event for event in events}
        told = [
            {"namespace": event.namespace, "name": event.name}
            | {"is_there": event.is_there, "body": event.body(self._node)}
            for event in events
        ]
        account = self._account
        argv = (*self._sending, account.host, str(account.port), str(account.folder))
        self._next_s = now_s + self._every_s
        try:
            self._child = Child(
                argv, environment_of_modules(), self._within_s, subprocess.PIPE, text=json.dumps(told)
            )
        except OSError as error:
            self._fail(f"no process can be started ({error.strerror})", None, now_s)

    def _end(self, child: Child, status: int, now_s: float) -> None:
        """Handle the output of the child: an array for each event, then an object with its error."""
        end: dict[str, Any] | None = None
        for line in bytes(child.output).splitlines():
            with suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    end = told
                elif isinstance(told, list) and len(told) == 3 and told[0] in self._given:
                    name, state, why = told
                    self._take(self._given[name], state, why, now_s)
        self._given = {}
        error = f"their process {child.how_it_ended(status)}" if end is None else end.get("error")
        if error:
            self._fail(str(error), None if end is None else end.get("retry_after_s"), now_s)
        else:
            self._failed = 0
            namespaces = {event.namespace for event in self._waiting.values()}
            self._pauses = {name: pause for name, pause in self._pauses.items() if name in namespaces}
            if not self._pauses:
                self._end_failure()
        self._keep()

    def _take(self, event: PodEvent, state: Any, why: Any, now_s: float) -> None:
        """Note what became of an event."""
        waiting = self._waiting.get(event.key)
        if state == "later":
            failed, _ = self._pauses.get(event.namespace, (0, 0.0))
            self._pauses[event.namespace] = failed + 1, now_s + self._again_in_s(failed)
            self._complain(str(why))
            return
        self._pauses.pop(event.namespace, None)
        self._series.pop(event.key, None)
        if state == "refused":
            self._waiting.pop(event.key, None)
            self._drop(1, f"the API server refuses it: {why}")
            return
        self._counted("sent", 1)
        self._series[event.key] = replace(event, is_there=True)
        if len(self._series) > _MOST_SERIES:
            del self._series[next(iter(self._series))]
        if waiting == event:
            del self._waiting[event.key]
        elif waiting is not None and waiting.name == event.name:  # further kills, while the child worked
            self._waiting[event.key] = replace(waiting, is_there=True)

    def _fail(self, why: str, pause_s: Any, now_s: float) -> None:
        wait_s = self._again_in_s(self._failed)
        if isinstance(pause_s, float | int):
            wait_s = max(wait_s, min(float(pause_s), MOST_PAUSE_S))
        self._next_s = now_s + wait_s
        self._failed += 1
        self._complain(why)

    def _again_in_s(self, failed: int) -> float:
        return self._again_after_s[min(failed, len(self._again_after_s) - 1)]

    def _pause_s(self, event: PodEvent) -> float:
        """Return the time on CLOCK_MONOTONIC from which an event may be tried: rights differ by namespace."""
        return self._pauses.get(event.namespace, (0, 0.0))[1]

    # Lines

    def _complain(self, why: str) -> None:
        waiting, self._is_of_failure = len(self._waiting), True
        self._line = (
            f"events of pods are not sent: {why}; {_events(waiting)} wait{'s' * (waiting == 1)}, and it is "
            "tried again"
        )

    def _end_failure(self) -> None:
        if self._is_of_failure or self._has_complained:
            self._line = ""
        if self._has_complained:
            self._has_complained = False
            self._notice(f"events of pods are sent again{self._dropped_words()}")

    def _say(self, now_s: float) -> None:
        self._warn(self._line + self._dropped_words())
        self._has_complained |= self._is_of_failure
        self._line, self._said_s = "", now_s

    def _dropped_words(self) -> str:
        return f" ({self._dropped} dropped so far)" if self._dropped else ""

    # The file

    def _keep(self) -> None:
        """Write the waiting events to the file, or remove it. A failure costs them at a restart only."""
        if not self._waiting and not self._is_kept:
            return
        with suppress(OSError), Directory.open(self._spool) as spool:
            if self._waiting:
                text = json.dumps([asdict(event) for event in self._waiting.values()])
                spool.write_whole(KEPT, [text.encode()])
                self._is_kept = True
            else:
                spool.unlink(KEPT)
                self._is_kept = False

    def _load(self) -> None:
        """Take the events that an earlier `watch` did not send."""
        try:
            with Directory.open(self._spool) as spool, spool.read(KEPT) as file:
                self._is_kept = True
                events = list(_read(json.loads(file.read(_MOST_KEPT_BYTES))))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            self._warn(f"{self._spool / KEPT} cannot be read: the events of pods in it are lost")
            return
        self._waiting = {event.key: event for event in events[-MOST_WAITING:]}


def _read(document: Iterable[Mapping[str, Any]]) -> Iterable[PodEvent]:
    """Yield the events of the file. Raises ValueError, TypeError or KeyError for any other content."""
    for one in document:
        event = PodEvent(**one)
        texts = (event.namespace, event.pod, event.uid, event.container, event.message)
        numbers = (event.count, event.first_ns, event.last_ns)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(one)
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
            raise ValueError(one)
        if not (_NAME.fullmatch(event.pod) and _LABEL.fullmatch(event.namespace)):
            raise ValueError(one)
        yield event


def _message(sentence: str, node: str, trace: Path) -> str:
    """Return the sentence, which is safe to print, with the place of the trace, which is not shortened."""
    end = visible(f" Trace on {node}: {trace}")
    if len(end.encode()) > MOST_MESSAGE_BYTES // 2:
        end = f" Trace: {trace.name}"
    text, room = sentence.encode(), MOST_MESSAGE_BYTES - len(end.encode())
    if len(text) > room:
        sentence = text[: room - len("…".encode())].decode("utf-8", "ignore") + "…"
    return sentence + end


def _time(time_ns: int) -> str:
    """Return a time as metav1.Time has it: RFC 3339 in UTC, to the second."""
    return utc_time({"monotonic_ns": 0, "realtime_ns": 0}, time_ns // 1_000_000_000 * 1_000_000_000).replace(
        ".000000+00:00", "Z"
    )


def _events(count: int) -> str:
    return f"{count} event{'s' * (count != 1)}"
