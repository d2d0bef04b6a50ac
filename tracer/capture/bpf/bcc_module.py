"""BCC: found and imported, its output captured, its symbol tables. The only importer of `bcc`."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tracer.errors import TracerError


def find_bcc() -> ModuleType:
    """Import BCC, from the distribution's folder if this Python does not see it. Raises TracerError.

    PyPI has an unrelated package of the same name, so a `bcc` without `BPF` is passed over.
    """
    places = [
        *Path("/usr/lib").glob("python3*/dist-packages"),
        *Path("/usr/lib").glob("python3*/site-packages"),
    ]
    found_wrong = False
    try:
        module = importlib.import_module("bcc")
    except ImportError:
        pass
    except Exception:  # an unrelated package may raise anything
        found_wrong = True
    else:
        if hasattr(module, "BPF"):
            return module
        found_wrong = True
    for place in places:
        init = place / "bcc" / "__init__.py"
        if init.is_file():
            return _import_from(init)
    hint = "install the distribution's: apt-get install python3-bpfcc (Fedora, RHEL: python3-bcc)"
    if found_wrong:
        raise TracerError(
            f"the `bcc` that Python finds is PyPI's package, not the BPF Compiler Collection; {hint}"
        )
    raise TracerError(f"BCC, the BPF Compiler Collection, is not installed; {hint}")


def _import_from(init: Path) -> ModuleType:
    for name in [n for n in sys.modules if n == "bcc" or n.startswith("bcc.")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("bcc", init, submodule_search_locations=[str(init.parent)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        del sys.modules["bcc"]
        raise TracerError(f"BCC is installed in {init.parent} but does not load: {error}") from None
    return module


@contextmanager
def output_to(log: Any) -> Iterator[None]:
    """Redirect descriptors 1 and 2 to a file: BCC and LLVM write to them directly."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    try:
        for fd in saved:
            os.dup2(log.fileno(), fd)
        yield
    finally:
        for fd, copy in saved.items():
            os.dup2(copy, fd)
            os.close(copy)


class BccSymbols:
    """BCC's symbol table of a process, as of now.

    It covers the modules that the process has mapped, read in its mount namespace with their debug files, and
    the perf map of a just-in-time compiler (/tmp/perf-PID.map). A module's symbols are read at the first
    look-up in it. Modules that are mapped later are missing.
    """

    def __init__(self, bcc: Any, tgid: int) -> None:
        self._library = bcc.lib
        self._tgid = tgid
        self._cache = bcc.SymbolCache(tgid)

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        """Return (symbol, offset in it, path of the module).

        Without a symbol the offset is that in the module; without a module it is the address.
        """
        symbol, offset, module = self._cache.resolve(address, True)
        return _text(symbol), int(offset), _text(module)

    def close(self) -> None:
        """Free the table, which has a file open for each module. BCC's own class frees nothing."""
        self._library.bcc_free_symcache(self._cache.cache, self._tgid)


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode(errors="backslashreplace")
