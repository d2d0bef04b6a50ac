"""The page-cache experiment in real containers: the trace has names of containers that no longer exist."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from support.waiting import wait_for
from workloads import killed_in_ways
from workloads.killed_in_ways import SENT_BY_NONE, WAYS

from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.sigkill import Sigkill
from tracer.analysis.trace import AnalysedTrace
from tracer.cli.verbs import explain
from tracer.kernel.cgroups.mounts import read_mounts
from tracer.kernel.naming.docker_socket import from_docker_socket
from tracer.kernel.naming.host_files import HostFiles
from tracer.lab import checks
from tracer.lab.scratch import write_uncached
from tracer.render.words.sigkill_words import sentence

pytestmark = pytest.mark.kernel

LIMIT_BYTES = 100 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
IMAGE = "memcg-tracer-test"
EXPERIMENT = """
ulimit -v 409600  # should the container's limit not hold, this one protects the machine
dd if=/data/big of=/dev/null bs=64k 2>/dev/null
mkfifo /zeros
while dd if=/dev/zero bs=64k count=16 2>/dev/null; do sleep 0.01; done >/zeros &
exec tail </zeros
"""
"""Reads the big file, then keeps an endless last line in memory, which grows by 1 MiB at a time, slowly
enough to see each act."""
CHECKS = (
    checks.cause_is_named,
    checks.composition_adds_up,
    checks.evictions_equal_pgsteal,
    checks.cache_fills_to_the_limit,
    checks.cache_gives_way,
    checks.cache_is_used_up,
)


def explained(path: Path, *options: str) -> str:
    """Return the output of `memcg-tracer explain` without access to Docker."""
    result = CliRunner(env={"DOCKER_HOST": None}).invoke(explain.command, [str(path), *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_explained(path: Path, container: dict[str, Any], name: str) -> None:
    """Assert that the trace has the whole experiment in a container, given by its `docker inspect`."""
    trace = AnalysedTrace(path)
    reports = [report for report in trace.explain() if report.limit_owner.container == name]
    assert len(reports) == 1, trace.cgroups
    report = reports[0]
    assert_owner(report, container)
    assert report.victims[0].comm == "tail"
    assert report.victims[0].cgroup == report.limit_owner.cgroup
    assert_allocators_named(trace, report)
    evidence = checks.Evidence(trace, [report], LIMIT_BYTES, "anon_growth")
    failed = [check for check in (check(evidence) for check in CHECKS) if not check.passed]
    assert not failed, failed

    text = " ".join(explained(path, "--kill", str(report.kill_id)).split())
    for words in (f"container {name}", f"/docker/{container['Id']}", "limit of 100 MiB", "tail (pid "):
        assert words in text
    document = json.loads(explained(path, "--json", "--kill", str(report.kill_id)))
    assert document["kills"][0]["limit_owner"]["container"] == name


def assert_owner(report: OomReport, container: dict[str, Any]) -> None:
    owner = report.limit_owner
    assert owner.image == IMAGE
    assert owner.cgroup == f"/docker/{container['Id']}"
    assert owner.limit_bytes == LIMIT_BYTES
    assert owner.is_ancestor is False
    assert report.constraint == "memcg"
    # While the kernel prints its report, each other CPU returns its stock of charges, less than
    # MEMCG_CHARGE_BATCH pages (mm/memcontrol.c, drain_all_stock).
    stock_bytes = 64 * os.sysconf("SC_PAGE_SIZE") * (os.cpu_count() or 1)
    assert owner.usage_bytes is not None
    assert LIMIT_BYTES - stock_bytes <= owner.usage_bytes <= LIMIT_BYTES


def assert_allocators_named(trace: AnalysedTrace, report: OomReport) -> None:
    """Assert that the container's process has a start and an end in the trace."""
    allocator = report.allocators[0]
    assert (allocator.tgid, allocator.comm) == (report.victims[0].pid, "tail")
    tasks = trace.tasks[trace.tasks["tgid"] == allocator.tgid]
    assert len(tasks) == 1
    # SIGKILL is sent before the victim is marked (__oom_kill_process in mm/oom_kill.c): on another CPU
    # than the trigger's it may exit before that.
    first_seen, exited = tasks["first_seen"].iloc[0], tasks["exited"].iloc[0]
    assert report.time is not None
    assert first_seen < min(exited, report.time)
    assert abs(exited - report.time) < pd.Timedelta("2s")


