"""Draw the frames of docs/examples/top.md again: `make frames`.

It needs root, BPF and tmux, whose terminal is real. Two programs run in cgroups of their own: `db` reads a
file that is larger than its limit, and `web` grows until it is killed. What `top` shows of them replaces the
text between `<!-- frame: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup  # noqa: E402  after the path

PAGE: Final = TOP / "docs/examples/top.md"
WITHIN_S: Final = 60.0
JOIN: Final = "import os, sys, time\nopen(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
DB: Final = (
    JOIN + "open(sys.argv[2], 'wb').write(bytes(90 << 20))\n"
    "os.sync()\nkept = bytearray(b'x') * (12 << 20)\n"
    "while True:\n    file = open(sys.argv[2], 'rb')\n"
    "    while file.read(1 << 20):\n        time.sleep(0.01)\n"
)
WEB: Final = (
    JOIN + "open(sys.argv[2], 'wb').write(bytes(20 << 20))\nos.sync()\nopen(sys.argv[2], 'rb').read()\n"
    "kept = []\nwhile True:\n    kept.append(bytearray(b'x') * (1 << 20))\n    time.sleep(0.15)\n"
)


class Tmux:
    """A tmux server of its own with one window."""

    def __init__(self, columns: int, lines: int, command: str, folder: Path) -> None:
        self._server = ("tmux", "-L", f"frames-{columns}")
        size = ("-x", str(columns), "-y", str(lines))
        self._call("new-session", "-d", *size, "-c", str(folder), command)

    def _call(self, *arguments: str) -> str:
        ended = subprocess.run([*self._server, *arguments], capture_output=True, text=True, check=True)
        return ended.stdout

    def press(self, *keys: str) -> None:
        self._call("send-keys", *keys)

    def frame(self) -> str:
        return self._call("capture-pane", "-p").rstrip("\n")

    def wait_for(self, condition: Callable[[str], object]) -> str:
        """Return the first frame for which a condition holds."""
        end_s = time.monotonic() + WITHIN_S
        while not condition(shown := self.frame()):
            if time.monotonic() > end_s:
                raise SystemExit(f"it was not shown within {WITHIN_S:.0f} s:\n{shown}")
            time.sleep(0.05)
        return shown


@contextmanager
def program(source: str, cgroup: Path, file: Path) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", source, str(cgroup), str(file)]) as child:
        try:
            yield
        finally:
            child.kill()


def frames(folder: Path) -> dict[str, str]:
    """Return name -> frame."""
    found: dict[str, str] = {}
    which = "-c '/memcg-tracer-*-db' -c '/memcg-tracer-*-web'"
    top = f"env PYTHONPATH={TOP} {sys.executable} -m tracer top {which}"
    with ExitStack() as running:
        db = running.enter_context(ephemeral_cgroup("db", 64 << 20, 0))
        web = running.enter_context(ephemeral_cgroup("web", 100 << 20, 0))
        tmux = Tmux(120, 20, top, folder)
        tmux.wait_for(lambda shown: "probes are attached" in shown)
        running.enter_context(program(DB, db, folder / "db"))
        tmux.wait_for(lambda shown: re.search(r"-db .*EVICT|-db .*\d[KM]i +\d", shown))
        running.enter_context(program(WEB, web, folder / "web"))
        found["list"] = tmux.wait_for(lambda shown: re.search(r"-web .*░.* \d\.\ds", shown))
        found["kill"] = tmux.wait_for(lambda shown: "asked for more memory" in shown)
        select(tmux, db.name)
        tmux.press("Enter")
        tmux.wait_for(lambda shown: "parts of usage" in shown)
        tmux.press("Right", "Right")
        found["files"] = tmux.wait_for(lambda shown: re.search(r"r reads it again(.|\n)*/db +\d", shown))
        tmux.press("q")
        select(tmux, web.name)
        tmux.press("x")
        found["explained"] = tmux.wait_for(lambda shown: "Cause:" in shown)
        tmux.press("q", "q")
    return found


def select(tmux: Tmux, name: str) -> None:
    """Move the selection to a cgroup."""
    tmux.press("Home")
    for _ in range(3):
        time.sleep(0.2)
        if re.search(rf"^> +{name}", tmux.frame(), flags=re.MULTILINE):
            return
        tmux.press("Down")


def main() -> None:
    """Replace the frames of the page."""
    text = PAGE.read_text("utf-8")
    with tempfile.TemporaryDirectory(prefix="memcg-tracer-frames-") as folder:
        for name, shown in frames(Path(folder)).items():
            plain = "\n".join(line.rstrip() for line in shown.splitlines())
            begin, end = f"<!-- frame: {name} -->\n", "<!-- end -->"
            before, rest = text.split(begin, 1)
            _, after = rest.split(end, 1)
            text = f"{before}{begin}```\n{plain}\n```\n{end}{after}"
    PAGE.write_text(text, "utf-8")
    print(f"wrote {shlex.quote(str(PAGE))}")


if __name__ == "__main__":
    main()
