"""The `watch` under test: its lives, its memory, and what it prints."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

_READY_WITHIN_S: Final = 60.0
_END_WITHIN_S: Final = 60.0


@dataclass
class Life:
    """One process; times are time.time(), `signal` is what ended it (None: itself), `rss` (time, bytes)."""

    began_s: float
    ready_s: float | None = None
    told_s: float | None = None
    ended_s: float | None = None
    signal: str | None = None
    status: int | None = None
    rss: list[tuple[float, int]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Names of unfinished traces at the start, which must be gone when it is ready."""


class Watch:
    """`memcg-tracer watch` on a directory, started again and again; its stderr goes to `log`."""

    def __init__(self, directory: Path, folder: Path, options: list[str]) -> None:
        self.directory = directory
        self.log = folder / "watch.stderr"
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.lives: list[Life] = []
        self.problems: list[str] = []
        self._ready = folder / "ready"
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def life(self) -> Life:
        """Return the present life."""
        return self.lives[-1]

    def told_lost(self) -> int:
        """Return the number of kills that it said to be lost, in all lives."""
        said = self.log.read_text(encoding="utf-8", errors="replace").replace(",", "")
        return sum(int(number) for number in re.findall(r"\b(\d+) kills? (?:is|are) lost\b", said))

    def start(self) -> None:
        """Start it; `look` notes when it is ready."""
        self._ready.unlink(missing_ok=True)
        life = Life(time.time(), left=[path.name for path in self.directory.glob(".unfinished-*")])
        command = [sys.executable, "-m", "tracer", "watch", "--out", str(self.directory), "--json"]
        with self.log.open("a", encoding="utf-8") as log:
            print(f"--- life {len(self.lives) + 1} {time.strftime('%H:%M:%S')}", file=log, flush=True)
            self._process = subprocess.Popen(
                [*command, "--ready-file", str(self._ready), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 0)  # as a service has it, whatever ours is
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.lives.append(life)

    def look(self) -> None:
        """Note whether it is ready, and whether it has ended although nobody told it to."""
        life, process = self.life, self._process
        if process is None or life.ended_s is not None:
            return
        if life.ready_s is None and self._ready.exists():
            life.ready_s = time.time()
            stay = [name for name in life.left if (self.directory / name).exists()]
            if stay:
                self.problems.append(f"not removed at the start: {', '.join(stay)}")
        if process.poll() is not None:
            self._note_end()
            self.problems.append(f"watch ended unasked with status {life.status}, see {self.log}")
        elif life.ready_s is None and time.time() - life.began_s > _READY_WITHIN_S:
            self.problems.append(f"watch is not ready after {_READY_WITHIN_S:.0f} s")
            self.end(signal.SIGKILL)

    def sample(self) -> None:
        """Note its resident memory."""
        life = self.life
        if self._process is None or life.ended_s is not None or life.ready_s is None:
            return
        for line in Path(f"/proc/{self._process.pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                life.rss.append((time.time(), int(line.split()[1]) << 10))

    def end(self, number: signal.Signals) -> None:
        """End it, and wait for that."""
        life = self.life
        if self._process is None or life.ended_s is not None:
            return
        life.told_s, life.signal = time.time(), number.name
        self._process.send_signal(number)
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.problems.append(f"watch did not end within {_END_WITHIN_S:.0f} s after {number.name}")
            self._process.kill()
        self._note_end()
        expected = {0} if number is signal.SIGTERM else {-number}
        if life.ready_s is None:
            expected.add(-number)  # it may still be importing, without a handler
        if life.status not in expected:
            self.problems.append(f"watch ended with status {life.status} after {number.name}")

    def kill(self) -> None:
        """Kill it if it runs."""
        if self.lives:
            self.end(signal.SIGKILL)

    def _note_end(self) -> None:
        assert self._process is not None
        assert self._reader is not None
        self.life.status = self._process.wait()
        self.life.ended_s = time.time()
        self.life.told_s = self.life.told_s or self.life.ended_s
        self._reader.join(5)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            try:
                self.lines.put(json.loads(line))
            except ValueError:
                self.problems.append(f"no JSON on stdout: {line!r}")
