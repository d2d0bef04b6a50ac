"""Calls that are given up if they do not return in time.

A file system whose server does not answer (FUSE, NFS) blocks whoever asks for a file there, for ever. A
process can be such a server, and can also hold the lock of its memory, without which its mappings cannot be
read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_RETURNS_WITHIN_S: Final = 1.0
_MOST_BLOCKED: Final = 3

_blocked: list[threading.Thread] = []
"""The threads of calls that were given up. They end with this process."""


def bounded(call: Callable[..., T], *arguments: Any) -> T:
    """Call a function in another thread, and return its result.

    Raises what the function does, and TimeoutError, an OSError, if it takes longer than a second, or if three
    earlier calls have not returned yet.
    """
    _blocked[:] = [thread for thread in _blocked if thread.is_alive()]
    if len(_blocked) >= _MOST_BLOCKED:
        raise TimeoutError(f"{len(_blocked)} calls have not returned")
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call(*arguments))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_RETURNS_WITHIN_S)
    if errors:
        raise errors[0]
    if not results:
        _blocked.append(thread)
        raise TimeoutError(f"no answer within {_RETURNS_WITHIN_S:g} s")
    return results[0]
