"""Parallel runs: `pytest -n`, as `make test` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.parallel.lanes import _FOLDER, BESIDE, KERNEL, OTHERS, Lanes

PROJECT = Path(__file__).parents[3]

NOTE = """
import json, os, time
import pytest

@pytest.fixture(autouse=True)
def noted(request):
    begin_ns = time.monotonic_ns()
    yield
    end_ns = time.monotonic_ns()
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    with open({notes!r}, "a") as file:
        ran = [request.node.originalname, os.getpid(), begin_ns, end_ns, nice, "COLUMNS" in os.environ]
        file.write(json.dumps(ran) + "\\n")
"""
TESTS = """
import time
import pytest

@pytest.mark.parametrize("n", range(3))
def test_free(n): time.sleep(0.01)

@pytest.mark.kernel
@pytest.mark.parametrize("n", range(3))
def test_kernel(n): time.sleep(0.05)

@pytest.mark.alone
@pytest.mark.parametrize("n", range(2))
def test_alone(n): time.sleep(0.02)

@pytest.mark.kernel
@pytest.mark.alone
def test_kernel_alone(): time.sleep(0.02)
"""
LANES_ALONE = 'pytest_plugins = ["support.parallel.lanes", "support.parallel.time_table"]\n'


@dataclass(frozen=True)
class Ran:
    """A test that was run: its process, its time, its nice value, and whether COLUMNS was set."""

    name: str
    process: int
    begin_ns: int
    end_ns: int
    nice: int
    has_columns: bool


@dataclass(frozen=True)
class Outcome:
    """The exit status of a run, what it printed, and its tests in the order in which they began."""

    status: int
    output: str
    ran: list[Ran]

    def of(self, *names: str) -> list[Ran]:
        """Return the tests of these functions."""
        return [ran for ran in self.ran if ran.name in names]


def run(folder: Path, *options: str, is_whole: bool = False, **files: str) -> Outcome:
    """Return the outcome of a run of test files, NAME=TEXT each.

    `is_whole`: with tests/conftest.py and all plugins that are installed, as `make test` has them. Otherwise
    with the lanes alone, since each process of a run imports what it has.
    """
    conftest, ini = LANES_ALONE, f"pythonpath = {PROJECT / 'tests'}\n"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"MEMCG_TRACER_KERNEL_TESTS": "", "COLUMNS": "80", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if is_whole:
        conftest = (PROJECT / "tests" / "conftest.py").read_text(encoding="utf-8")
        conftest += "\ndef why_impossible():\n    return None\n"
        ini += "timeout = 60\n"
        del environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    notes = folder / "notes"
    notes.touch()
    (folder / "conftest.py").write_text(f"{conftest}\n{NOTE.format(notes=str(notes))}")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    markers = "markers =\n    kernel: x\n    alone: x\n    beside: x\n"
    (folder / "pytest.ini").write_text(f"[pytest]\n{markers}{ini}")
    plugins = ["-p", "no:cacheprovider", *([] if is_whole else ["-p", "xdist"])]
    command = [sys.executable, "-m", "pytest", *plugins, "-ra", *options, str(folder)]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    ran = [Ran(*json.loads(line)) for line in notes.read_text().splitlines()]
    ran.sort(key=lambda one: one.begin_ns)
    return Outcome(result.returncode, result.stdout + result.stderr, ran)


@pytest.mark.parametrize(("workers", "is_whole"), [(1, False), (2, True)])
def test_parallel_run_keeps_to_the_lanes(tmp_path: Path, workers: int, is_whole: bool) -> None:
    outcome = run(tmp_path, "-n", str(workers), is_whole=is_whole, one=TESTS, two=TESTS, three=TESTS)
    assert outcome.status == 0, outcome.output
    assert "27 passed" in outcome.output
    kernel, alone = outcome.of("test_kernel"), outcome.of("test_alone", "test_kernel_alone")
    assert (len(kernel), len(alone), len(outcome.ran)) == (9, 9, 27)
    assert len({one.process for one in outcome.ran}) == workers
    assert len({one.process for one in (*kernel, *alone)}) == 1
    assert {one.nice for one in (*kernel, *alone)} == {os.getpriority(os.PRIO_PROCESS, 0)}
    assert all(before.end_ns <= after.begin_ns for before, after in pairwise(alone))
    assert not any(one.has_columns for one in outcome.ran)
    others = [one for one in outcome.ran if one not in alone]
    assert max(one.end_ns for one in others) <= min(one.begin_ns for one in alone)


def test_parallel_run_without_tests_has_its_workers_and_the_status_of_pytest(tmp_path: Path) -> None:
    outcome = run(tmp_path, "-n", "auto", "-k", "nothing", a=TESTS)
    count = len(os.sched_getaffinity(0)) + 2
    assert f"created: {count}/{count} workers" in outcome.output
    assert outcome.status == pytest.ExitCode.NO_TESTS_COLLECTED


def test_parallel_run_has_a_file_in_one_process_beside_the_kernel_tests(tmp_path: Path) -> None:
    imported = "import os\nwith open('imported', 'a') as file: file.write(f'{os.getpid()} {__name__}\\n')\n"
    files = {f"z{n}": imported + "".join(f"def test_{n}_{m}(): pass\n" for m in range(20)) for n in range(20)}
    beside = "@pytest.mark.beside\n@pytest.mark.kernel\ndef test_beside(): Path('begun').touch()\n"
    until = "@pytest.mark.kernel\ndef test_until():\n    while not Path('begun').exists(): time.sleep(0.01)\n"
    imports = "import time\nfrom pathlib import Path\nimport pytest\n"
    outcome = run(tmp_path, "-n", "2", a=TESTS, b=imports + until + beside, is_whole=False, **files)
    assert outcome.status == 0, outcome.output
    lane = outcome.of("test_kernel")[0].process
    shares: dict[str, list[str]] = {}
    for line in (tmp_path / "imported").read_text().splitlines():
        process, name = line.split()
        shares.setdefault(process, []).append(name)
    one, other = shares.values()
    assert (len(one), len(other)) == (20, 20)
    assert {*one[:10]} == {*other[10:]}, "each begins with the files that the other ends with"
    assert [one.name for one in outcome.ran if one.process == lane][:3] == ["test_kernel"] * 3
    first = outcome.of("test_beside")[0]
    assert first.process != lane
    assert first == min((one for one in outcome.ran if one.process != lane), key=lambda one: one.begin_ns)
    second = [one.name for one in outcome.ran if one.process != lane][1]
    assert second in ("test_9_0", "test_8_0"), "the last files come first"
    base = os.getpriority(os.PRIO_PROCESS, 0)
    assert first.nice == base
    yielding = max(base, 10) if os.geteuid() == 0 else base
    assert {one.nice for one in outcome.ran if one.process != lane} == {base, yielding}
    for n in range(20):
        assert len({one.process for one in outcome.ran if one.name.startswith(f"test_{n}_")}) == 1
    assert {one.process for one in outcome.ran if one.name.endswith("_0")} > {lane}, (
        "it helps when it has no more"
    )


class Worker:
    """A worker of pytest-xdist that only notes which tests it is given."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices


