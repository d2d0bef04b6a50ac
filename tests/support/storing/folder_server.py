"""A file server at folders://. It lists a folder at a time, as SFTP does, and fails where a test wants it."""

from __future__ import annotations

import io
import threading
from typing import Any, ClassVar

import fsspec
from fsspec import AbstractFileSystem


class FolderServer(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The server: path -> content of its files; path -> the errors of the next times that it is listed or
    opened, and of the next reads from it."""

    protocol = "folders"
    files: ClassVar[dict[str, bytes]] = {}
    failures: ClassVar[dict[str, list[Exception]]] = {}
    reads: ClassVar[dict[str, list[Exception]]] = {}
    users: ClassVar[set[tuple[int, int]]] = set()  # (connection, thread) of each listing

    @classmethod
    def current(cls) -> FolderServer:
        """Return the connection that fsspec gives to who asks now."""
        found: FolderServer = fsspec.filesystem("folders")
        return found

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("folders://").strip("/")

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        self.users.add((id(self), threading.get_ident()))
        self._fail(path)
        top = f"{path.rstrip('/')}/"
        below = [(name, content) for name, content in self.files.items() if name.startswith(top)]
        if not below:
            raise FileNotFoundError(path)
        found: dict[str, dict[str, Any]] = {}
        for name, content in below:
            first, *more = name.removeprefix(top).split("/")
            kind, size = ("directory", 0) if more and first != ".." else ("file", len(content))
            if first == "..":
                first = "/".join([first, *more])
            found[first] = {"name": top + first, "type": kind, "size": size}
        return [*found.values()] if detail else [*found]

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        if path not in self.files:
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": len(self.files[path])}

    def _open(self, path: str, *_arguments: Any, **_options: Any) -> io.BytesIO:
        self._fail(path)
        if path not in self.files:
            raise FileNotFoundError(path)
        return _File(self.files[path], self.reads.setdefault(path, []))

    def _fail(self, path: str) -> None:
        if self.failures.get(path):
            raise self.failures[path].pop(0)


class _File(io.BytesIO):
    def __init__(self, content: bytes, failures: list[Exception]) -> None:
        super().__init__(content)
        self._failures = failures

    def seek(self, offset: int, whence: int = 0, /) -> int:
        super().seek(offset, whence)
        return None  # type: ignore[return-value]  # as paramiko does

    def read(self, size: int | None = -1, /) -> bytes:
        if self._failures:
            raise self._failures.pop(0)
        return super().read(size)


def folder_server() -> type[FolderServer]:
    """Have folders:// be an empty server, and return it."""
    FolderServer.files.clear()
    FolderServer.failures.clear()
    FolderServer.reads.clear()
    FolderServer.users.clear()
    fsspec.register_implementation("folders", FolderServer, clobber=True)
    return FolderServer
