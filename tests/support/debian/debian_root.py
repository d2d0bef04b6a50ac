"""A minimal Debian below build/, made by debootstrap from the mirror that it takes by default."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_CERTIFICATES: Final = "etc/certificates-of-the-builder.crt"
_OWN_MOUNTS: Final = "MEMCG_TRACER_OWN_MOUNTS"


def require(*commands: str) -> None:
    """End the program unless it is root and has these commands."""
    missing = [name for name in commands if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"this needs root, and {' and '.join(missing or commands)}")


def enter_own_mounts(module: str) -> None:
    """Start the module again in a mount namespace of its own, so that no mount appears on the host."""
    if os.environ.get(_OWN_MOUNTS) is None:
        os.environ[_OWN_MOUNTS] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable, "-m", module, *sys.argv[1:]])


def make_root(root: Path, release: str) -> Path:
    """Make a root at `root`, unless it is there already, and return it. It takes a minute."""
    if root.exists():
        return root
    half = root.with_name(f"{root.name}.new")
    shutil.rmtree(half, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", release, str(half)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(half / "var/cache/apt/archives")
    if certificates := os.environ.get("SSL_CERT_FILE"):  # a proxy between here and PyPI has its own authority
        shutil.copy(certificates, half / _CERTIFICATES)
        (half / "etc/pip.conf").write_text(f"[global]\ncert = /{_CERTIFICATES}\n")
    half.rename(root)
    return root