@pytest.mark.usefixtures("big_file")
@pytest.mark.parametrize(
    ("name", "options"), [("Uneven_23.all", ()), ("Uneven_23.parent", ("-c", "/docker"))]
)
def test_container_that_lives_during_a_full_recording_is_explained(
    engine: Any, start_recorder: Callable[..., Any], name: str, options: tuple[str, ...]
) -> None:
    recorder = start_recorder(*options, env=engine.env)
    engine.run(name, EXPERIMENT, ok=False)
    container = engine.inspect(name)
    engine.docker("rm", "-f", name)
    assert container["State"]["ExitCode"] == 137  # OOMKilled is false if its event comes after the end
    path = recorder.stop()
    assert_explained(path, container, name)
    cgroups = AnalysedTrace(path).cgroups
    row = cgroups[cgroups["container"] == name].iloc[0]
    assert (row["runtime"], row["container_id"]) == ("docker", container["Id"])
    assert row["created"] < row["removed"]


@pytest.mark.usefixtures("big_file")
def test_running_container_is_recorded_by_its_name(engine: Any, start_recorder: Callable[..., Any]) -> None:
    name = "uneven-37_MiB.x"
    os.mkfifo(engine.files / "go")
    engine.run(name, f"read go </data/go\n{EXPERIMENT}", "-d")
    container = engine.inspect(name)
    recorder = start_recorder("-c", name, env=engine.env)
    (engine.files / "go").write_text("go\n", encoding="ascii")
    assert engine.docker("wait", name) == "137"
    engine.docker("rm", "-f", name)
    path = recorder.stop()
    assert_explained(path, container, name)
    trace = AnalysedTrace(path)
    assert trace.explain()[0].victims[0].pid == container["State"]["Pid"]
    assert set(trace.cgroups.loc[trace.cgroups["container"].notna(), "container"]) == {name}


def test_short_lived_containers_are_named(
    engine: Any, start_recorder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"gone-{number}" for number in range(3)}
    recorder = start_recorder("-c", "/docker", env=engine.env)
    for name in names:
        engine.run(name, "exit 0", "--rm")
    cgroups = AnalysedTrace(recorder.stop()).cgroups
    containers = cgroups[cgroups["container_id"].notna()]
    assert set(containers["container"]) == names
    monkeypatch.setenv("DOCKER_HOST", engine.env["DOCKER_HOST"])
    of_removed = from_docker_socket(HostFiles(), set(containers["container_id"]))
    assert {one.container for one in of_removed.values()} == names
    assert (containers["created"] < containers["removed"]).all()


def test_files_of_a_container_have_host_and_container_path(
    engine: Any, start_recorder: Callable[..., Any]
) -> None:
    os.mkfifo(engine.files / "end")
    write_uncached(engine.files / "read-in", 53 * PAGE)
    recorder = start_recorder("-c", "/docker", env=engine.env)
    script = (
        f"dd if=/data/read-in of=/made bs={PAGE} 2>/dev/null; echo done >/data/done; read -r _ </data/end"
    )
    engine.docker(
        "run",
        "-d",
        "--network",
        "none",
        "-v",
        f"{engine.files}:/data",
        "--name",
        "files",
        IMAGE,
        "/bin/sh",
        "-c",
        script,
    )
    recorder.wait_for((engine.files / "done").exists)
    path = recorder.stop()
    (engine.files / "end").write_text("\n", encoding="ascii")
    trace = AnalysedTrace(path)
    inodes = trace.inodes.set_index("container_path")
    read, made = inodes.loc["/data/read-in"], inodes.loc["/made"]
    assert (read["path"], read["path_kind"]) == (str(engine.files / "read-in"), "host")
    assert str(made["path"]).endswith("/made")
    assert Path(made["path"]).stat().st_ino == made["ino"]
    added = trace.pagecache[trace.pagecache["op"] == "add"].groupby("inode_id")["nr_pages"].sum()
    assert [added[row["inode_id"]] for row in (read, made)] == [53, 53]


def _is_ready(engine: Any, name: str) -> bool:
    return bool(engine.docker("logs", name) == "ready")


@pytest.mark.vm_once
def test_ends_of_containers_by_docker_are_by_runc_and_a_late_stop_is_told(
    engine: Any, start_recorder: Callable[..., Any]
) -> None:
    deaf = 'trap "" TERM; echo ready; exec sleep 1000'
    ends = {"stopped": ("stop", "-t", "1"), "killed": ("kill",), "removed": ("rm", "-f")}
    recorder = start_recorder("-c", "/docker", env=engine.env)
    for name, (verb, *options) in ends.items():
        engine.run(name, deaf, "-d")
        wait_for(partial(_is_ready, engine, name))
        engine.docker(verb, *options, name)
    trace = AnalysedTrace(recorder.stop())
    found = {kill.target.container: kill for kill in trace.sigkilled()}
    assert {name: kill.target.comm for name, kill in found.items()} == dict.fromkeys(ends, "sleep")
    assert len(trace.sigkills) == len(ends)
    for kill in found.values():
        assert kill.sender is not None
        assert kill.sender.comm == "runc"
        assert kill.parents[0].comm == "containerd-shim"
    assert {name for name, kill in found.items() if kill.since_sigterm_s is not None} == {"stopped"}
    assert (found["stopped"].since_sigterm_s or 0) >= 1
    assert "after SIGTERM: a stop that took too long" in sentence(found["stopped"])
    assert sentence(found["killed"]).count("its container runtime killed it") == 1


