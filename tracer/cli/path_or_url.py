"""Places of traces as users type them: a directory, or a URL to which traces are copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tracer.errors import TracerError, UsageError


class PathOrUrl(click.Path):
    """The type of an option: the value is a Path, or a str for a URL."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)  # the reader's own error says more

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a URL unchanged, and any other value as a Path."""
        from tracer.urls import is_url

        return value if isinstance(value, str) and is_url(value) else super().convert(value, param, ctx)


def check_in_child(check: Callable[[], object]) -> None:
    """Run a check in a child, with which its imports end. Raises the check's UsageError or TracerError."""
    from tracer.kernel.process.forked_child import call_in_child

    def answer() -> list[Any]:
        try:
            check()
        except TracerError as error:
            return [error.exit_code, str(error)]
        return [0, ""]

    status, message = call_in_child(answer)
    if status:
        raise (UsageError if status == UsageError.exit_code else TracerError)(message)
