"""Names of the addresses in kernel stacks, without the frames of the tracer's own programs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_ADDRESS: Final = 16  # hexadecimal digits, then a space, the type and a space (s_show in kernel/kallsyms.c)
_TYPE_AT: Final = _ADDRESS + 1
_NAME_AT: Final = _TYPE_AT + 2
_CODE: Final = np.isin(np.arange(256), np.frombuffer(b"tTwW", np.uint8))
"""Whether a type is that of code, local or global (nm(1))."""
_CHUNK_BYTES: Final = 1 << 16  # the names in so much of the table are compressed together
_OPENED: Final = 16  # the most blocks that are kept decompressed, of about 100 KB each
_CODEC: Final = pa.Codec("zstd", 1)
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
        starts = [np.zeros(0, np.uint64)]
        firsts = [0]
        self._blocks: list[tuple[bytes, int]] = []  # compressed names, and their length
        self._opened: dict[int, list[bytes]] = {}
        with suppress(OSError, ValueError), file.open("rb", buffering=_CHUNK_BYTES) as lines:
            while text := lines.read(_CHUNK_BYTES):
                addresses, names = _functions(text + lines.readline())
                starts.append(addresses)
                firsts.append(firsts[-1] + len(addresses))
                self._blocks.append((_CODEC.compress(names, asbytes=True), len(names)))
        addresses = np.concatenate(starts)
        self._order = np.argsort(addresses, kind="stable").astype(np.uint32)  # modules: in any order, last
        self._starts = addresses[self._order]
        self._firsts = np.array(firsts)

    def at(self, address: int) -> str | None:
        """Return symbol+offset of an address; None if it lies before all symbols."""
        place = int(np.searchsorted(self._starts, np.uint64(address), "right")) - 1
        if place < 0:
            return None
        number = int(self._order[place])
        block = int(np.searchsorted(self._firsts, number, "right")) - 1
        name = self._names(block)[number - int(self._firsts[block])].partition(b"\t")[0]
        return f"{name.decode(errors='backslashreplace')}+{address - int(self._starts[place]):#x}"

    def _names(self, block: int) -> list[bytes]:
        if block not in self._opened:
            if len(self._opened) == _OPENED:
                del self._opened[next(iter(self._opened))]
            names, length = self._blocks[block]
            self._opened[block] = _CODEC.decompress(names, length, asbytes=True).split(b"\n")
        return self._opened[block]


def _functions(text: bytes) -> tuple[npt.NDArray[np.uint64], bytes]:
    """Return the addresses of the functions in lines of the table, and their names, each with its module, in
    a line each.

    A hidden address is 0. Raises ValueError for lines of another form.
    """
    letters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(letters == ord("\n")) + 1
    begins = np.concatenate(([0], ends[:-1]))
    if not ends.size or ends[-1] != len(text) or (ends - begins <= _NAME_AT).any():
        raise ValueError("a line is cut, or of another form")
    digits = letters[begins[:, np.newaxis] + np.arange(_ADDRESS)].tobytes().decode("ascii")
    addresses = np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)
    if len(addresses) != len(begins):
        raise ValueError("an address has other characters than digits")
    is_function = _CODE[letters[begins + _TYPE_AT]] & (addresses != 0)
    is_of_name = np.repeat(is_function, ends - begins)
    is_of_name[begins[:, np.newaxis] + np.arange(_NAME_AT)] = False
    return addresses[is_function], letters[is_of_name].tobytes()


class KernelNames:
    """Names kernel addresses; any thread may use it. `read` returns a symbol table of the kernel."""

    def __init__(self, read: Callable[[], KernelSymbols] = KernelSymbols) -> None:
        self._read = read
        self._symbols: KernelSymbols | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Read the symbol table now, unless a look-up has read it: it has the symbols of this moment."""
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
