"""The extras of the package, and the error of one line that says how to install a missing one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tracer.errors import TracerError

_PACKAGE_OF_MODULE: Final = {"google": "protobuf"}


@contextmanager
def from_extra(extra: str, what: str) -> Iterator[None]:
    """Import the packages of an extra in this block, for `what` ("a picture").

    Raises TracerError if a package is missing. A missing module of the project itself is a bug, and stays an
    ImportError.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        package = _PACKAGE_OF_MODULE.get(package, package)
        if not package or package == __package__:
            raise
        raise TracerError(f"{what} needs {package}: pip install 'memcg-tracer[{extra}]'") from error