def scheduled(order: Sequence[str], lane_of: Sequence[str], folder: Path) -> tuple[Lanes, dict[str, Worker]]:
    """Return the lanes of these tests, four in a file, and the workers by name, with what they are given."""
    workers = {name: Worker(name) for name in order}
    config: Any = SimpleNamespace(option=SimpleNamespace(tx=order), stash={_FOLDER: folder})
    lanes = Lanes(config)
    for name, worker in workers.items():
        (folder / name).write_text(json.dumps(lane_of))
        lanes.add_node(cast(Any, worker))
        tests = [f"test_{number // 4}.py::test" for number in range(len(lane_of))]
        lanes.add_node_collection(cast(Any, worker), tests)
    lanes.schedule()
    return lanes, workers


@pytest.mark.parametrize("order", [("gw0", "gw1"), ("gw1", "gw0")])
def test_lanes_do_not_depend_on_which_worker_is_ready_first(order: tuple[str, str], tmp_path: Path) -> None:
    _, workers = scheduled(order, [KERNEL] * 4 + [BESIDE] * 4 + [OTHERS] * 4, tmp_path)
    assert (workers["gw0"].given, workers["gw1"].given) == ([0, 1, 2, 3], [4, 5, 6, 7])


def test_first_worker_joins_the_tests_beside_its_own_before_the_others(tmp_path: Path) -> None:
    lane_of = [KERNEL] * 4 + [BESIDE] * 8 + [OTHERS] * 8
    lanes, workers = scheduled(("gw0", "gw1", "gw2"), lane_of, tmp_path)
    for number in range(4):
        lanes.mark_test_complete(cast(Any, workers["gw0"]), number)
    assert workers["gw0"].given == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (workers["gw1"].given, workers["gw2"].given) == ([16, 17, 18, 19], [8, 9, 10, 11])


