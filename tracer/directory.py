"""A directory held open by a descriptor.

Names are looked up in the directory itself, even if its path now leads elsewhere, and a symbolic link in
place of a file or folder is an error. So a user who can write to a directory further up the path cannot
redirect a write to another file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block
_BUFFER_BYTES: Final = 1 << 16


def require_own_links(path: Path) -> None:
    """Raise PermissionError if root would follow a symbolic link of another user in a path, the last part
    included: that user could make it lead anywhere.

    In a sticky directory the kernel refuses such links, but only if protected_symlinks is set
    (Documentation/admin-guide/sysctl/fs.rst).
    """
    if os.geteuid() != 0:
        return
    for part in (*reversed(path.absolute().parents), path.absolute()):
        try:
            status = part.lstat()
        except OSError:
            return
        if stat.S_ISLNK(status.st_mode) and status.st_uid != 0:
            raise PermissionError(
                errno.EPERM, f"{part} is a symbolic link of user {status.st_uid}: name the place itself"
            )


def is_safe(path: Path) -> bool:
    """Return whether no other user can replace a directory, or any directory above it."""
    directory = path.resolve()
    for part in (directory, *directory.parents):
        status = part.stat()
        is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or is_shared:
            return False
    return True


def remove_left_behind(parent: Path, prefix: str, remove: Callable[[Path], object]) -> list[Path]:
    """Remove the directories of ours `<prefix><pid>-...` whose makers have ended; return those that are gone.

    A maker locks its directory (flock(2)) until it ends. The lock protects the directories of makers in other
    pid namespaces, whose pids have no meaning here.
    """
    gone = []
    for path in sorted(parent.glob(f"{prefix}*")):
        maker = re.match(rf"{re.escape(prefix)}(\d+)-", path.name)
        if maker is None or Path("/proc", maker[1]).exists():
            continue
        with suppress(OSError), Directory.open(path) as directory:
            if directory.owner == os.geteuid():
                fcntl.flock(directory.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
                gone += [] if path.exists() else [path]
    return gone


class Directory:
    """An open directory. `path` is the path by which it was opened, for messages. Methods raise OSError."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a directory; NotADirectoryError for a symbolic link to one."""
        return cls(os.open(path, _FOLDER_FLAGS), path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    @property
    def owner(self) -> int:
        """Return the user id of the directory's owner."""
        return os.fstat(self._descriptor).st_uid

    @property
    def is_removed(self) -> bool:
        """Return whether the directory was removed while it was open."""
        return os.fstat(self._descriptor).st_nlink == 0

    def where(self) -> Path:
        """Return the path at which the directory is now: `path`, unless it was renamed or moved meanwhile."""
        for path in (self.path, Path(f"/proc/self/fd/{self._descriptor}")):
            with suppress(OSError):
                found = path.readlink() if path != self.path else path
                if os.path.samestat(found.stat(), os.fstat(self._descriptor)):
                    return found
        return self.path

    def is_writable_by_us_alone(self) -> bool:
        """Return whether no other user can put entries into the directory."""
        status = os.fstat(self._descriptor)
        return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)

    def names(self) -> list[str]:
        """Return the names of the entries, sorted."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208  a descriptor

    def mode(self, name: str) -> int:
        """Return the type and permissions of an entry; links are not followed."""
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode

    def modified_ns(self, name: str) -> int:
        """Return the time of the last modification of an entry, in ns since 1970; links are not followed."""
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mtime_ns

    def subfolder(self, name: str, *, make: bool = False) -> Directory:
        """Open a directory in this one; with `make`, create it (mode 0700) if it is absent."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._descriptor)
        return Directory(os.open(name, _FOLDER_FLAGS, dir_fd=self._descriptor), self.path / name)

    def create(self, name: str) -> IO[bytes]:
        """Create a file (mode 0600) for buffered writing; FileExistsError if the name is taken."""
        descriptor = os.open(name, _NEW_FILE_FLAGS, 0o600, dir_fd=self._descriptor)
        return open(descriptor, "wb", buffering=_BUFFER_BYTES)  # noqa: PTH123  a descriptor

    def write_whole(
        self, name: str, pieces: Iterable[bytes], *, temporary: str | None = None, sync: bool = False
    ) -> None:
        """Write a whole file (mode 0600), or nothing. It replaces an entry that is not a directory.

        The file has the name `temporary` until it is complete; nobody must be able to guess that name. With
        `sync`, the file is on disk before it gets its final name.
        """
        temporary = temporary or f".{name}.{secrets.token_hex(8)}.tmp"
        try:
            with self.create(temporary) as file:
                file.writelines(pieces)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            self.replace(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.unlink(temporary)
            raise

    def read(self, name: str) -> IO[bytes]:
        """Open a regular file for reading; OSError for anything else."""
        descriptor = os.open(name, _READ_FLAGS, dir_fd=self._descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENXIO, f"{self.path / name} is not a regular file")
        return open(descriptor, "rb")  # noqa: PTH123  a descriptor

    def replace(self, name: str, new_name: str, target: Directory | None = None) -> None:
        """Rename a file in one step, within the folder or into `target`."""
        to = self if target is None else target
        os.replace(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=to.fileno())

    def sync(self) -> None:
        """Wait until the names in the directory are on disk: fsync(2)."""
        os.fsync(self._descriptor)

    def sync_all(self) -> None:
        """Wait until all files and folders below the directory are on disk; links are left out."""
        for name in self.names():
            with suppress(FileNotFoundError):  # removed meanwhile
                mode = self.mode(name)
                if stat.S_ISDIR(mode):
                    with self.subfolder(name) as folder:
                        folder.sync_all()
                elif stat.S_ISREG(mode):
                    with self.read(name) as file:
                        os.fsync(file.fileno())
        self.sync()

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self._descriptor)

    def rmdir(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=self._descriptor)
