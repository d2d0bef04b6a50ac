"""`make deb-check`: install the package in a clean Debian, run it there, and purge it again.

The root is made by debootstrap. Mounts are in a mount namespace of its own. The root has no service manager,
and none is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.debian.debian_root import enter_own_mounts, make_root, require

TOP: Final = Path(__file__).parents[2]
FOLDER: Final = TOP / "build/deb"
RELEASE: Final = "trixie"
TRACES: Final = "/var/lib/memcg-tracer"
# What dpkg, apt, ld.so and the interpreter keep for themselves, whatever was installed.
_OF_THE_TOOLS: Final = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/etc/ld.so.cache", "/tmp")
_WATCH: Final = """
memcg-tracer watch --ready-file /tmp/ready --keep 1m &
watch=$!
while ! [ -e /tmp/ready ]; do kill -0 $watch; sleep 0.1; done
kill -USR1 $watch
# Where something else on this machine is killed meanwhile, that trace is the one that was asked for.
while ! ls /var/lib/memcg-tracer | grep -q .; do kill -0 $watch; sleep 0.1; done
kill $watch
wait $watch
"""


def main() -> None:
    """Run all steps. The exit status is 1 if one fails."""
    require("debootstrap")
    [package] = FOLDER.glob("*.deb")
    enter_own_mounts("package")
    clean = make_root(FOLDER / "clean", RELEASE)
    root = FOLDER / "root"
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-a", str(clean), str(root)], check=True)
    for name in ("dev", "proc", "sys"):
        subprocess.run(["mount", "--rbind", f"/{name}", str(root / name)], check=True)
    apt = ("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "-y", "--no-install-recommends")
    run(root, *apt, "update")
    run(root, *apt, "install", "python3-bpfcc")
    before = set(files(root))
    shutil.copy(package, root / "tmp/package.deb")
    run(root, *apt, "install", "/tmp/package.deb")
    installed = set(files(root))
    enabled = [path for path in installed - before if path.startswith("/etc/systemd")]
    assert not enabled, f"the service must not be enabled: {enabled}"
    run(root, "memcg-tracer", "--help", quiet=True)
    run(root, "kubectl-oom", "--help", quiet=True)
    run(root, "python3", "-c", "import sys; sys.exit(any('memcg' in path for path in sys.path))")
    run(root, "sh", "-c", ". /usr/share/bash-completion/completions/memcg-tracer", shell="bash")
    assert "ExecStart=/usr/bin/memcg-tracer watch" in unit(root)
    run(root, "memcg-tracer", "doctor", "--quiet")
    run(root, "sh", "-ec", _WATCH)
    traces = [path.name for path in (root / TRACES[1:]).iterdir() if not path.name.startswith(".")]
    assert traces, "watch left a trace"
    for trace in traces:
        run(root, "memcg-tracer", "info", f"{TRACES}/{trace}", quiet=True)
    run(root, "memcg-tracer", "push", TRACES, "/tmp/pushed")
    run(root, "memcg-tracer", "fleet", "/tmp/pushed", quiet=True)
    written = sorted(path for path in set(files(root)) - installed if not path.startswith(TRACES))
    assert not written, f"written by runs, and unknown to dpkg: {written[:20]}"
    run(root, *apt, "purge", "memcg-tracer")
    left = set(files(root)) - before
    unexpected = sorted(path for path in left if not path.startswith(TRACES))
    assert not unexpected, f"left after purge: {unexpected[:20]}"
    assert all((root / TRACES[1:] / trace).exists() for trace in traces), "traces are kept"
    print(f"{package.name}: installed, ran, and was purged; {len(installed - before)} files and folders")


def unit(root: Path) -> str:
    """Return the text of the installed unit."""
    return (root / "usr/lib/systemd/system/memcg-tracer.service").read_text()


def files(root: Path) -> Iterator[str]:
    """Yield the paths in the root that are neither mounts nor of the package manager itself."""
    for folder, folders, names in os.walk(root):
        inside = "/" + str(Path(folder).relative_to(root)).removeprefix(".")
        folders[:] = [
            name
            for name in folders
            if not (inside == "/" and name in ("dev", "proc", "sys")) and not _is_tools(Path(inside, name))
        ]
        yield from (path for name in (*names, *folders) if not _is_tools(path := str(Path(inside, name))))


def _is_tools(path: str | Path) -> bool:
    return any(Path(path).is_relative_to(place) for place in _OF_THE_TOOLS)


def run(root: Path, *command: str, quiet: bool = False, shell: str | None = None) -> None:
    """Run a command in the root; raise CalledProcessError if it fails."""
    words = (shell, "-c", command[-1]) if shell else command
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C",
    }
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(["chroot", str(root), *words], check=True, env=environment, stdout=output)


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
