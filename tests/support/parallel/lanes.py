"""Which worker runs which test in parallel runs (`pytest -n`), by pytest-xdist's hook for schedulers.

The first worker runs the kernel tests, one after the other: they kill, and share the room of the kernel
log, swap, and the names of cgroups. The other workers run the other tests, a file at a time, since fixtures
are made once a process. The last worker begins with the kernel tests marked `beside`, which look at no
cgroup but their own, kill nothing in it, and change nothing of the machine. The first worker takes some of
them when it has no more of its own. At the end, with nothing beside it, it runs the tests marked `alone`.

Files are taken from the last to the first: those of tests/analysis, which come first, are the shortest, so no
worker is left with a long file when the others have ended.

Each worker collects all tests. It begins with a share of their files of its own, so that in a new checkout
pytest compiles a file (to rewrite its assertions) in one worker, and not in all at the same time.

Tests without the kernel have a low priority in these workers. A recorder has the priority of its caller, and
loses records where it gets no CPU, so kernel tests have the normal one everywhere.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController  # at run time only a parallel run needs it

KERNEL: Final = "kernel"
ALONE: Final = "alone"
"""The markers whose tests have a lane of their own, in the first worker."""
BESIDE: Final = "beside"
"""The marker of kernel tests that the last worker begins with."""
OTHERS: Final = ""
FIRST: Final = "gw0"
"""The worker that pytest-xdist starts first."""

_AHEAD: Final = 4
"""Tests that a worker is given ahead: it begins with a test once it has the next one, or is to end."""
_NICE: Final = 10
"""Of tests beside the kernel tests: a tenth of the CPU, if both want it."""
_FOLDER: Final = pytest.StashKey[Path]()
_BASE: Final = pytest.StashKey[int]()
"""The nice value that this worker was started with."""


def _input_of(config: pytest.Config) -> dict[str, Any]:
    """Return what pytest-xdist gave to this worker; an empty dictionary in other processes."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return given


