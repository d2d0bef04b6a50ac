"""An object store at memory://: an object is there whole or not at all, nothing is renamed, and each
operation can be delayed or made to fail.

It stands for a real one, whose simulators would install 300 MB for these tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from tracer.fleet.pushing import attempts

Hook = Callable[[str, str], None]
"""Called with the operation (find, read, put, remove) and the path."""


class ObjectStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The store; `before` is called at the beginning of each operation, and may raise."""

    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    before: ClassVar[Hook] = staticmethod(lambda operation, path: None)

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        type(self).before("find", path)
        return super().find(path, *args, **options)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        type(self).before("read" if "r" in mode else "put", path)
        return super().open(path, mode=mode, **options)

    def rm_file(self, path: str) -> None:
        type(self).before("remove", path)
        with suppress_key_error(path):
            super().rm_file(path)

    def mv(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError("an object store cannot rename")

    cp_file = copy = mv

    @classmethod
    def objects(cls) -> dict[str, bytes]:
        """Return path -> content of all that is stored, without any delay."""
        return {path: bytes(file.getvalue()) for path, file in list(cls.store.items())}


@contextmanager
def suppress_key_error(path: str) -> Iterator[None]:
    """Raise FileNotFoundError for a KeyError."""
    try:
        yield
    except KeyError:
        raise FileNotFoundError(path) from None


@contextmanager
def object_store() -> Iterator[type[ObjectStore]]:
    """Make memory:// an empty object store, without failures of earlier tests."""
    original = fsspec.get_filesystem_class("memory")
    attempts._silent.clear()  # this process would try a place only once that was silent in an earlier test
    ObjectStore.store.clear()
    ObjectStore.before = staticmethod(lambda operation, path: None)
    fsspec.register_implementation("memory", ObjectStore, clobber=True)
    try:
        yield ObjectStore
    finally:
        fsspec.register_implementation("memory", original, clobber=True)
