"""Containers that are killed and restarted, recorded by their name: the trace has each life completely."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from support.report_room import BURST, wait_for_room

from tracer.analysis.trace import AnalysedTrace
from tracer.cli.group import group

pytestmark = pytest.mark.kernel

IMAGE = "memcg-tracer-test"
LIMIT_BYTES = 48 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
FILE_BLOCKS = 97
FILE_PAGES = FILE_BLOCKS * (64 << 10) // PAGE
RESTARTS = 3  # Docker waits for 0.1, 0.2 and 0.4 s before them, and twice as long before each further one
CRASH = f"""
ulimit -v 409600  # protects the machine if the container's limit does not work
dd if=/dev/zero of=/known bs=64k count={FILE_BLOCKS} 2>/dev/null
exec tail </dev/zero
"""
"""Writes a file of a known size, whose cache is new in each life, then grows until it is killed."""

LIMITS = ("-m", "48m", "--memory-swap", "48m", "--network", "none")


class Loop:
    """A container that crashes, on the engine of the tests."""

    def __init__(self, engine: Any, name: str) -> None:
        self.engine = engine
        self.name = name

    def run(self, *options: str) -> None:
        command = (IMAGE, "/bin/sh", "-c", CRASH)
        self.engine.docker("run", "-d", *LIMITS, "--name", self.name, *options, *command)

    def wait(self) -> dict[str, Any]:
        """Wait until Docker stops restarting it, and return `docker inspect`."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            container: dict[str, Any] = self.engine.inspect(self.name)
            state = container["State"]
            if not state["Running"] and not state["Restarting"] and state["ExitCode"] == 137:
                return container
            time.sleep(0.05)
        raise AssertionError(container)


def kills_by_the_kernel_log(trace: AnalysedTrace, container_ids: set[str]) -> list[int]:
    """Return the victims of the containers' kills, from the kernel's reports in the trace."""
    text = "\n".join(trace.kernel_log["text"])
    pattern = r"oom-kill:constraint=CONSTRAINT_MEMCG,.*,oom_memcg=/docker/([0-9a-f]{64}),.*,pid=(\d+)"
    return [int(pid) for container, pid in re.findall(pattern, text) if container in container_ids]


def assert_logged_kills_are_recorded(trace: AnalysedTrace, container_ids: set[str]) -> None:
    """Assert that the trace has the kills that the kernel reported, at most ten in 5 s (mm/oom_kill.c)."""
    logged = kills_by_the_kernel_log(trace, container_ids)
    assert logged
    assert logged == [pid for pid in trace.oom["tgid"] if pid in logged]


def assert_lives(trace: AnalysedTrace, ids: list[str]) -> None:
    """Assert that each container id has one life, with its kill and all its charges."""
    paths = [f"/docker/{container}" for container in ids]
    lives = trace.cgroups[trace.cgroups["path"].isin(paths)].sort_values("created")
    assert list(lives["path"]) == paths
    assert (lives["created"] < lives["removed"]).all()
    oom = trace.oom.reset_index()
    assert list(oom["limit_owner_cgroup_id"]) == list(lives["cgroup_id"])
    assert_logged_kills_are_recorded(trace, set(ids))
    assert (oom["limit_bytes"] == LIMIT_BYTES).all()
    for kill, life in zip(oom.itertuples(), lives.itertuples(), strict=True):
        charge = trace.charge[trace.charge["cgroup_id"] == life.cgroup_id]
        until = charge[charge.index <= kill.time]
        held = until.groupby("category", observed=True)["bytes"].sum()
        total = int(held["anon"] + held["file"] + held["kernel"])
        # The BPF programs keep sums for up to 10 ms, those of freed memory as well.
        assert abs(total - LIMIT_BYTES) < 2 << 20, held
        sample = trace.samples[trace.samples["kill_id"] == kill.kill_id].iloc[0]
        assert sample["cgroup_id"] == life.cgroup_id
        assert (
            abs(total - int(sample["anon_bytes"] + sample["file_bytes"] + sample["kernel_bytes"])) < 2 << 20
        )
        added = trace.pagecache[
            (trace.pagecache["cgroup_id"] == life.cgroup_id)
            & (trace.pagecache["op"] == "add")
            & trace.pagecache["inode_id"].isin(inode_of(trace, "known"))
        ]
        assert added["nr_pages"].sum() == FILE_PAGES


