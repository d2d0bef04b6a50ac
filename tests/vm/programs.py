"""The distribution's programs that fetch packages and run VMs, and their packages."""

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
    "dpkg-source": "dpkg-dev",
    "mkfs.ext4": "e2fsprogs",
    "modprobe": "kmod",
    "qemu-system-x86_64": "qemu-system-x86",
    "zstd": "zstd",
}

_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # only root has the last two in PATH


def find(program: str) -> str:
    """Return the path of a program; raises NotRunError if it is not installed."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise NotRunError(f"no {program} here: install {PACKAGES[program]}")
    return path


def call(program: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Return the output of a program; raises NotRunError with its error if it fails."""
    command: Sequence[str | Path] = [find(program), *arguments]
    in_english = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=in_english)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("W:")] or [
            "no error output"
        ]
        raise NotRunError(f"{program} failed: {errors[0]}")
    return done.stdout
