"""`make image-check`: build the image where no registry can be reached, and run it as a pod runs.

The base is made by debootstrap, the image on it by `make image` with buildah, and the tests of the
DaemonSet's container run it. Mounts are in a mount namespace of its own. `python -m image TARGET` makes
another target of the Makefile with that base, such as `release-check`.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from support.debian.debian_root import enter_own_mounts, make_root, require

from tracer.version import VERSION

TOP: Final = Path(__file__).parents[2]
CONTAINERFILE: Final = TOP / "docs/deploy/Containerfile"
FOLDER: Final = TOP / "build/image"
ARCHIVE: Final = FOLDER / "memcg-tracer.tar"
_BASE: Final = "localhost/base"
_BUILDAH: Final = (
    *(shutil.which("buildah") or "buildah", f"--root={FOLDER / 'storage'}", f"--runroot={FOLDER / 'run'}"),
    "--storage-driver=overlay",
)
"""buildah with a storage of its own."""


def main(target: str) -> None:
    """Make a target. Have pytest run the image, if that is the target."""
    require("debootstrap", "buildah")
    enter_own_mounts("image")
    release = re.search(r"^ARG BASE=debian:(\w+)-slim$", CONTAINERFILE.read_text(), re.MULTILINE)
    assert release is not None, CONTAINERFILE
    make_root(FOLDER / "base", release[1])
    _import_base(FOLDER / "base")
    # The limits of a build are those of this process: raising them takes a capability that it may lack.
    limits = [f"--ulimit={name}={_hard_limit(name)}" for name in ("nofile", "nproc")]
    options = ["--layers", "--isolation=chroot", "--network=host", *limits]
    settings = [f"BASE={_BASE}", f"BUILDER={shlex.join(_BUILDAH)}", f"IMAGE_OPTIONS={shlex.join(options)}"]
    subprocess.run(["make", "-C", str(TOP), target, *settings], check=True)
    if target != "image":
        return
    ARCHIVE.unlink(missing_ok=True)
    _buildah("push", "-q", f"memcg-tracer:{VERSION}", f"docker-archive:{ARCHIVE}:memcg-tracer:built")
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 2**20:.0f} MiB, uncompressed")
    test = str(TOP / "tests/capture/docker/test_daemonset.py")
    environment = {**os.environ, "MEMCG_TRACER_IMAGE": str(ARCHIVE)}
    done = subprocess.run([sys.executable, "-m", "pytest", test, "-k", "built"], env=environment, check=False)
    sys.exit(done.returncode)


def _import_base(root: Path) -> None:
    if _buildah("images", "-q", "--filter", f"reference={_BASE}", capture=True):
        return
    container = _buildah("from", "scratch", capture=True)
    _buildah("add", "-q", container, str(root), "/")
    _buildah("commit", "-q", "--rm", container, _BASE)


def _buildah(*arguments: str, capture: bool = False) -> str:
    """Run buildah, and return what it printed if that is captured."""
    done = subprocess.run(
        [*_BUILDAH, *arguments], check=True, text=True, stdout=subprocess.PIPE if capture else None
    )
    return (done.stdout or "").strip()


def _hard_limit(name: str) -> str:
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return f"{hard}:{hard}"


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else "image")