def test_parallel_run_with_a_failure_fails_and_says_where_its_time_went(tmp_path: Path) -> None:
    bad = "import pytest, time\n@pytest.mark.kernel\ndef test_bad():\n    time.sleep(0.5)\n    assert 0\n"
    outcome = run(tmp_path, "-n", "2", one=TESTS, slow=bad)
    assert outcome.status == 1
    assert "1 failed, 9 passed" in outcome.output
    assert "FAILED test_slow.py::test_bad - " in outcome.output
    table = outcome.output.partition("where the time went")[2].partition("short test summary")[0]
    found = {line.split("  ")[0].strip(): line.split() for line in table.splitlines()}
    assert [int(found[lane][len(lane.split())]) for lane in ("kernel", "the others", "alone")] == [4, 3, 3]
    files = [line.split() for line in table.splitlines() if ".py" in line]
    assert {name for *_, name in files} == {"test_one.py", "test_slow.py"}
    spent_s = [float(words[0]) for words in files]
    assert spent_s == sorted(spent_s, reverse=True)
    assert max(spent_s) >= 0.5


def test_parallel_run_goes_on_when_workers_die(tmp_path: Path) -> None:
    dies = "import os, pytest\n"
    for name, marker in (("free", ""), ("kernel", "@pytest.mark.kernel"), ("alone", "@pytest.mark.alone")):
        dies += f"{marker}\ndef test_dies_{name}(): os._exit(3)\n"
    outcome = run(tmp_path, "-n", "2", a=TESTS, dies=dies, z=TESTS)
    assert outcome.status == 1
    assert "3 failed, 18 passed" in outcome.output
    for name in ("free", "kernel", "alone"):
        assert f"FAILED test_dies.py::test_dies_{name}" in outcome.output
    assert len(outcome.ran) == 18, "no test is run twice"


def test_parallel_run_ends_at_the_first_failure_if_asked(tmp_path: Path) -> None:
    bad = "def test_bad(): assert 0\n" + "\n".join(f"def test_{n}(): pass" for n in range(30))
    files = {f"z{n}": TESTS for n in range(10)}
    outcome = run(tmp_path, "-n", "2", "-x", "-m", "not kernel", is_whole=False, **files, zz=bad)
    assert outcome.status == pytest.ExitCode.INTERRUPTED
    assert "1 failed" in outcome.output
    assert len(outcome.ran) < 30


def test_run_without_workers_has_the_order_of_the_file(tmp_path: Path) -> None:
    outcome = run(tmp_path, a=TESTS)
    assert outcome.status == 0, outcome.output
    names = ["test_free"] * 3 + ["test_kernel"] * 3 + ["test_alone"] * 2 + ["test_kernel_alone"]
    assert [one.name for one in outcome.ran] == names
