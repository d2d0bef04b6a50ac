"""PostgreSQL under pgbench, in a cgroup whose limit is far below its data, so that it always reclaims."""

from __future__ import annotations

import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import accounting
from bench.scope import Scope, scopes
from bench.tracers import Account, Tracer
from bench.works import MIB, Phase, Spent, Work

from tracer.errors import TracerError

USER: Final = "postgres"
SCALE: Final = 20
"""Of pgbench: 100,000 accounts each, about 15 MiB."""
LIMIT_BYTES: Final = 160 * MIB
CLIENTS: Final = 4
SECONDS: Final = 8
STARTED_WITHIN_S: Final = 60.0

SETTINGS: Final = {
    "listen_addresses": "''",
    "shared_buffers": "32MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",  # it would come in some of the rounds
    "fsync": "off",  # a flush waits for the disk, whose time is uneven
}


def programs() -> Path | None:
    """Return the folder of the newest installed PostgreSQL, or None. Debian keeps the server out of PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if initdb := shutil.which("initdb"):
        found.append(Path(initdb).resolve().parent)
    complete = [path for path in found if all((path / name).exists() for name in ("postgres", "pgbench"))]
    return max(complete, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], default=None)


def why_not() -> str | None:
    """Return the reason why PostgreSQL cannot be measured, or None if it can."""
    if programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return f"there is no user {USER}"
    return None


@dataclass(frozen=True)
class Server:
    """A running server, its data in `folder`."""

    folder: Path
    process: subprocess.Popen[str]
    bin: Path

    def processor_s(self) -> float:
        return accounting.processor_s(self.process.pid)

    def pgbench(self, *options: str) -> str:
        """Run pgbench, and return its output. Raises TracerError if it fails."""
        argv = [str(self.bin / "pgbench"), "-h", str(self.folder), "-U", USER, *options, "postgres"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, user=USER)
        if done.returncode != 0:
            raise TracerError(f"pgbench ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
        return done.stdout


@contextmanager
def server(scope: Scope) -> Iterator[Server]:
    """Run a new server in a scope; end it and remove its data when the context ends."""
    path = programs()
    assert path is not None
    user = pwd.getpwnam(USER)
    # Not in a folder of ours, which others may not enter.
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-bench-", dir="/var/tmp") as made:
        folder = Path(made)
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        initdb = [str(path / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "trust", "--no-sync"]
        done = subprocess.run(
            initdb, check=False, capture_output=True, text=True, user=USER, group=user.pw_gid, cwd=folder
        )
        if done.returncode != 0:
            raise TracerError(f"initdb ended with status {done.returncode}: {done.stderr.strip()[-200:]}")
        settings = SETTINGS | {"unix_socket_directories": f"'{folder}'"}
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(lines)
        with (folder / "log").open("w", encoding="utf-8") as log:
            argv = [str(path / "postgres"), "-D", str(folder / "data")]
            process = scope.start(argv, cpu=None, user=USER, stdout=log, stderr=log, cwd=folder)
        try:
            _wait(folder, process)
            yield Server(folder, process, path)
        finally:
            _end(process)


def _wait(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the server accepts connections: its file of the process says so."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    state = folder / "data" / "postmaster.pid"
    while not state.exists() or not state.read_text("utf-8").rstrip().endswith("ready"):
        if process.poll() is not None or time.monotonic() > deadline:
            log = (folder / "log").read_text("utf-8", "replace").strip()
            raise TracerError(f"PostgreSQL does not start: {log[-200:]}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[str]) -> None:
    """End the server without waiting for its clients, or kill it; its cgroup ends what is left then."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def spent(output: str, processor_s: float) -> Spent:
    """Return what a transaction took: its share of the run's time (1 / tps), and processor time."""
    done = re.search(r"^number of transactions actually processed: (\d+)", output, flags=re.MULTILINE)
    rate = re.search(r"^tps = ([\d.]+)", output, flags=re.MULTILINE)
    if done is None or rate is None or int(done[1]) == 0:
        raise TracerError(f"pgbench did nothing: {output.strip()[-200:]}")
    return {"pgbench": (1 / float(rate[1]), processor_s / int(done[1]))}


@contextmanager
def place(folder: Path, scale: float) -> Iterator[Callable[[Tracer], tuple[Spent, Account]]]:
    """Run one server for all rounds, with warm caches, and give a function that runs pgbench."""
    seconds = max(3, round(SECONDS * scale))
    load = ["-c", str(CLIENTS), "-n", "-T", str(seconds)]
    with scopes("postgresql", LIMIT_BYTES) as scope, server(scope) as running:
        running.pgbench("-i", "-q", "-s", str(SCALE))
        running.pgbench(*load)

        def run(tracer: Tracer) -> tuple[Spent, Account]:
            with tracer.trace(scope, folder) as account:
                before = running.processor_s()
                output = running.pgbench(*load)
                used = running.processor_s() - before
            return spent(output, used), account

        yield run


WORK: Final = Work(
    "pgbench",
    {"pgbench": Phase(f"pgbench -c{CLIENTS} at a limit", 1.5, 1.5)},
    place,
    share_at_most=2,
    why_not=why_not,
)
