"""The switch for kernel tests, the time limits of all tests, and shared fixtures."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.bcc_library import loaded_library, why_too_old
from support.recorded import refuse_to_list
from support.slowdown import SLOWDOWN

from tracer.capture.bpf.compiled.bcc_module import find_bcc
from tracer.cli import standard_streams
from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup
from tracer.lab.scratch import scratch_directory

SWITCH = "MEMCG_TRACER_KERNEL_TESTS"
# Loaded with this file, since pytest-xdist asks for the number of workers before `pytest_configure`.
pytest_plugins = ["support.parallel.lanes", "support.parallel.time_table"]

# A busy machine may take long for one example, and to make it.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=10)
settings.load_profile("quick")  # `make test-varied` loads the other one, which has the 100 of hypothesis


def pytest_configure(config: pytest.Config) -> None:
    """Restore the signals that a script's background job or nohup ignores: tests' programs would inherit
    that, and `record` and `top` go on at a SIGHUP that is ignored. Switch progress off, whose lines depend on
    how busy the machine is."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ[standard_streams.SWITCH] = "off"
    refuse_to_list()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Multiply the time limit of each test, its own or the default, by the slowdown of this machine."""
    for item in items:
        own = item.get_closest_marker("timeout")
        limit_s = own.args[0] if own is not None else config.getini("timeout")
        item.add_marker(pytest.mark.timeout(float(limit_s) * SLOWDOWN), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Collect no garbage while tests are collected: each pass would visit all that were."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of garbage collection from now on, and look at young objects
    less often: at Python's own threshold of 700, that takes 3 % of the time of tests/analysis."""
    gc.freeze()  # with what is garbage now, a seventh: `collect` would take each process half a second
    gc.set_threshold(10_000, 5, 2)  # old objects as often as by Python's own thresholds (700, 10, 10)
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") is None:
        return
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "0", "1"):
        pytest.exit(f"{SWITCH} is {switch!r}: it may be 1, 0 or unset", returncode=4)
    if switch == "0":
        pytest.skip(f"kernel tests are switched off by {SWITCH}=0")
    reason = why_impossible()
    if reason is None:
        return
    if switch == "1":
        pytest.fail(f"{SWITCH}=1 and this kernel test cannot run: {reason}", pytrace=False)
    pytest.skip(reason)


@cache
def why_impossible() -> str | None:
    """Return what this machine lacks for the kernel tests, or None if they are possible."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "needs BTF: there is no /sys/kernel/btf/vmlinux"
    try:
        find_bcc()
        with ephemeral_cgroup("probe", None):
            return why_too_old(loaded_library())
    except TracerError as error:
        return str(error)


@pytest.fixture
def memcg() -> Iterator[Path]:
    """Yield a new memory cgroup without a limit; kill the processes that are left in it at the end."""
    with ephemeral_cgroup("test", None, hierarchy=memory_hierarchy()) as directory:
        yield directory


class BarrierWorkload:
    """`tracer.lab.workload` in a cgroup, which it leaves unchanged while it waits at a barrier."""

    def __init__(self, memcg: Path, steps: tuple[str, ...]) -> None:
        enter = f'echo 0 > "{memcg}/cgroup.procs" && exec "$0" "$@"'
        command = ["sh", "-c", enter, sys.executable, "-m", "tracer.lab.workload", "--barrier", *steps]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._waits = False

    def advance(self) -> str:
        """Run the workload to its next barrier, and return the line printed there; "" once it has ended."""
        assert self.process.stdout is not None
        if self._waits:
            self.release()
        self._waits = True
        return self.process.stdout.readline().strip()

    def release(self) -> None:
        """Let the workload go on from its barrier, without waiting for the next one."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._waits = False


@pytest.fixture
def start_workload() -> Iterator[Callable[..., BarrierWorkload]]:
    """Return `start_workload(memcg, *steps)`; kill the started workloads at the end of the test."""
    started: list[BarrierWorkload] = []

    def start(memcg: Path, *steps: str) -> BarrierWorkload:
        started.append(BarrierWorkload(memcg, steps))
        return started[-1]

    yield start
    for workload in started:
        workload.process.kill()
        workload.process.communicate()


@pytest.fixture
def disk_dir(tmp_path: Path) -> Iterator[Path]:
    """Yield a temporary directory on a filesystem that is not in memory."""
    with scratch_directory(tmp_path) as directory:
        yield directory


@pytest.fixture
def matches_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return `matches_golden(name, text)`, which compares with golden/NAME beside the test.

    An absolute path may replace the name.
    """
    # Imported here, because test_conftest.py runs this file in folders that have no golden.py.
    from support.golden import compare

    folder = request.path.parent / "golden"
    return lambda name, text: compare(folder / name, text, request.node.nodeid)
