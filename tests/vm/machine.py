"""A virtual machine in software emulation, with this machine's files as its root.

9p and q35 are used because they work under emulation; virtiofs corrupted memory and microvm hung in trials.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vm.compile_service import CompileService, can_compile
from vm.host_clock import tsc_khz
from vm.initrd import initrd
from vm.kernels import Kernel
from vm.programs import call, find
from vm.python_disk import CHECKOUT, PythonDisk

INIT: Final = Path("/lib/systemd/systemd")
"""The first process of a guest with systemd: this machine's, as all programs of a guest."""

_CPU: Final = "Nehalem"  # the least for binary wheels (x86-64-v2); further instructions are slow to emulate
_MEMORY_MIB: Final = 3072
_DISK_BYTES: Final = 4 << 30  # sparse
_STOPS_WITHIN_S: Final = 60.0  # after the time limit of the guest's tests
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KERNEL_OPTIONS: Final = (
    "console=ttyS0 quiet panic=-1 oops=panic reboot=t mitigations=off nokaslr nowatchdog random.trust_cpu=on "
    "hugepages=8 "  # of 2 MiB, for files of hugetlbfs
    "rcupdate.rcu_expedited=1"  # attaching and detaching a program waits for grace periods
)


class Standstill:
    """The detection of a guest at a standstill, by the processor time that it uses.

    An emulated processor can lose its timer and wait for it forever (seen once in about thirty boots; the
    guest's rcu_preempt reports it then). A guest that waits for anything else uses more processor time, or
    waits for a shorter time.
    """

    LASTS_S: Final = 150.0
    _LEAST_SHARE: Final = 0.05  # of a processor; 0.02 was seen at a standstill
    _STEP_S: Final = 10.0

    def __init__(self, now_s: float) -> None:
        self._moved_s = self._looked_s = now_s
        self._used_s = 0.0

    def is_there(self, now_s: float, used_s: float) -> bool:
        """Return whether the guest is at a standstill, given the processor time that it has used until
        now."""
        step_s = now_s - self._looked_s
        if step_s >= self._STEP_S:
            if used_s - self._used_s >= self._LEAST_SHARE * step_s:
                self._moved_s = now_s
            self._looked_s, self._used_s = now_s, used_s
        return now_s - self._moved_s >= self.LASTS_S


class Machine:
    """A guest that boots at once, runs guest.sh, and stops; at the end of the context it is killed.

    Its output goes to the folder `results`, which is emptied before, and in which it finds `files`. `tests`
    are files for pytest, `markers` is an expression for -m, and `factor` is the factor by which the guest is
    slower than a real machine. The folders of `python` lie over those of the host. `options` are further
    options of the kernel's command line. `init` is "systemd" if that is to be the guest's first process, and
    run guest.sh as a service.
    """

    def __init__(
        self,
        kernel: Kernel,
        results: Path,
        *,
        cgroup_version: int,
        tests: list[str],
        markers: str,
        factor: int,
        timeout_s: int,
        python: PythonDisk,
        files: Mapping[str, bytes],
        options: str = "",
        init: str = "",
    ) -> None:
        self.results = results
        self.deadline = time.monotonic() + timeout_s + _STOPS_WITHIN_S
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        for name, content in {
            **files,
            "tests": "\n".join(tests).encode(),
            "markers": markers.encode(),
        }.items():
            (results / name).write_bytes(content)
        self._scratch = tempfile.TemporaryDirectory(prefix="guest-", dir=results.parent)
        self._compile_service = CompileService(results / "compile")
        variables = {
            "VM_HOST_COMPILES": "yes" if can_compile() else "",
            "VM_CHECKOUT": str(CHECKOUT),
            "VM_RESULTS": str(results),
            "VM_INIT": init,
            "VM_FOLDERS": "\n".join(map(str, python.folders)),
            "VM_CGROUP": str(cgroup_version),
            "VM_TIMEOUT_S": str(timeout_s),
            "MEMCG_TRACER_SLOWDOWN": str(factor),
        }
        scratch = Path(self._scratch.name)
        (scratch / "initrd").write_bytes(initrd(kernel.modules, variables))
        _make_disk(scratch / "disk")
        with (results / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                _command(kernel, scratch, results, python, options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        self._standstill = Standstill(time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the guest if it still runs."""
        self._process.kill()
        self._process.wait()
        self._compile_service.stop()
        self._scratch.cleanup()

    def is_at_a_standstill(self) -> bool:
        """Return whether the guest runs but makes no progress."""
        if self._process.poll() is not None:
            return False
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        used_s = (int(stat[11]) + int(stat[12])) / _TICKS_PER_S  # utime and stime
        return self._standstill.is_there(time.monotonic(), used_s)

    def has_ended(self) -> bool:
        """Return whether the guest stopped, or exceeded its time; until then, compile for it."""
        self._compile_service.serve()
        return self._process.poll() is not None or time.monotonic() > self.deadline


def _make_disk(file: Path) -> None:
    with file.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    call("mkfs.ext4", "-qF", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", file)


def _command(kernel: Kernel, scratch: Path, results: Path, python: PythonDisk, options: str) -> list[str]:
    command = [find("qemu-system-x86_64"), "-machine", "q35,usb=off", "-smp", "2", "-cpu", _CPU]
    command += ["-m", f"{_MEMORY_MIB}M", "-accel", "tcg,thread=multi,tb-size=512", "-no-reboot"]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]
    command += ["-kernel", str(kernel.vmlinux), "-initrd", str(scratch / "initrd")]
    options = f"{_KERNEL_OPTIONS} tsc_early_khz={tsc_khz()} {options}"
    command += ["-append", options, "-serial", f"file:{_escaped(results)}/console"]
    command += ["-drive", f"file={_escaped(scratch)}/disk,format=raw,if=none,id=disk,cache=unsafe"]
    command += ["-device", "virtio-blk-pci,drive=disk"]
    command += ["-drive", f"file={_escaped(python.image)},format=raw,if=none,id=python,readonly=on"]
    command += ["-device", "virtio-blk-pci,drive=python"]
    for tag, folder, access in (
        ("root", Path("/"), ",readonly=on"),
        ("checkout", CHECKOUT, ",readonly=on"),
        ("results", results, ""),
    ):
        options = f"local,id={tag},path={_escaped(folder)},security_model=none,multidevs=remap{access}"
        command += ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return command


def _escaped(path: Path) -> str:
    """Return a path for an option of QEMU, in which a comma is doubled."""
    return str(path).replace(",", ",,")
