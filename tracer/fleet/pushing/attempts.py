"""Retries of operations at a URL: which errors are temporary, which are lasting, and their words.

Everything that reads or writes at a URL follows this: `push`, `watch --out`, datasets and `fleet`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final, TypeVar

from tracer.errors import TracerError
from tracer.urls import shown_url

RETRY_AFTER_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""The times between attempts."""

_LASTING: Final = (
    *(PermissionError, NotADirectoryError, IsADirectoryError, FileNotFoundError),
    *(NotImplementedError, ImportError, ValueError, TypeError, AttributeError),
)
"""Errors that recur at every attempt."""
_LASTING_NUMBERS: Final = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP),
    errno.ENXIO,  # a pipe or a socket in place of a file
)
_LASTING_NAMES: Final = (
    *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"),  # botocore
    *("ClientAuthenticationError", "CredentialUnavailableError"),  # azure
    *("AuthenticationException", "BadAuthenticationType", "PasswordRequiredException"),  # paramiko
    *("BadHostKeyException", "DefaultCredentialsError"),  # paramiko, google.auth
)
_NO_KEY: Final = "No authentication methods available"  # paramiko: a plain SSHException
_PASSING_STATUS: Final = frozenset({408, 423, 425, 429})  # HTTP: time-out, locked, too early, too many
_NOT_IMPLEMENTED: Final = 501  # a web server that accepts no files
_MOST_LETTERS: Final = 300

_silent: set[str] = set()
"""Places that did not answer any attempt. Until one answers, it is tried only once each time; otherwise
`fleet` would wait again for each of a thousand traces."""

_Answer = TypeVar("_Answer")


def tried(
    act: Callable[[], _Answer],
    place: str,
    *,
    wait: Callable[[float], None] = time.sleep,
    again: Callable[[Exception], bool] = lambda _: False,
) -> _Answer:
    """Return the result of `act`, which is called again after a temporary failure.

    `wait` is called with the time until the next attempt, in s. `again` may report that an error that is
    usually lasting is temporary. Raises the error of the last attempt.
    """
    for wait_s in (*(() if place in _silent else RETRY_AFTER_S), None):
        try:
            answer = act()
        except TracerError:
            raise
        except Exception as error:
            if is_lasting(error) and not again(error):
                raise
            if wait_s is None:
                _silent.add(place)
                raise
            wait(wait_s)
        else:
            _silent.discard(place)
            return answer
    raise AssertionError


def is_lasting(error: Exception) -> bool:
    """Return whether an error recurs at every attempt. The errors of object-store clients have no class in
    common, and these clients need not be installed."""
    if isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES or str(error) == _NO_KEY:
        return True
    statuses = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    status = next((one for one in statuses if isinstance(one, int)), None)
    if status is not None and (400 <= status < 500 or status == _NOT_IMPLEMENTED):
        return status not in _PASSING_STATUS
    return isinstance(error, OSError) and error.errno in _LASTING_NUMBERS


def reason(error: Exception) -> str:
    """Return the error in one line, without passwords."""
    words = " ".join(str(getattr(error, "strerror", None) or error).split())
    words = words.partition(" RequestId:")[0]  # azure appends the XML of the answer
    return shown_url(words)[:_MOST_LETTERS] or type(error).__name__
