"""What is tried again, what is not, and its words."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tracer.directory import Directory
from tracer.errors import TracerError
from tracer.fleet.pushing import attempts
from tracer.fleet.pushing.attempts import is_lasting, reason, tried


def of_client(name: str, words: str = "no", **attributes: Any) -> Exception:
    """Return an error of a class that only the client of a store has."""
    error: Exception = type(name, (Exception,), {})(words)
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("no"),
        FileNotFoundError("no"),
        OSError(errno.ENOSPC, "No space left on device"),
        of_client("NoCredentialsError"),
        of_client("ResourceNotFoundError", status_code=404),
        of_client("ClientResponseError", status=403),
        of_client("ClientResponseError", status=501),
        of_client("AuthenticationException"),
        of_client("SSHException", "No authentication methods available"),
    ],
)
def test_what_does_not_pass_is_tried_once(error: Exception) -> None:
    calls, waits = list[int](), list[float]()

    def act() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        tried(act, "x://a", wait=waits.append)
    assert (len(calls), waits) == (1, [])
    assert is_lasting(error)


def test_pipe_in_place_of_a_file_is_opened_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meta.json")
    with Directory.open(tmp_path) as folder, pytest.raises(OSError, match="is not a regular file") as raised:
        folder.read("meta.json")
    assert is_lasting(raised.value)
    assert reason(raised.value) == f"{tmp_path / 'meta.json'} is not a regular file"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("no"),
        TimeoutError(),
        of_client("ServiceRequestError"),
        of_client("HttpResponseError", status_code=503),
        of_client("HttpResponseError", status_code=429),
        of_client("SSHException", "Server connection dropped"),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_silent", set())
    waits, failures = list[float](), [error] * 2

    def act() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert tried(act, "x://a", wait=waits.append) == "answer"
    assert waits == [0.5, 1.0]


def test_place_that_gave_no_answer_is_asked_once_until_it_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_silent", set())
    waits = list[float]()

    def act() -> None:
        raise ConnectionResetError

    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            tried(act, "x://a", wait=waits.append)
    assert waits == [*attempts.RETRY_AFTER_S]
    assert tried(lambda: 1, "x://a") == 1
    with pytest.raises(ConnectionResetError):
        tried(act, "x://a", wait=waits.append)
    assert waits == [*attempts.RETRY_AFTER_S] * 2


def test_error_of_this_package_is_not_tried_again() -> None:
    def act() -> None:
        raise TracerError("damaged")

    with pytest.raises(TracerError, match="damaged"):
        tried(act, "x://a", wait=lambda _: pytest.fail("it waits"))


def test_reason_is_a_line_without_passwords_and_xml() -> None:
    assert reason(RuntimeError("no\n way to sftp://me:secret@host/x")) == "no way to sftp://me:***@host/x"
    assert reason(RuntimeError("No container.\nRequestId:1\nContent: <?xml")) == "No container."
    assert reason(RuntimeError()) == "RuntimeError"
