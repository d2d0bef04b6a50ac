"""The processes beside the soak, as context managers, and the search for what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from soak.judging import Judged, JudgedKill

from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
from tracer.kernel.cgroups.containers import EPHEMERAL_PREFIX

_END_WITHIN_S: Final = 30.0
_JUDGE_WITHIN_S: Final = 600.0


class _Companion:
    """A process of a module of the soak; leaving the context ends it."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it and wait for that: by the end of its input, or else by SIGTERM."""
        if self.process.returncode is not None:
            return
        with suppress(OSError):
            self.stdin.close()
        self._ask_to_end()
        try:
            self.process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)

    def take(self, line: str) -> None:
        """Handle a line that it printed."""

    def _ask_to_end(self) -> None:
        """Do what its input's end does not."""

    def _read(self) -> None:
        for line in self.stdout:
            self.take(line)

    def _tell(self, line: str) -> None:
        with suppress(OSError):
            self.stdin.write(line + "\n")
            self.stdin.flush()


class Lane(_Companion):
    """Runs experiments; `runs` has what was printed of each."""

    def __init__(self, name: str, seed: int, pause: str) -> None:
        self.runs: list[dict[str, Any]] = []
        super().__init__("soak.lane", name, str(seed), pause)

    def take(self, line: str) -> None:
        """Add a run."""
        self.runs.append(json.loads(line))

    def _ask_to_end(self) -> None:
        self.process.send_signal(signal.SIGTERM)


class Churn(_Companion):
    """Makes and removes cgroups below one; `made` is their number, at the end."""

    def __init__(self, cgroup: Path) -> None:
        self.made = self.rate = 0
        super().__init__("soak.churning", str(cgroup))

    def set_rate(self, rate: int) -> None:
        """Set the number of cgroups a second."""
        self.rate = rate
        self._tell(str(rate))

    def take(self, line: str) -> None:
        """Take the number."""
        self.made = int(line)


class Burst(_Companion):
    """Makes `number` cgroups below one at once, and removes them half a minute later; `made` is their sum."""

    def __init__(self, cgroup: Path, number: int) -> None:
        self.made = 0
        super().__init__("soak.bursting", str(cgroup), str(number))

    def burst(self) -> None:
        """Make them, once."""
        self._tell("")

    def take(self, line: str) -> None:
        """Add the number."""
        self.made += int(line)


class Judge(_Companion):
    """Reads and explains traces, one after the other."""

    def __init__(self) -> None:
        self._asked = 0
        self.judged: list[Judged] = []
        super().__init__("soak.judging")

    def ask(self, path: str) -> None:
        """Have a trace judged, once more if it was already."""
        self._asked += 1
        self._tell(path)

    @property
    def waiting(self) -> int:
        """Return the number of traces that are not judged yet."""
        return self._asked - len(self.judged)

    def wait(self) -> None:
        """Wait until all are."""
        deadline_s = time.monotonic() + _JUDGE_WITHIN_S
        while self.waiting and self.process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)

    def last(self) -> list[Judged]:
        """Return the last judgement of each trace, and each judgement that found an error."""
        last = {one.trace: one for one in self.judged}
        return [one for one in self.judged if one.error or last[one.trace] is one]

    def take(self, line: str) -> None:
        """Add a judgement."""
        facts = json.loads(line)
        self.judged.append(Judged(**facts | {"kills": [JudgedKill(**kill) for kill in facts["kills"]]}))


def leftovers(mark: str) -> list[str]:
    """Return the processes with our value of an environment variable, and the cgroups that they made."""
    wanted = os.fsencode(f"{mark}={os.environ[mark]}")
    found, pids = [], {os.getpid()}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (directory / "environ").read_bytes().split(b"\0") and directory.name != str(
                os.getpid()
            ):
                found.append(f"pid {directory.name} ({(directory / 'comm').read_text().strip()})")
                pids.add(int(directory.name))
    mount = memory_hierarchy().mount
    found += [path.name for path in mount.glob(f"{EPHEMERAL_PREFIX}*-soak*") if _is_ours(path.name, pids)]
    return found


def _is_ours(name: str, pids: set[int]) -> bool:
    maker = int(name.removeprefix(EPHEMERAL_PREFIX).split("-")[0])
    return maker in pids or not Path(f"/proc/{maker}").exists()
