"""The root file system of containers in tests: busybox alone."""

from __future__ import annotations

import shutil
import tarfile
from io import BytesIO
from pathlib import Path


def root_of_busybox() -> bytes:
    """Return a root file system as a tar: busybox under the names of the commands in the scripts."""
    busybox = Path(shutil.which("busybox") or "busybox").read_bytes()
    image = BytesIO()
    with tarfile.open(fileobj=image, mode="w") as tar:
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(busybox), 0o755
        tar.addfile(program, BytesIO(busybox))
        for name in ("sh", "dd", "mkfifo", "sleep", "tail"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return image.getvalue()