PYTHON = os.path.realpath(sys.executable)
SEEN = tuple(
    word
    for folder in (*dict.fromkeys((sys.base_prefix, "/usr")), "/lib", "/lib64")
    if Path(folder).exists()
    for word in ("-v", f"{os.path.realpath(folder)}:{folder}:ro")
)
"""Options that show a container this Python and its libraries."""
WORDS = {
    "group": "to its process group",
    "parent_death": "because its parent",
    "pid_namespace": "the init of its pid namespace, ended",
    "cgroup_kill": "to all of its cgroup (cgroup.kill)",
    "seccomp": "seccomp, which forbids its system call, ended strict_seccomp",
    "other": "the kernel sent SIGKILL to cpu_time",
}
"""Way -> words about it; "kill" and "pidfd" need none."""


@contextmanager
def v2_cgroup(engine: Any, name: str) -> Iterator[Path | None]:
    """Yield a cgroup of version 2 that has the processes of a container; None: there is no such hierarchy."""
    container = engine.inspect(name)
    mount = next((Path(one.mount_point) for one in read_mounts() if one.fs_type == "cgroup2"), None)
    if mount is None:
        yield None
        return
    if (own := mount / "docker" / container["Id"]).exists():
        yield own
        return
    made = mount / f"memcg-tracer-{os.getpid()}-killed"  # Docker uses version 1
    made.mkdir()
    try:
        (made / "cgroup.procs").write_text(str(container["State"]["Pid"]), encoding="ascii")
        yield made
    finally:
        engine.docker("rm", "-f", name)
        made.rmdir()


@pytest.mark.vm_once
def test_kills_inside_of_a_container_have_their_sender_and_way(
    engine: Any, start_recorder: Callable[..., Any]
) -> None:
    """Its first process ends others in each way, and leaves one behind. In another container, `docker exec`
    ends a process as a probe may, and cgroup.kill the rest."""
    program = Path(killed_in_ways.__file__)
    options = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    recorder = start_recorder("-c", "/docker", env=engine.env)
    output = engine.run(
        "ways", f"exec {PYTHON} -I -S /ways/{program.name} -",
        *("-m", "64m", "--memory-swap", "64m", "--rm", "-v", f"{program.parent}:/ways:ro"), *SEEN, *options,
        ok=False,
    )  # fmt: skip
    names = set(json.loads(output))
    engine.run("probed", "sleep 1000 & echo $! >/pid; echo ready; exec sleep 2000", "-d")
    wait_for(partial(_is_ready, engine, "probed"))
    engine.docker("exec", "probed", "/bin/sh", "-c", "read -r pid </pid; kill -9 $pid")
    with v2_cgroup(engine, "probed") as directory:
        if directory is not None:
            (directory / "cgroup.kill").write_text("1", encoding="ascii")
            assert engine.docker("wait", "probed") == "137"
    trace = AnalysedTrace(recorder.stop())
    kills = {
        container: [kill for kill in trace.sigkilled() if kill.target.container == container]
        for container in ("ways", "probed")
    }
    assert sum(map(len, kills.values())) == len(trace.sigkills), "one row a process, and no other"

    ended = {_name_in(kill): kill for kill in kills["ways"]}
    ways = {name[:15]: way for name, way in WAYS.items() if name in names}
    assert {name: kill.way for name, kill in ended.items()} == ways
    assert len(kills["ways"]) == len(ways)
    for name, kill in ended.items():
        assert WORDS.get(kill.way, "sent SIGKILL to ") in sentence(kill)
        if name in {one[:15] for one in SENT_BY_NONE}:
            assert kill.sender is None
            continue
        assert kill.sender is not None and kill.sender.container == "ways"
        has_own_name = name in ("itself", "timeout", "parent_death", "pid_namespace")
        assert kill.sender.comm == (name if has_own_name else Path(PYTHON).name[:15])
        if not has_own_name:
            assert kill.parents[0].comm == "containerd-shim"

    by_exec, *by_cgroup = kills["probed"]
    assert (by_exec.target.comm, by_exec.way) == ("sleep", "kill")
    assert by_exec.sender is not None
    assert (by_exec.sender.comm, by_exec.sender.container) == ("sh", "probed")
    expected = [] if directory is None else [("sleep", "cgroup_kill", os.getpid())]
    assert [(kill.target.comm, kill.way, kill.sender and kill.sender.pid) for kill in by_cgroup] == expected
    assert all(WORDS["cgroup_kill"] in sentence(kill) for kill in by_cgroup)


def _name_in(kill: Sigkill) -> str:
    """Return the name of a process of the workload; a program that `timeout` starts has its own."""
    return "timeout" if kill.sender is not None and kill.sender.comm == "timeout" else kill.target.comm