def pytest_configure(config: pytest.Config) -> None:
    """Give workers the environment of other runs."""
    if _input_of(config).get("workerid"):
        for size in ("COLUMNS", "LINES"):  # readline sets them for the children of the first process
            os.environ.pop(size, None)
    config.stash[_BASE] = os.getpriority(os.PRIO_PROCESS, 0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a test beside the kernel tests yield to these, unless it is one."""
    if _input_of(item.config).get("workerid", FIRST) != FIRST and os.geteuid() == 0:
        base = item.config.stash[_BASE]
        is_kernel = item.get_closest_marker(KERNEL) is not None
        os.setpriority(os.PRIO_PROCESS, 0, base if is_kernel else max(base, _NICE))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker the file for the lanes of its tests: pytest-xdist sends names only."""
    stash = node.config.stash
    if _FOLDER not in stash:
        folder = tempfile.TemporaryDirectory(prefix="memcg-tracer-lanes-")
        node.config.add_cleanup(folder.cleanup)
        stash[_FOLDER] = Path(folder.name)
    node.workerinput["lanes"] = str(stash[_FOLDER] / node.gateway.id)


def pytest_collection(session: pytest.Session) -> None:
    """Import the share of a worker before it collects all files."""
    given = _input_of(session.config)
    if "workerid" not in given:
        return
    number = int(given["workerid"].removeprefix("gw"))
    for file in sorted(_files_of(session.config))[number % given["workercount"] :: given["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):  # to be seen when it is collected
            _ = pytest.Module.from_parent(session, path=file).obj


def _files_of(config: pytest.Config) -> Iterator[Path]:
    """Yield the test files that are collected."""
    for argument in config.args:
        place = config.invocation_params.dir / argument.partition("::")[0]
        yield from place.rglob("test_*.py") if place.is_dir() else [place]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the lanes of this worker's tests, before it sends their names."""
    if file := _input_of(session.config).get("lanes"):
        Path(file).write_text(json.dumps([lane_of(item) for item in session.items]), encoding="ascii")


def lane_of(item: pytest.Item) -> str:
    """Return the lane of a test."""
    if item.get_closest_marker(ALONE):
        return ALONE
    if item.get_closest_marker(KERNEL) is None:
        return OTHERS
    return BESIDE if item.get_closest_marker(BESIDE) else KERNEL


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers of `-n auto`: one for each CPU, one for the kernel tests, and one that
    begins with those beside them. Kernel tests wait for most of their time."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> Lanes:
    """Return the scheduler of a parallel run."""
    return Lanes(config)


class Lanes:
    """pytest-xdist's Scheduling: what it is called with, and when, is in xdist/scheduler/protocol.py."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._expected = len(config.option.tx)
        self._collected: dict[WorkerController, Sequence[str]] = {}
        self._tests: Sequence[str] = ()
        self._lane_of: Sequence[str] = ()
        self._is_scheduled = False
        self._lanes: dict[str, deque[int]] = {KERNEL: deque(), ALONE: deque()}
        self._files: dict[str, deque[deque[int]]] = {BESIDE: deque(), OTHERS: deque()}  # not begun with
        self._begun: dict[WorkerController, deque[int]] = {}  # the rest of the file that it has begun with
        self._given: dict[WorkerController, list[int]] = {}

    @property
    def nodes(self) -> list[WorkerController]:
        return list(self._given)

    @property
    def collection_is_completed(self) -> bool:
        return len(self._collected) >= self._expected

    @property
    def has_pending(self) -> bool:
        return self._has_waiting or any(self._given.values())

    @property
    def tests_finished(self) -> bool:
        if not self._is_scheduled or self._has_waiting:
            return False
        return all(len(given) < 2 for given in self._given.values())

    @property
    def _has_waiting(self) -> bool:
        """Whether there are tests that no worker was given."""
        return any(map(any, (self._files.values(), self._lanes.values(), self._begun.values())))

    def add_node(self, node: WorkerController) -> None:
        self._given[node] = []
        self._begun[node] = deque()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        self._collected[node] = collection

    def schedule(self) -> None:
        """Give tests to the workers: at the beginning, and when one has taken the place of one that died."""
        if not self._is_scheduled:
            from xdist.report import report_collection_diff

            (first, tests), *others = self._collected.items()
            for other, its in others:
                if difference := report_collection_diff(tests, its, first.gateway.id, other.gateway.id):
                    report = pytest.CollectReport(other.gateway.id, "failed", difference, [])
                    self._config.hook.pytest_collectreport(report=report)
            self._tests, self._is_scheduled = tests, True
            file = self._config.stash[_FOLDER] / first.gateway.id
            self._lane_of = json.loads(file.read_text(encoding="ascii"))
            self._put_back(range(len(tests)))
        self._give_all()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        self._given[node].remove(item_index)
        self._give_all()

    def mark_test_pending(self, item: str) -> None:
        self._put_back([self._tests.index(item)])
        self._give_all()

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        raise NotImplementedError("no test is taken back from a worker")

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a worker that ended; return the test during which it died, or None if it was at an end."""
        given, begun = self._given.pop(node), self._begun.pop(node)
        if not given:
            return None
        self._put_back([*given[1:], *begun])
        self._give_all()
        return self._tests[given[0]]

    def _put_back(self, indices: Iterable[int]) -> None:
        """Let tests wait for a worker: those of KERNEL and ALONE one by one, the others a file at a time, the
        last file first."""
        by_file: dict[str, list[int]] = {lane: [] for lane in self._files}
        for index in indices:
            lane = self._lane_of[index]
            (self._lanes[lane] if lane in self._lanes else by_file[lane]).append(index)
        for lane, found in by_file.items():
            for _, file in groupby(found, lambda index: self._tests[index].partition("::")[0]):
                self._files[lane].appendleft(deque(file))

    def _give_all(self) -> None:
        """Give tests to each worker that has few; end the workers for which none are left."""
        working = [node for node in self._given if not node.shutting_down]
        if not working:
            return
        first = next((node for node in working if node.gateway.id == FIRST), working[0])
        last = ([node for node in working if node is not first] or working)[-1]  # `working` has any order
        for node in working:
            given = self._given[node]
            chosen: list[int] = []
            while (
                len(given) + len(chosen) < _AHEAD
                and (index := self._next(node, node is first, node is last)) is not None
            ):
                chosen.append(index)
            if chosen:
                try:
                    node.send_runtest_some(chosen)
                except OSError:  # it died, and will be removed
                    self._put_back(chosen)
                else:
                    given += chosen
            elif len(given) < 2 and not (node is first and self._lanes[ALONE]):
                node.shutdown()  # it runs what it was given

    def _next(self, node: WorkerController, is_first: bool, is_last: bool) -> int | None:
        """Return the next test for a worker, or None if it has none for the present."""
        begun = self._begun[node]
        if is_first and self._lanes[KERNEL]:
            return self._lanes[KERNEL].popleft()
        for lane in (BESIDE, OTHERS) if is_first or is_last else (OTHERS, BESIDE):
            if not begun and self._files[lane]:
                begun.extend(self._files[lane].popleft())
        if begun:
            return begun.popleft()
        others = (given for other, given in self._given.items() if other is not node)
        if is_first and self._lanes[ALONE] and not any(others):
            return self._lanes[ALONE].popleft()
        return None