def inode_of(trace: AnalysedTrace, name: str) -> list[int]:
    """Return the inode ids of the files of that name."""
    return list(trace.inodes.loc[trace.inodes["path"].str.endswith(f"/{name}", na=False), "inode_id"])


@pytest.mark.parametrize("is_there", [False, True], ids=["before-it-exists", "while-it-lives"])
def test_restarts_of_a_container_are_recorded_by_its_name(
    engine: Any, start_recorder: Callable[..., Any], is_there: bool
) -> None:
    name = f"crasher_{'lives' if is_there else 'comes'}"
    loop = Loop(engine, name)
    restart = f"--restart=on-failure:{RESTARTS}"
    if is_there:
        os.mkfifo(engine.files / "start")
        volume = ("-v", f"{engine.files}:/data:ro")
        script = f"[ -e /crashed ] || read -r go </data/start\n>/crashed\n{CRASH}"
        engine.docker("run", "-d", *LIMITS, *volume, "--name", name, restart, IMAGE, "/bin/sh", "-c", script)
        recorder = start_recorder("-c", name, env=engine.env)
        (engine.files / "start").write_text("go\n", encoding="ascii")
    else:
        recorder = start_recorder("-c", name, env=engine.env)
        loop.run(restart)
    container = loop.wait()
    assert container["RestartCount"] == RESTARTS
    trace = AnalysedTrace(recorder.stop())
    lives = 1 + RESTARTS
    assert_logged_kills_are_recorded(trace, {container["Id"]})
    if is_there:
        assert len(trace.oom) == lives
    else:
        assert_lives(trace, [container["Id"]] * lives)
    rows = trace.cgroups[trace.cgroups["container_id"] == container["Id"]]
    assert set(rows["container"]) == {name}
    assert set(rows["image"]) == {IMAGE}
    assert len(rows) == lives
    assert trace.meta["lost"] == {}
    assert trace.meta["filters"]["asked"] == [name]
    assert trace.meta["filters"]["cgroups"] == [f"/docker/{container['Id']}"]


def test_container_made_again_with_the_same_name_is_recorded(
    engine: Any, start_recorder: Callable[..., Any]
) -> None:
    """Each has a new id, unknown before; a neighbour that crashes as well is not recorded."""
    loop, neighbour = Loop(engine, "worker-31"), Loop(engine, "other-31")
    recorder = start_recorder("-c", "worker-31", env=engine.env)
    ids = []
    for _ in range(3):
        loop.run()
        ids.append(loop.wait()["Id"])
        neighbour.run()
        other = neighbour.wait()["Id"]
        engine.docker("rm", "-f", "worker-31", "other-31")
    trace = AnalysedTrace(recorder.stop())
    assert len(set(ids)) == 3
    assert_lives(trace, ids)
    assert set(trace.cgroups["container_id"].dropna()) == set(ids)
    assert other not in ids
    assert recorder.stderr.count("waiting for it to come again") >= 1


def test_glob_over_container_names_records_all_matches(
    engine: Any, start_recorder: Callable[..., Any]
) -> None:
    def recorded() -> list[str]:
        return list(AnalysedTrace(recorder.path).cgroups["container"].dropna())

    recorder = start_recorder("-c", "shop-*", env=engine.env)
    names = ("shop-db", "stop-db", "shop-web")
    try:
        for name in names:
            engine.run(
                name, "exit 0"
            )  # without --rm: the files with its name stay, for a recorder that is late
        recorder.wait_for(lambda: len(recorded()) == 2)
    finally:
        engine.docker("rm", "-f", *names)
    recorder.stop()
    assert recorded() == ["shop-db", "shop-web"]
    assert Path(recorder.path).is_dir()


class KillsOfTheMachine:
    """The victims of all OOM kills on the machine since now, in order, from the kernel log."""

    def __init__(self) -> None:
        self.log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.log, 0, os.SEEK_END)
        self._pids: list[int] = []

    def read(self) -> list[int]:
        """Read the log, and return the victims."""
        while True:
            try:
                record = os.read(self.log, 8192)
            except BlockingIOError:
                return self._pids
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            self._pids += [int(pid) for pid in re.findall(rb": Killed process (\d+)", record)]


@pytest.fixture
def kills_of_the_machine() -> Iterator[KillsOfTheMachine]:
    kills = KillsOfTheMachine()
    yield kills
    os.close(kills.log)


