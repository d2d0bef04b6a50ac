"""Steps that work with files: on a disk, in memory, and the file of a program."""

from __future__ import annotations

import mmap
import os
import sys

from tracer.lab.workload.amounts import CHUNK_BYTES, Pause, parts


def read(pause: Pause, *files: str) -> None:
    buffer = bytearray(CHUNK_BYTES)
    for file in files:
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123  (pathlib would cost its import)
            while stream.readinto(buffer):
                pause()


def write(pause: Pause, file: str, size_bytes: str) -> None:
    with open(file, "xb", buffering=0) as stream:  # noqa: PTH123
        for part in parts(int(size_bytes)):
            stream.write(b"\xa5" * len(part))
            pause()


def files(pause: Pause, directory: str, count: str) -> None:
    for number in range(int(count)):
        os.close(os.open(f"{directory}/{number:06d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        pause()


def execute(__: Pause, program: str, times: str) -> None:
    if not os.path.samefile("/proc/self/exe", program):  # noqa: PTH121
        # The copy is not where its libraries are. Without the site-packages, it starts fast.
        os.environ["PYTHONHOME"] = sys.base_prefix
        os.environ["PYTHONPATH"] = os.path.abspath(f"{__file__}/../../../..")  # noqa: PTH100
        os.execv(program, [program, "-S", "-P", "-m", __package__, *sys.argv[1:]])
    with open(program, "rb") as stream:  # noqa: PTH123
        text = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    for _ in range(int(times)):
        for page in range(0, len(text), mmap.PAGESIZE):
            sum(text[page : page + mmap.PAGESIZE])  # some work, which takes less time than a read


def leave(pause: Pause, directory: str, size_bytes: str) -> None:
    from tracer.lab.workload.namespaces import mount_privately  # noqa: PLC0415  few steps need it

    mount_privately("tmpfs", directory, "mode=0700")
    writer = os.fork()
    if not writer:
        write(pause, f"{directory}/left-behind", size_bytes)
        os._exit(0)
    os.waitpid(writer, 0)
