"""The initial RAM filesystem of a guest: busybox, the modules for its root, and scripts."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vm.programs import find

_DIRECTORIES: Final = ("bin", "dev", "proc", "root", "modules")
_EXECUTABLE: Final = stat.S_IFREG | 0o755
_DIRECTORY: Final = stat.S_IFDIR | 0o755


def initrd(modules: list[Path], variables: Mapping[str, str]) -> bytes:
    """Return a cpio archive; `modules` are loaded in order, and the scripts read `variables`."""
    entries: dict[str, tuple[int, bytes]] = dict.fromkeys(_DIRECTORIES, (_DIRECTORY, b""))
    entries["bin/busybox"] = (_EXECUTABLE, Path(find("busybox")).read_bytes())
    entries["init"] = (_EXECUTABLE, Path(__file__).with_name("init.sh").read_bytes())
    for script in ("guest.sh", "systemd.sh"):
        entries[script] = (_EXECUTABLE, Path(__file__).with_name(script).read_bytes())
    entries["variables"] = (_EXECUTABLE, _assignments(variables).encode())
    for number, module in enumerate(modules):
        entries[f"modules/{number:02}-{module.name}"] = (_EXECUTABLE, module.read_bytes())
    return cpio(entries)


def cpio(entries: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an archive of name -> (mode, content), in the kernel's format
    (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    parts = [_member(name, number, *entry) for number, (name, entry) in enumerate(entries.items(), start=1)]
    return b"".join([*parts, _member("TRAILER!!!", 0, 0, b"")])


def _member(name: str, inode: int, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _assignments(variables: Mapping[str, str]) -> str:
    quoted = {name: value.replace("'", "'\\''") for name, value in variables.items()}
    return "".join(f"export {name}='{value}'\n" for name, value in quoted.items())
