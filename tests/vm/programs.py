"""The programs of the distribution that are used here, and the packages that have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from vm.errors import NotRunError

PACKAGES: Final[Mapping[str, str]] = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mkfs.ext4": "e2fsprogs",
    "modprobe": "kmod",
    "qemu-system-x86_64": "qemu-system-x86",
    "zstd": "zstd",
}

_PATH: Final = (
    f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # only root has the latter two in its own
)


def find(program: str) -> str:
    """The path of a program. NotRunError where it is not installed."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise NotRunError(f"no {program} here: install {PACKAGES[program]}")
    return path


def call(program: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """What a program prints. NotRunError, with its error, where it fails."""
    command: Sequence[str | Path] = [find(program), *arguments]
    in_english = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=in_english)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith("W:")] or ["it said nothing"]
        raise NotRunError(f"{program} failed: {said[0]}")
    return done.stdout
