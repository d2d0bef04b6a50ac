"""What a daemon of containers leaves behind when it dies."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracer.kernel.cgroups.mounts import read_mounts


@contextmanager
def mounts_removed(directory: Path) -> Iterator[None]:
    """Unmount everything that a dead daemon left mounted below a directory."""
    try:
        yield
    finally:
        for mount in reversed(read_mounts()):
            if Path(mount.mount_point).is_relative_to(directory):
                subprocess.run(["umount", "-l", mount.mount_point], check=False)