def test_reading_verbs_distinguish_the_lives(
    engine: Any,
    start_recorder: Callable[..., Any],
    tmp_path: Path,
    kills_of_the_machine: KillsOfTheMachine,
) -> None:
    """Verbs show each kill once, in its run; the kernel log gives the same kills as the table `oom`."""
    loop = Loop(engine, "crasher_read")
    recorder = start_recorder("-c", "crasher_read", env=engine.env)
    printed = wait_for_room(1 + RESTARTS)
    loop.run(f"--restart=on-failure:{RESTARTS}")
    container = loop.wait()
    path, lives = recorder.stop(), 1 + RESTARTS
    trace = AnalysedTrace(path)
    killed = kills_of_the_machine.read()
    pids = kills_by_the_kernel_log(trace, {container["Id"]})
    assert [pid for pid in killed if pid in set(trace.oom["pid"])] == list(trace.oom["pid"])
    if len(pids) < lives and printed + len(killed) > BURST:
        pytest.skip(f"{len(killed)} OOM kills on this machine: the kernel left out reports of this test's")
    assert len(pids) == lives
    assert_verbs_show(trace, path, pids)
    assert_log_replaces_probe(trace, path, tmp_path / "blind")
    log = tmp_path / "kern.log"
    lines = trace.kernel_log.sort_values("sequence")[["ktime_ns", "text"]].to_numpy().tolist()
    log.write_text("\n".join(f"[{ktime_ns / 1e9:12.6f}] {text}" for ktime_ns, text in lines))
    from_log = json.loads(read_by("explain", "--kmsg", log, "-c", "crasher_read", "--json", env=engine.env))
    assert [kill["victims"][0]["pid"] for kill in from_log["kills"]] == pids
    assert {kill["limit_owner"]["container"] for kill in from_log["kills"]} == {"crasher_read"}


def assert_verbs_show(trace: AnalysedTrace, path: Path, pids: list[int]) -> None:
    """Assert that explain, timeline and evictions show each kill once, in its run."""
    lives = len(pids)
    shown = read_by("explain", path, "-c", "crasher_read", "--list")
    listed = re.findall(r" \((\d+)\) +(\d) +crasher_read", shown)
    assert listed == [(str(pid), str(run)) for run, pid in enumerate(pids, start=1)]
    top = read_by("explain", path).splitlines()[0]
    assert top.startswith(f"container crasher_read: killed {lives} times in ")
    assert "the same cause each time (anon_growth)" in " ".join(read_by("explain", path).split())
    rows = json.loads(read_by("timeline", path, "-c", "crasher_read", "--json"))
    assert sorted({row["run"] for row in rows}) == list(range(1, lives + 1))
    assert len({(row["time"], row["run"]) for row in rows}) == len(rows)
    assert sum(row["oom_kills"] for row in rows) == lives
    known = trace.pagecache[trace.pagecache["inode_id"].isin(inode_of(trace, "known"))]
    by_file = json.loads(read_by("evictions", path, "-c", "crasher_read", "--json"))["rows"]
    (file,) = (row for row in by_file if (row["path"] or "").endswith("/known"))
    assert file["added_bytes"] == lives * FILE_PAGES * PAGE
    assert known["cgroup_id"].nunique() == lives


def assert_log_replaces_probe(trace: AnalysedTrace, path: Path, blind: Path) -> None:
    """Assert that a copy of the trace without the table `oom` has the same kills, from the kernel log."""
    shutil.copytree(path, blind)
    (blind / "oom.parquet").unlink()
    for seen, missed in zip(trace.explain(), AnalysedTrace(blind).explain(), strict=True):
        assert missed.quality.kmsg == "only"
        assert (missed.kill_id, missed.verdict.cause) == (seen.kill_id, seen.verdict.cause)
        assert [victim.pid for victim in missed.victims] == [victim.pid for victim in seen.victims]
        assert missed.limit_owner.run == seen.limit_owner.run == seen.kill_id
        for field in ("cgroup_id", "cgroup", "container", "limit_bytes"):
            assert getattr(missed.limit_owner, field) == getattr(seen.limit_owner, field)
        assert missed.time is not None and seen.time is not None
        assert abs(missed.time - seen.time) < pd.Timedelta("1s")


def read_by(verb: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Return the output of a verb."""
    result = CliRunner(env=env).invoke(group, [verb, *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
