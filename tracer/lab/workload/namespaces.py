"""A mount that no other process sees, and that disappears with this process."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_CLONE_NEWNS: Final = 0x00020000  # include/uapi/linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 14, 1 << 18  # include/uapi/linux/mount.h


def mount_privately(fs_type: str, directory: str, options: str) -> None:
    """Move this process into a new mount namespace, and mount a file system at `directory` there.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (b"memcg-tracer-lab", os.fsencode(directory), fs_type.encode())
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    if (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
        or libc.mount(*arguments, flags, options.encode())
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
