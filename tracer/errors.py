"""The exceptions that the command line turns into a line on stderr and an exit status; and the bugs that
leave an answer incomplete."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

_MOST_NAMED: Final = 3


class TracerError(Exception):
    """An operation failed for a reason that the user can act on.

    The message is one line that says what to do next; `exit_code` is the exit status of the process.
    """

    exit_code = 1


class UsageError(TracerError):
    """The arguments make no sense on any machine."""

    exit_code = 2


class TraceError(TracerError):
    """A trace cannot be opened, read or written."""


class DefectError(TracerError):
    """Parts of an answer are missing because of bugs in memcg-tracer; the notes are their tracebacks."""

    def __init__(self, missing: str, tracebacks: Iterable[str]) -> None:
        super().__init__(f"{missing}; report the output with --debug")
        for shown in tracebacks:
            self.add_note(shown)


def bug(error: Exception) -> str:
    """Return the description of an error that no input should cause."""
    return f"a bug in memcg-tracer ({type(error).__name__}: {error})"


class Defects:
    """The bugs that spoiled the answer for single kills or cgroups; the answer for the others goes on."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def attempt(self, subject: str, answer: Callable[[], T], instead: Callable[[str], T]) -> T:
        """Return `answer()`. If a bug makes it fail, keep the bug with its subject and return `instead(why)`.

        Raises the errors that concern more than this subject: TracerError, OSError and the lack of memory.
        """
        try:
            return answer()
        except (TracerError, OSError, MemoryError, SystemError):
            raise
        except Exception as error:
            why = bug(error)
            _, subjects = self._found.setdefault(why, (traceback.format_exc(), []))
            if subject not in subjects:
                subjects.append(subject)
            return instead(why)

    def sentences(self) -> Sequence[str]:
        """Return a sentence for each bug: what could not be explained, and why."""
        return [
            f"{_listed(subjects)} could not be explained: {why}" for why, (_, subjects) in self._found.items()
        ]

    def tracebacks(self) -> Sequence[str]:
        """Return the traceback of the first time that each bug was met."""
        return [shown for shown, _ in self._found.values()]

    def raise_if_any(self) -> None:
        """Raise DefectError if there were bugs. Call it once the rest of the answer is written."""
        if self._found:
            raise DefectError("; ".join(self.sentences()), self.tracebacks())


def _listed(subjects: Sequence[str]) -> str:
    more = len(subjects) - _MOST_NAMED
    return ", ".join(subjects[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
