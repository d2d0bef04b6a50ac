"""Names of the addresses in kernel stacks, without the frames of the tracer's own programs."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import compress, dropwhile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

_ADDRESS: Final = 16  # hexadecimal digits, then a space, the type and a space (s_show in kernel/kallsyms.c)
_TYPE_AT: Final = _ADDRESS + 1
_NAME_AT: Final = _TYPE_AT + 2
_CODE: Final = np.frombuffer(b"tTwW", np.uint8)
"""The types of code, local or global (nm(1))."""
_CHUNK_BYTES: Final = 1 << 16
_BLOCK: Final = 256  # names that are compressed together
_OPENED: Final = 128  # the most blocks that are kept decompressed, of about 5 KB each
_TRAMPOLINE: Final = "bpf_trampoline_"
_PROBE_FRAMES: Final = ("bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", _TRAMPOLINE)
"""Functions between a hook and its program (kernel/trace/bpf_trace.c, include/trace/bpf_probe.h,
kernel/bpf/trampoline.c)."""


class KernelSymbols:
    """The kernel's functions and those of BPF programs, as of when the table was read.

    They come from /proc/kallsyms (kernel/kallsyms.c), whose addresses are 0 for a reader without CAP_SYSLOG.
    A table that cannot be read, or is of another form, names nothing from there on.
    The names are compressed: 100,000 functions take 2 MB.
    """

    def __init__(self, file: Path = Path("/proc/kallsyms")) -> None:
        starts, names = [np.zeros(0, np.uint64)], list[bytes]()
        self._blocks: list[bytes] = []
        self._opened: dict[int, bytes] = {}
        with suppress(OSError, ValueError), file.open("rb", buffering=_CHUNK_BYTES) as lines:
            while text := lines.read(_CHUNK_BYTES):
                addresses, functions = _functions((text + lines.readline()).splitlines())
                starts.append(addresses)
                names += functions
                whole = len(names) - len(names) % _BLOCK
                self._compress(names[:whole])
                del names[:whole]
        self._compress(names)
        addresses = np.concatenate(starts)
        self._order = np.argsort(addresses, kind="stable").astype(np.uint32)  # modules: in any order, last
        self._starts = addresses[self._order]

    def _compress(self, names: Sequence[bytes]) -> None:
        for at in range(0, len(names), _BLOCK):
            self._blocks.append(zlib.compress(b"\n".join(names[at : at + _BLOCK]), 1))

    def at(self, address: int) -> str | None:
        """Return symbol+offset of an address; None if it lies before all symbols."""
        place = int(np.searchsorted(self._starts, np.uint64(address), "right")) - 1
        if place < 0:
            return None
        block, number = divmod(int(self._order[place]), _BLOCK)
        if block not in self._opened:
            if len(self._opened) == _OPENED:
                del self._opened[next(iter(self._opened))]
            self._opened[block] = zlib.decompress(self._blocks[block])
        name = self._opened[block].split(b"\n")[number].partition(b"\t")[0]
        return f"{name.decode(errors='backslashreplace')}+{address - int(self._starts[place]):#x}"


def _functions(lines: Sequence[bytes]) -> tuple[npt.NDArray[np.uint64], Iterable[bytes]]:
    """Return the addresses and the names of the functions in lines of the table; a module follows its name.

    A hidden address is 0. Columns take half the time of a regular expression.
    """
    text = np.array(lines, f"S{_NAME_AT}").view(np.uint8).reshape(len(lines), _NAME_AT)
    digits = text[:, :_ADDRESS].tobytes().decode("ascii")
    addresses = np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)
    is_function = np.isin(text[:, _TYPE_AT], _CODE) & (addresses != 0)
    return addresses[is_function], compress((line[_NAME_AT:] for line in lines), is_function.tolist())


class KernelNames:
    """Names kernel addresses; any thread may use it. `read` returns a symbol table of the kernel."""

    def __init__(self, read: Callable[[], KernelSymbols] = KernelSymbols) -> None:
        self._read = read
        self._symbols: KernelSymbols | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the symbol table now, and not at the first look-up.

        The table has the symbols of BPF programs that are attached by now.
        """
        self.frames([])

    def frames(self, addresses: Sequence[int]) -> list[str]:
        """Return a name for each frame, innermost first, without the frames of the tracer's own programs."""
        with self._lock:
            if self._symbols is None:
                self._symbols = self._read()
            names = [self._symbols.at(address) or f"{address:#x}" for address in addresses]
        return without_probes(names)


def without_probes(frames: Sequence[str]) -> list[str]:
    """Return a kernel stack, innermost first, as it would be without hooks.

    A trampoline calls a function whose exit is hooked, and is itself called by the first instruction of that
    function. So the function may appear twice.
    """
    kept: list[str] = []
    is_behind_trampoline = False
    for frame in dropwhile(lambda frame: frame.startswith(_PROBE_FRAMES), frames):
        is_trampoline = frame.startswith(_TRAMPOLINE)
        is_again = is_behind_trampoline and frame.partition("+")[0] == kept[-1].partition("+")[0]
        if not is_trampoline and not is_again:
            kept.append(frame)
        is_behind_trampoline = is_trampoline
    return kept
