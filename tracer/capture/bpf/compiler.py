"""BCC at work in a child of this process, where it has most of a recorder's start to itself.

There, clang's memory is given back when it is done; what it and BCC write to the standard streams stays out
of ours; and where LLVM calls something fatal and ends the process, ours goes on to say so.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

from tracer.capture.bpf.object_cache import UnitCache, key_of
from tracer.capture.bpf.object_file import Code, MapDefinition, Unit
from tracer.capture.bpf.syscall import sizes_of
from tracer.errors import TracerError
from tracer.kernel.process.forked_child import end_with_parent
from tracer.kernel.process.priority import prefer_this_thread

_FORMAT: Final = "1"  # of what is kept; another one for each change of `Unit.encode`


class Compilation:
    """A unit that is being compiled, or that was found in `cache`. `include`: the folder of headers that it
    is compiled with.
    """

    def __init__(
        self, bcc: ModuleType, text: str, flags: list[str], *, include: Path, cache: UnitCache
    ) -> None:
        self._cache = cache
        self._key = _key(bcc, text, flags, include)
        self._unit = cache.get(self._key)
        self._child = 0
        if self._unit is None:
            self._said, self._made = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  until `unit`
            self._child = os.fork()
            if self._child == 0:
                os.environ["BCC_KERNEL_SOURCE"] = str(include)
                _compile(bcc, text, flags, made=self._made, said=self._said)

    def unit(self) -> Unit:
        """Once it is done. Raises TracerError where it cannot be compiled."""
        if self._unit is None:
            _, status = os.waitpid(self._child, 0)
            self._child = 0
            with self._made, self._said:
                for file in (self._made, self._said):
                    file.seek(0)
                if status:
                    raise self._failure(os.waitstatus_to_exitcode(status))
                self._unit = Unit.decode(self._made.read())
            self._cache.put(self._key, self._unit)
        return self._unit

    def stop(self) -> None:
        """Give up what is not done."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._made.close()
            self._said.close()
            self._child = 0

    def _failure(self, code: int) -> TracerError:
        """One line for the user; all that was said is in a note, which --debug shows."""
        text = (self._said.read() + self._made.read()).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        how = f"it was ended by {signal.Signals(-code).name}" if code < 0 else "it gave up"
        first = (
            next((line for line in lines if "error:" in line), "")
            or (lines or [f"{how} and said nothing"])[-1]
        )
        if os.geteuid() != 0:
            first = "tracing needs root (run it with sudo)"
        error = TracerError(f"BCC cannot compile the BPF programs: {first}; see memcg-tracer doctor")
        error.add_note(text)
        return error


def _key(bcc: ModuleType, text: str, flags: list[str], include: Path) -> str:
    """By all that the outcome depends on: BCC looks into the running kernel too."""
    headers = [path for path in sorted(include.rglob("*")) if path.is_file()]
    return key_of(
        _FORMAT,
        str(getattr(bcc, "__version__", "")),
        *os.uname()[2:],  # release, version and machine
        text,
        *flags,
        *(part for path in headers for part in (str(path.relative_to(include)), path.read_bytes())),
    )


def _compile(bcc: ModuleType, text: str, flags: list[str], *, made: Any, said: Any) -> NoReturn:
    """The child."""
    status = 1
    try:
        end_with_parent()
        prefer_this_thread()
        for fd in (1, 2):
            os.dup2(said.fileno(), fd)
        sys.stdout = sys.stderr = os.fdopen(1, "w", 1, errors="backslashreplace", closefd=False)
        made.write(unit_of(bcc, bcc.BPF(text=text.encode(), cflags=flags)).encode())
        made.flush()
        status = 0
    except SystemExit:  # BCC has printed why
        pass
    except Exception as error:
        made.write(str(error).encode())
        made.flush()
    finally:
        os._exit(status)


def unit_of(bcc: ModuleType, compiled: Any) -> Unit:
    """What BCC's object holds."""
    library, module = bcc.lib, compiled.module
    library.bpf_num_tables.argtypes, library.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_ulonglong
    library.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    library.bpf_table_name.restype = ctypes.c_char_p
    names = [library.bpf_table_name(module, number) for number in range(library.bpf_num_tables(module))]
    fds = [library.bpf_table_fd(module, name) for name in names]
    maps = tuple(
        MapDefinition(
            name.decode(),
            *sizes_of(fd),
            library.bpf_table_key_desc(module, name).decode(),
            library.bpf_table_leaf_desc(module, name).decode(),
        )
        for name, fd in zip(names, fds, strict=True)
    )
    numbers = {fd: number for number, fd in enumerate(fds)}
    functions = [library.bpf_function_name(module, n) for n in range(library.bpf_num_functions(module))]
    return Unit(maps, {name.decode(): Code.of(compiled.dump_func(name), numbers) for name in functions})
