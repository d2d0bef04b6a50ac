"""Symbol tables of processes by BCC's library (src/cc/bcc_syms.h).

Its Python package, which is not used here, takes twice as long to load.
"""

from __future__ import annotations

import ctypes


class _Symbol(ctypes.Structure):
    """struct bcc_symbol."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("demangled", ctypes.c_void_p),  # freed by BCC
        ("module", ctypes.c_char_p),
        ("offset", ctypes.c_uint64),
    )


class BccSymbols:
    """BCC's symbol table of a process, as of now. Raises OSError if BCC is not installed.

    It covers the modules that the process has mapped, read in its mount namespace with their debug files, and
    the perf map of a just-in-time compiler (/tmp/perf-PID.map). A module's symbols are read at the first
    look-up in it. Modules that are mapped later are missing.
    """

    def __init__(self, tgid: int) -> None:
        self._library = ctypes.CDLL("libbcc.so.0")
        self._library.bcc_symcache_new.restype = ctypes.c_void_p
        self._cache = ctypes.c_void_p(self._library.bcc_symcache_new(tgid, None))
        self._tgid = tgid

    def resolve(self, address: int) -> tuple[str | None, int, str | None]:
        """Return (symbol, offset in it, path of the module).

        Without a symbol, the offset is relative to the module; without a module, it is the address.
        """
        found = _Symbol()
        failed = self._library.bcc_symcache_resolve(
            self._cache, ctypes.c_uint64(address), ctypes.byref(found)
        )
        module = _text(found.module)
        if failed:
            return None, found.offset if module else address, module
        symbol = _text(ctypes.cast(found.demangled, ctypes.c_char_p).value)
        self._library.bcc_symbol_free_demangle_name(ctypes.byref(found))
        return symbol, found.offset, module

    def close(self) -> None:
        """Free the table, which has a file open for each module."""
        self._library.bcc_free_symcache(self._cache, self._tgid)


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode(errors="backslashreplace")
