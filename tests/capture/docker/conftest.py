"""A Docker engine for the tests, which shares nothing with an engine that already runs on the machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.containers.busybox import root_of_busybox
from support.containers.leftovers import mounts_removed
from support.slowdown import SLOWDOWN

from tracer.kernel.cgroups.mounts import read_mounts
from tracer.lab.scratch import scratch_directory, write_uncached

NEEDED = ("dockerd", "docker", "containerd", "ctr", "busybox")
IMAGE = "memcg-tracer-test"
BIG_FILE_BYTES = 117 << 20
_READY_WITHIN_S = 30.0 * SLOWDOWN
_STOP_WITHIN_S = 20.0 * SLOWDOWN
_ANSWERS_WITHIN_S = 60.0 * SLOWDOWN
_POLL_S = 0.05

_CONTAINERD = """
version = 2
root = "{directory}/containerd"
state = "{directory}/run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
"""


@dataclass(frozen=True)
class Engine:
    """A dockerd that listens on its own socket and has one image, of busybox.

    `files` is the folder that containers see as /data.
    """

    socket: Path
    files: Path

    @property
    def env(self) -> dict[str, str]:
        """An environment in which `docker` and `memcg-tracer` use this engine."""
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}

    def docker(self, *arguments: str, stdin: bytes | None = None, ok: bool = True) -> str:
        """Run `docker ARGUMENTS` and return its output; it must succeed if `ok`."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=_ANSWERS_WITHIN_S,
        )
        assert not ok or done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout.decode().strip()

    def run(self, name: str, script: str, *options: str, ok: bool = True) -> str:
        """Run a shell script by `docker run` under a limit of 100 MiB, without swap."""
        limits = ("-m", "100m", "--memory-swap", "100m", "--network", "none")
        volume = ("-v", f"{self.files}:/data:ro")
        return self.docker(
            "run", *limits, *volume, "--name", name, *options, IMAGE, "/bin/sh", "-c", script, ok=ok
        )

    def inspect(self, name: str) -> Any:
        """Return the output of `docker inspect` for a container."""
        return json.loads(self.docker("inspect", name))[0]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing:
        reason = (
            f"needs Docker: {', '.join(missing)} not found (apt install docker.io docker-cli busybox-static)"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with (
        scratch_directory(Path("/var/tmp")) as directory,
        _docker_cgroups_removed(),
        mounts_removed(directory),
        _containerd(directory) as containerd,
        _dockerd(directory, containerd) as socket,
    ):
        files = directory / "files"
        files.mkdir()
        started = Engine(socket, files)
        started.docker("import", "-", IMAGE, stdin=root_of_busybox())
        started.run("memcg-tracer-first", "exit 0", "--rm")
        yield started
        for container in started.docker("ps", "-aq").split():
            started.docker("rm", "-f", container)


@pytest.fixture(scope="session")
def big_file(engine: Engine) -> Path:
    """A file of 117 MiB on a disk, which containers see as /data/big."""
    file = engine.files / "big"
    write_uncached(file, BIG_FILE_BYTES)
    return file


@contextlib.contextmanager
def _containerd(directory: Path) -> Iterator[Path]:
    """Run the daemon of containers, and yield its socket once it is ready. dockerd gives one of its own 15 s
    to start, which is too little on a slow machine (startupTimeout in libcontainerd/supervisor of moby).
    """
    socket, config = directory / "containerd.sock", directory / "containerd.toml"
    config.write_text(_CONTAINERD.format(directory=directory, socket=socket), encoding="utf-8")
    ask = ["ctr", "--address", str(socket), "version"]
    with _daemon(["containerd", "--config", str(config)], ask, directory / "containerd.log"):
        yield socket


@contextlib.contextmanager
def _dockerd(directory: Path, containerd: Path) -> Iterator[Path]:
    """Run Docker's daemon, and yield its socket once it is ready."""
    socket = directory / "docker.sock"
    options = {
        "--host": f"unix://{socket}",
        "--data-root": directory / "data",
        "--exec-root": directory / "exec",
        "--pidfile": directory / "pid",
        "--config-file": directory / "none.json",
        "--bridge": "none",
        "--iptables": "false",
        "--ip6tables": "false",
        "--exec-opt": "native.cgroupdriver=cgroupfs",  # cgroups are /docker/ID on every machine
        "--containerd": containerd,
    }
    (directory / "none.json").write_text("{}", encoding="ascii")
    command = ["dockerd", *(f"{option}={value}" for option, value in options.items())]
    with _daemon(command, ["docker", "-H", f"unix://{socket}", "version"], directory / "log"):
        yield socket


@contextlib.contextmanager
def _daemon(command: list[str], ask: list[str], log: Path) -> Iterator[None]:
    """Run a daemon while the caller works, which begins once the command `ask` succeeds."""
    with log.open("wb") as output:
        # In its own session, so that Ctrl-C reaches pytest alone, which then stops the daemon.
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(daemon, ask, log)
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _wait_until_ready(daemon: subprocess.Popen[bytes], ask: list[str], log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while subprocess.run(ask, capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            lines = "\n".join(log.read_text("utf-8", "replace").splitlines()[-8:])
            pytest.fail(f"{ask[0]} gets no answer:\n{lines}", pytrace=False)
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _docker_cgroups_removed() -> Iterator[None]:
    """Remove the cgroup /docker of each hierarchy, which a daemon leaves behind, unless it existed before."""
    mounts = [Path(mount.mount_point) for mount in read_mounts() if mount.fs_type in ("cgroup", "cgroup2")]
    ours = [directory for mount in mounts if not (directory := mount / "docker").exists()]
    try:
        yield
    finally:
        for directory in ours:
            with contextlib.suppress(OSError):  # it was not made, or another engine uses it now
                directory.rmdir()
