"""Decisions on cgroups: taken, refused or undecided, by selectors and by a runtime's answers."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tracer.capture.rows.cgroup_rows import GONE_KEPT, Cgroup, CgroupEvent
from tracer.capture.selection import cgroup_selection as module
from tracer.capture.selection import requests
from tracer.capture.selection.cgroup_selection import CgroupSelection, Taken
from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import Hierarchy, walk
from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef
from tracer.kernel.cgroups.selectors import parse_selector
from tracer.wire.dtypes import WIRE

ID = "4f2c9d1be0a73586" * 4
ID2 = "5a2c9d2be0a73586" * 4


class FakeMap(dict[Any, Any]):
    """A BPF map with room for `room` keys."""

    room = 1 << 20

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= self.room:
            raise OSError(7, "Argument list too long")
        super().__setitem__(key, value)

    def delete(self, key: Any) -> bool:
        return self.pop(key, None) is not None


class FakePrograms:
    """The maps, and the program `look_again`."""

    def __init__(self) -> None:
        self.maps: defaultdict[str, FakeMap] = defaultdict(FakeMap)
        self.is_open = False

    def map(self, name: str) -> FakeMap:
        return self.maps[name]

    def run(self, name: str, args: list[int]) -> int:
        assert name == "look_again"
        self.is_open = bool(args[0])
        return 0

    def roots(self) -> set[int]:
        return set(self.maps["roots"])


class Host:
    """A hierarchy of plain directories, a container runtime with names, and a selection."""

    def __init__(self, mount: Path) -> None:
        self.hierarchy = Hierarchy(1, mount, "/")
        self.programs: Any = FakePrograms()
        self.names: dict[str, str | None] = {}
        self.answer = threading.Event()
        self.answer.set()
        self.selection: CgroupSelection
        self.now_ns = 0

    def lookup(self, refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        self.answer.wait(10)
        return {ref: ContainerNames(self.names.get(ref.container_id or "")) for ref in refs}

    def record(self, *arguments: str) -> CgroupSelection:
        selectors = [parse_selector(self.hierarchy, argument) for argument in arguments]
        self.selection = CgroupSelection(self.programs, self.hierarchy, selectors, lookup=self.lookup)
        self.selection.begin()
        self.selection.find([one.path for one in walk(self.hierarchy)])
        return self.selection

    def event(self, kind: str, cgroup_id: int, path: str, parent: int = 1, follow: str = "") -> None:
        """Take an event as the BPF program would send it: it decides by path alone."""
        self.now_ns += 1
        if not follow:
            is_wanted = os.fsencode(path) in self.programs.map("wanted_paths")
            follow = "yes" if is_wanted else "undecided" if self.programs.is_open else "no"
        self.selection.take_event(
            CgroupEvent(kind, self.now_ns, Cgroup(cgroup_id, parent, path, 0xF00), follow)
        )

    def settled(self, expected: int = 1) -> list[Taken]:
        """Return the taken cgroups, once there are as many as expected."""
        taken: list[Taken] = []
        deadline = time.monotonic() + 10
        while len(taken) < expected and time.monotonic() < deadline:
            taken += self.selection.settle()
        return taken


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    (tmp_path / "docker" / ID).mkdir(parents=True)
    made = Host(tmp_path)
    yield made
    made.answer.set()
    made.selection.close()


def test_path_is_decided_by_the_bpf_program_alone(host: Host) -> None:
    host.record("/a/web")
    assert (list(host.programs.map("wanted_paths")), host.programs.is_open) == ([b"/a/web"], False)
    host.event("mkdir", 7, "/a/web")
    host.event("mkdir", 8, "/b/web")
    assert [taken.cgroup.id for taken in host.settled()] == [7]
    assert host.selection.undecided() == []


def test_path_below_a_partial_mount_is_wanted_by_its_full_path(tmp_path: Path) -> None:
    hierarchy = Hierarchy(1, tmp_path, "/docker/abc")
    programs: Any = FakePrograms()
    CgroupSelection(programs, hierarchy, [parse_selector(hierarchy, "/web")]).begin()
    assert list(programs.map("wanted_paths")) == [b"/docker/abc/web"]


def test_name_traces_every_new_cgroup_until_decided(host: Host) -> None:
    host.record("web-*")
    assert host.programs.is_open
    host.event("mkdir", 7, "/x/web-1")
    host.event("mkdir", 8, "/x/db-1")
    assert [taken.cgroup.path for taken in host.settled()] == ["/x/web-1"]
    host.programs.map("roots").update({7: 1, 8: 2})
    host.selection.purge()
    assert host.programs.roots() == {7}


def test_container_is_undecided_until_its_name_is_known(host: Host) -> None:
    host.names[ID2] = "shop-db"
    host.record("shop-db")
    host.answer.clear()
    host.event("mkdir", 7, f"/docker/{ID2}")
    assert host.selection.settle() == []
    assert [cgroup.id for cgroup in host.selection.undecided()] == [7]
    host.answer.set()
    (taken,) = host.settled()
    assert (taken.cgroup.id, taken.created_ns, taken.names) == (7, 1, ContainerNames("shop-db"))
    assert host.selection.undecided() == []


def test_runtime_without_an_answer_is_asked_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.01)
    host.record("shop-db")
    host.event("mkdir", 7, f"/docker/{ID2}")
    for _ in range(20):
        assert host.selection.settle() == []
        time.sleep(0.005)
    host.names[ID2] = "shop-db"
    assert [taken.cgroup.id for taken in host.settled()] == [7]


def test_container_without_a_name_is_refused_after_the_wait(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAIT_S", 0.05)
    host.record("shop-db")
    host.event("mkdir", 7, f"/docker/{ID2}")
    deadline = time.monotonic() + 10
    while host.selection.undecided() and time.monotonic() < deadline:
        assert host.selection.settle() == []
    assert host.selection.take_given_up() == [7]


def test_container_of_another_name_is_refused(host: Host) -> None:
    host.names[ID2] = "other"
    host.record("shop-db")
    host.event("mkdir", 7, f"/docker/{ID2}")
    deadline = time.monotonic() + 10
    while host.selection.undecided() and time.monotonic() < deadline:
        assert host.selection.settle() == []
    charge = np.zeros(1, WIRE["charge"])
    charge["cgroup_id"] = 7
    assert len(host.selection.sift("charge", charge)) == 0
    assert host.selection.take_given_up() == [7]


def test_container_that_ended_undecided_is_taken_with_its_end(host: Host) -> None:
    host.names[ID2] = "shop-db"
    host.record("shop-db")
    host.event("mkdir", 7, f"/docker/{ID2}")
    host.event("rmdir", 7, f"/docker/{ID2}", follow="undecided")
    (taken,) = host.settled()
    assert (taken.created_ns, taken.removed_ns) == (1, 2)


def test_container_made_again_is_wanted_by_its_path(host: Host) -> None:
    """No runtime is asked, because the id is that of the same container."""
    host.names[ID] = "shop-db"
    host.record("shop-db")
    assert f"/docker/{ID}".encode() in host.programs.map("wanted_paths")
    host.answer.clear()
    host.event("rmdir", 3, f"/docker/{ID}")
    host.event("mkdir", 7, f"/docker/{ID}")
    assert [taken.cgroup.id for taken in host.settled()] == [7]


def test_child_of_an_undecided_container_is_decided_with_it(host: Host) -> None:
    host.names[ID2] = "shop-db"
    host.record("shop-db")
    host.answer.clear()
    host.event("mkdir", 7, f"/docker/{ID2}")
    host.event("mkdir", 8, f"/docker/{ID2}/inner", parent=7)
    assert host.selection.settle() == []
    host.answer.set()
    assert [taken.cgroup.id for taken in host.settled(2)] == [7, 8]


def test_cgroup_renamed_to_a_match_is_taken_as_existing(host: Host) -> None:
    host.record("web-*")
    host.event("mkdir", 7, "/x/db-1")
    host.event("rename", 7, "/x/web-1", follow="no")
    assert 7 not in host.programs.map("roots"), "its counters are not the zero of its ledger yet"
    (taken,) = host.settled()
    assert (taken.cgroup.path, taken.created_ns) == ("/x/web-1", None)
    host.selection.trace_late(taken)
    assert 7 in host.programs.map("roots")


def test_traced_cgroup_that_is_renamed_stays_traced_with_its_subtree(host: Host) -> None:
    host.record("/web")
    host.event("mkdir", 7, "/web")
    host.event("mkdir", 8, "/web/a", parent=7, follow="yes")
    host.settled(2)
    host.event("rename", 7, "/old", follow="yes")
    assert [(cgroup.id, cgroup.path) for cgroup in host.selection.take_renamed()] == [
        (7, "/old"),
        (8, "/old/a"),
    ]
    assert host.selection.concerns("/old/a"), "the kernel log has the new name"
    assert host.settled(0) == []
    host.event("mkdir", 9, "/web")
    assert [taken.cgroup.id for taken in host.settled()] == [9]


def test_news_are_reported_once(host: Host) -> None:
    host.record("web")
    (line,) = host.selection.waiting()
    assert line.startswith("no cgroup or container is 'web' yet: waiting for it (")
    assert list(host.selection.requests.news()) == []
    host.event("mkdir", 7, "/x/web")
    assert list(host.selection.requests.news()) == ["'web': now tracing '/x/web'"]
    host.event("rmdir", 7, "/x/web")
    gone = ["'web' is gone ('/x/web'): waiting for it to come again"]
    assert list(host.selection.requests.news(is_last=True)) == gone
    assert list(host.selection.requests.news(is_last=True)) == []
    for cgroup_id in range(8, 11):
        host.event("mkdir", cgroup_id, "/x/web")
        host.event("rmdir", cgroup_id, "/x/web")
    (line,) = host.selection.requests.news()
    assert line == "'web' is gone ('/x/web', made 3 times): waiting for it to come again"
    assert host.selection.requests.never_matched() == []


def test_life_has_one_line_and_a_name_that_stays_away_another(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.record("web")
    lines: list[str] = []
    for cgroup_id in (7, 8, 9):
        host.event("mkdir", cgroup_id, "/x/web")
        lines += host.selection.requests.news()
        host.event("rmdir", cgroup_id, "/x/web")
        lines += host.selection.requests.news()
    assert lines == ["'web': now tracing '/x/web'"] * 3
    monkeypatch.setattr(requests, "GONE_AFTER_S", 0.0)
    assert list(host.selection.requests.news()) == ["'web' is gone ('/x/web'): waiting for it to come again"]
    assert list(host.selection.requests.news()) == []


def test_news_of_a_crash_loop_are_few(host: Host) -> None:
    host.record("web")
    lines: list[str] = []
    for cgroup_id in range(100, 200):
        host.event("mkdir", cgroup_id, "/x/web")
        host.event("rmdir", cgroup_id, "/x/web")
        lines += host.selection.requests.news()
    lines += host.selection.requests.news(is_last=True)
    assert len(lines) == 12
    assert lines[-1] == "'web' is gone ('/x/web', made 89 times): waiting for it to come again"


def test_news_show_names_as_a_trace_keeps_them(host: Host) -> None:
    host.record("web\udcff")
    host.event("mkdir", 7, "/x/web\udcff")
    assert list(host.selection.requests.news()) == [r"'web\xff': now tracing '/x/web\xff'"]


def test_never_matched_lists_selectors_without_a_match(host: Host) -> None:
    host.record("web", "/docker")
    assert host.selection.requests.never_matched() == ["'web'"]


def test_matched_paths_are_as_a_trace_keeps_them(host: Host) -> None:
    host.record("web*")
    host.event("mkdir", 7, "/x/web\udcff")
    host.event("mkdir", 8, r"/x/web\xff")
    assert host.selection.requests.matched_paths() == [r"/x/web\xff", r"/x/web\x5cxff"]


@pytest.mark.parametrize("argument", ["c-*", "/x/*"])
def test_many_short_lived_cgroups_leave_the_maps_bounded(host: Host, argument: str) -> None:
    host.record(argument)
    for cgroup_id in range(100, 5100):
        host.event("mkdir", cgroup_id, f"/x/c-{cgroup_id}")
        host.event("rmdir", cgroup_id, f"/x/c-{cgroup_id}")
    assert len(host.settled(5000)) == 5000
    assert len(host.programs.map("roots")) <= 1024
    assert len(host.programs.map("wanted_paths")) <= 1025


def test_full_roots_map_raises_with_a_remedy(host: Host) -> None:
    host.programs.map("roots").room = 0
    with pytest.raises(TracerError, match="the cgroup above them"):
        host.record("docker")


def test_without_selectors_every_cgroup_is_traced(tmp_path: Path) -> None:
    programs: Any = SimpleNamespace()
    selection = CgroupSelection(programs, Hierarchy(2, tmp_path, "/"), None)
    selection.begin()
    assert selection.find(["/", "/web"]) == {"/"}
    selection.take_event(CgroupEvent("mkdir", 5, Cgroup(7, 1, "/web", 0), "yes"))
    (taken,) = selection.settle()
    assert (taken.cgroup.path, selection.requests.matched_paths()) == ("/web", None)
    records = np.zeros(1, WIRE["charge"])
    assert selection.sift("charge", records) is records


def test_concerns_holds_for_requested_cgroups_and_those_above(host: Host) -> None:
    (host.hierarchy.mount / "a" / "web").mkdir(parents=True)
    selection = host.record("/a/web", "late")
    assert selection.concerns("/")
    assert selection.concerns("/a")
    assert selection.concerns("/a/web")
    assert selection.concerns("/a/web/child")
    assert not selection.concerns("/a/we")
    assert not selection.concerns("/a/web2")
    path = f"/docker/{ID2}"
    assert not selection.concerns(path)
    host.answer.clear()
    host.event("mkdir", 7, path)
    selection.settle()
    assert selection.concerns(path), "an undecided cgroup is of concern"
    host.names[ID2] = "late"
    host.answer.set()
    assert [taken.cgroup.id for taken in host.settled()] == [7]
    host.event("rmdir", 7, path)
    assert selection.concerns(path), "its kill may be logged after its removal"


def test_concerns_without_selectors_holds_for_every_cgroup(host: Host) -> None:
    host.selection = CgroupSelection(host.programs, host.hierarchy, None)
    assert host.selection.concerns("/any")


def test_concerns_in_a_partial_mount_uses_full_paths(host: Host) -> None:
    host.hierarchy = Hierarchy(1, host.hierarchy.mount, "/docker/a")
    (host.hierarchy.mount / "box").mkdir()
    selection = host.record("/box")
    asked = ("/", "/docker", "/docker/a", "/docker/a/box/b", "/docker/a/c", "/docker/b")
    assert [path for path in asked if selection.concerns(path)] == list(asked[:4])


def test_cgroup_that_is_gone_is_forgotten_after_thousands_of_others(host: Host) -> None:
    host.record("/a")
    host.event("mkdir", 7, "/a")
    for number in range(100, 101 + GONE_KEPT):
        host.event("mkdir", number, f"/a/{number}", parent=7, follow="yes")
        host.event("rmdir", number, f"/a/{number}", parent=7)
    host.selection.settle()
    gone = [number for number in range(100, 101 + GONE_KEPT) if host.selection.is_traced(number)]
    assert (host.selection.is_traced(7), len(gone), 100 in gone) == (True, GONE_KEPT, False)
    assert host.selection.hold.accepted == {7, *gone}
