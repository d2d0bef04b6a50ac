"""Names that come after the cgroup: looked up in a thread, together, and again later."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator

import pytest

from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef
from tracer.kernel.naming import late_names
from tracer.kernel.naming.late_names import ContainerLookup, LateNames, remembering

REF, REF2, POD = (
    ContainerRef("containerd", "4f2c9d1be0a73586" * 4, "uid"),
    ContainerRef("docker", "0123456789abcdef" * 4),
    ContainerRef(pod_uid="uid"),
)
WEB = ContainerNames("web", image="nginx")
WITHIN_S = 60.0


class Host:
    """A host that knows `names`, and a clock that the test moves."""

    def __init__(self) -> None:
        self.names: dict[ContainerRef, ContainerNames] = {}
        self.asked: list[list[ContainerRef]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.now_s = 100.0
        self.late = LateNames(self.find, lambda: self.now_s)

    def find(self, refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        self.asked.append([*refs])
        assert self.may_answer.wait(WITHIN_S)
        return {ref: self.names.get(ref, ContainerNames()) for ref in refs}


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.may_answer.set()
    made.late.close()


def test_names_come_for_each_cgroup_of_the_container(host: Host) -> None:
    host.names[REF2] = WEB
    host.late.want(REF2, 7)
    host.late.want(REF2, 8)
    assert sorted(host.late.take(WITHIN_S)) == [(7, WEB), (8, WEB)]
    host.now_s += 100
    assert host.late.take() == []
    assert host.asked == [[REF2]]


def test_take_does_not_wait_for_a_runtime_that_hangs(host: Host) -> None:
    host.may_answer.clear()
    host.late.want(REF2, 7)
    assert host.late.take() == host.late.take(0.01) == []


def test_containers_are_looked_up_together(host: Host) -> None:
    """The CRI socket is asked once, and not again for some seconds."""
    host.names = {REF: WEB, REF2: WEB, POD: ContainerNames(None, "web")}
    for number, ref in enumerate((REF, REF2, POD)):
        host.late.want(ref, number)
    assert len(host.late.take(WITHIN_S)) == 3
    assert host.asked == [[REF, REF2, POD]]


def test_names_are_requested_before_they_are_taken(host: Host) -> None:
    """The rows are taken several times a second; by then, a container may be gone."""
    host.names[REF2] = WEB
    host.late.want(REF2, 7)
    host.late.ask()
    deadline = time.monotonic() + WITHIN_S
    while not host.asked:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert host.late.take(WITHIN_S) == [(7, WEB)]
    assert host.asked == [[REF2]]


def test_unknown_names_are_looked_up_again_and_then_given_up(host: Host) -> None:
    host.late.want(REF2, 7)
    asked_at = []
    while host.now_s < 200:
        before = len(host.asked)
        host.late.take(WITHIN_S)
        if len(host.asked) > before:
            asked_at.append(host.now_s - 100)
        host.now_s += 0.5
    assert asked_at == [0, 1, 5, 20]
    assert host.late._wanted == {}


def test_missing_names_are_looked_up_at_once_in_a_hurry(host: Host) -> None:
    host.late.want(REF2, 7)
    assert host.late.take(WITHIN_S) == []
    assert host.late.take() == []
    host.names[REF2] = WEB
    host.late.hurry()
    assert host.late.take(WITHIN_S) == [(7, WEB)]
    assert host.asked == [[REF2]] * 2


def test_names_that_lack_an_image_are_given_and_asked_for_again(host: Host) -> None:
    partial, whole = ContainerNames("app", "web", "prod"), ContainerNames("app", "web", "prod", "redis:7")
    host.names[REF] = partial
    host.late.want(REF, 7)
    assert host.late.take(WITHIN_S) == [(7, partial)]
    host.now_s += 1
    assert host.late.take(WITHIN_S) == []  # the same again
    host.names[REF] = whole
    host.now_s += 4
    assert host.late.take(WITHIN_S) == [(7, whole)]
    assert host.late._wanted == {}


def test_cgroup_that_is_made_meanwhile_has_the_names_as_well(host: Host) -> None:
    partial = ContainerNames("app", "web", "prod")
    host.names[REF] = partial
    host.late.want(REF, 7)
    assert host.late.take(WITHIN_S) == [(7, partial)]
    host.late.want(REF, 8)
    host.now_s += 1
    assert host.late.take(WITHIN_S) == [(8, partial)]


def test_wanted_containers_are_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_names, "_MOST_WANTED", 1)
    host.names = {REF: WEB, REF2: WEB}
    host.late.want(REF, 7)
    host.late.want(REF2, 8)
    host.late.want(REF, 9)
    assert sorted(host.late.take(WITHIN_S)) == [(7, WEB), (9, WEB)]


def test_thread_ends_after_its_lookup() -> None:
    host = Host()
    host.late.want(REF, 7)
    host.late.take(WITHIN_S)
    thread = host.late._lookup._thread
    assert thread is not None
    host.late.close()
    thread.join(WITHIN_S)
    assert not thread.is_alive()


def test_same_request_is_not_made_twice() -> None:
    host = Host()
    lookup = ContainerLookup(host.find)
    host.may_answer.clear()
    for _ in range(3):
        lookup.ask([REF, REF])
    host.may_answer.set()
    assert lookup.take(WITHIN_S) == {REF: ContainerNames()}
    lookup.close()
    assert host.asked == [[REF]]


def test_remembering_asks_for_each_container_once() -> None:
    host = Host()
    find = remembering(host.find)
    host.names[REF] = WEB
    assert find([REF]) == {REF: WEB}
    assert find([REF, REF2]) == {REF: WEB, REF2: ContainerNames()}
    assert host.asked == [[REF], [REF2]]
