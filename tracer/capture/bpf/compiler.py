"""Compilation by BCC in a child process, in parallel with the rest of a recorder's start.

The child's exit gives clang's memory back. Output of BCC and clang goes to a file and not to the user's
terminal. If LLVM meets a fatal error and ends the process, the recorder survives and reports it.
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

from tracer.capture.bpf.object_cache import ObjectCache, cache_key
from tracer.capture.bpf.object_file import MapDefinition, ObjectFile, ProgramCode
from tracer.capture.bpf.syscall import map_sizes
from tracer.errors import TracerError
from tracer.kernel.process.forked_child import end_with_parent
from tracer.kernel.process.priority import prefer_this_thread

_FORMAT: Final = "1"  # of the cached objects: change it with `ObjectFile.encode`


class Compilation:
    """A compilation that runs, or an object file that was found in `cache`.

    `text` is the C source, `include` the folder of the headers that it includes.
    """

    def __init__(
        self, bcc: ModuleType, text: str, flags: list[str], *, include: Path, cache: ObjectCache
    ) -> None:
        self._cache = cache
        self._key = _key(bcc, text, flags, include)
        self._object = cache.get(self._key)
        self._child = 0
        if self._object is None:
            self._output, self._document = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  until `result`
            self._child = os.fork()
            if self._child == 0:
                os.environ["BCC_KERNEL_SOURCE"] = str(include)
                _compile(bcc, text, flags, document=self._document, output=self._output)

    def result(self) -> ObjectFile:
        """Wait for the compiler and return the object file. Raises TracerError if the source does not
        compile.
        """
        if self._object is None:
            _, status = os.waitpid(self._child, 0)
            self._child = 0
            with self._document, self._output:
                for file in (self._document, self._output):
                    file.seek(0)
                if status:
                    raise self._failure(os.waitstatus_to_exitcode(status))
                self._object = ObjectFile.decode(self._document.read())
            self._cache.put(self._key, self._object)
        return self._object

    def stop(self) -> None:
        """Kill the compiler if it still runs."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._document.close()
            self._output.close()
            self._child = 0

    def _failure(self, code: int) -> TracerError:
        """Return an error of one line for the user, with the whole output in a note, which --debug shows."""
        text = (self._output.read() + self._document.read()).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        how = f"the compiler was ended by {signal.Signals(-code).name}" if code < 0 else "the compiler failed"
        first = (
            next((line for line in lines if "error:" in line), "")
            or (lines or [f"{how} without a message"])[-1]
        )
        if os.geteuid() != 0:
            first = "tracing needs root (run it with sudo)"
        error = TracerError(f"BCC cannot compile the BPF programs: {first}; see memcg-tracer doctor")
        error.add_note(text)
        return error


def _key(bcc: ModuleType, text: str, flags: list[str], include: Path) -> str:
    """Return a digest of everything that the outcome depends on; BCC also looks at the running kernel."""
    headers = [path for path in sorted(include.rglob("*")) if path.is_file()]
    return cache_key(
        _FORMAT,
        str(getattr(bcc, "__version__", "")),
        *os.uname()[2:],  # release, version and machine
        text,
        *flags,
        *(part for path in headers for part in (str(path.relative_to(include)), path.read_bytes())),
    )


def _compile(bcc: ModuleType, text: str, flags: list[str], *, document: Any, output: Any) -> NoReturn:
    """Compile in the child, write the object file to `document`, and exit."""
    status = 1
    try:
        end_with_parent()
        prefer_this_thread()
        for fd in (1, 2):
            os.dup2(output.fileno(), fd)
        sys.stdout = sys.stderr = os.fdopen(1, "w", 1, errors="backslashreplace", closefd=False)
        document.write(read_object(bcc, bcc.BPF(text=text.encode(), cflags=flags)).encode())
        document.flush()
        status = 0
    except SystemExit:  # BCC has printed the reason
        pass
    except Exception as error:
        document.write(str(error).encode())
        document.flush()
    finally:
        os._exit(status)


def read_object(bcc: ModuleType, compiled: Any) -> ObjectFile:
    """Return the maps and programs of a compiled `bcc.BPF` object."""
    library, module = bcc.lib, compiled.module
    library.bpf_num_tables.argtypes, library.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_ulonglong
    library.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    library.bpf_table_name.restype = ctypes.c_char_p
    names = [library.bpf_table_name(module, number) for number in range(library.bpf_num_tables(module))]
    fds = [library.bpf_table_fd(module, name) for name in names]
    maps = tuple(
        MapDefinition(
            name.decode(),
            *map_sizes(fd),
            library.bpf_table_key_desc(module, name).decode(),
            library.bpf_table_leaf_desc(module, name).decode(),
        )
        for name, fd in zip(names, fds, strict=True)
    )
    numbers = {fd: number for number, fd in enumerate(fds)}
    functions = [library.bpf_function_name(module, n) for n in range(library.bpf_num_functions(module))]
    return ObjectFile(
        maps,
        {
            name.decode(): ProgramCode.from_instructions(compiled.dump_func(name), numbers)
            for name in functions
        },
    )
