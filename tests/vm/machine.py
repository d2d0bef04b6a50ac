"""A virtual machine in software emulation, with this machine's files as its root.

9p and q35 because they hold up under emulation; virtiofs and microvm were seen to corrupt memory and to hang.
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

from vm.initrd import initrd
from vm.kernels import Kernel
from vm.programs import call, find

CHECKOUT: Final = Path(__file__).parents[2]

_CPU: Final = "Nehalem"  # as little as binary wheels take (x86-64-v2): what more can do is slow to emulate
_MEMORY_MIB: Final = 3072
_DISK_BYTES: Final = 4 << 30  # sparse
_STOPS_WITHIN_S: Final = 60.0  # after the guest's own time limit
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KERNEL_OPTIONS: Final = (
    "console=ttyS0 quiet panic=-1 oops=panic reboot=t mitigations=off nokaslr nowatchdog random.trust_cpu=on "
    "hugepages=8 "  # of 2 MiB, for files of hugetlbfs
    "rcupdate.rcu_expedited=1"  # attaching and detaching a program waits for grace periods
)


class Standstill:
    """A guest that came to a standstill: an emulated processor can lose its timer, and waits for it for ever
    (seen once in some thirty boots; rcu_preempt of the guest then says so). One that waits for anything else
    uses more time than that, or does so for shorter.
    """

    LASTS_S: Final = 150.0
    _LEAST_SHARE: Final = 0.05  # of a processor; 0.02 were seen at a standstill
    _STEP_S: Final = 10.0

    def __init__(self, now_s: float) -> None:
        self._moved_s = self._looked_s = now_s
        self._used_s = 0.0

    def is_there(self, now_s: float, used_s: float) -> bool:
        """By the processor time that it has used until now."""
        step_s = now_s - self._looked_s
        if step_s >= self._STEP_S:
            if used_s - self._used_s >= self._LEAST_SHARE * step_s:
                self._moved_s = now_s
            self._looked_s, self._used_s = now_s, used_s
        return now_s - self._moved_s >= self.LASTS_S


class Machine:
    """Boots at once, runs guest.sh, and stops. What it says goes to `results`, which is emptied before.

    `tests`: files for pytest, `markers` which of their tests (an expression for -m). `factor`: how much
    slower than a real machine it is. `files`: what to put into `results` for it. `options`: more of the
    kernel's command line. What still runs when the context is left is killed.
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
        files: Mapping[str, bytes],
        options: str = "",
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
        variables = {
            "VM_CHECKOUT": str(CHECKOUT),
            "VM_RESULTS": str(results),
            "VM_CGROUP": str(cgroup_version),
            "VM_TIMEOUT_S": str(timeout_s),
            "MEMCG_TRACER_SLOWDOWN": str(factor),
        }
        scratch = Path(self._scratch.name)
        (scratch / "initrd").write_bytes(initrd(kernel.modules, variables))
        _make_disk(scratch / "disk")
        with (results / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                _command(kernel, scratch, results, options), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

        self._standstill = Standstill(time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()
        self._scratch.cleanup()

    def is_at_a_standstill(self) -> bool:
        """Whether it runs, and does nothing any more."""
        if self._process.poll() is not None:
            return False
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        used_s = (int(stat[11]) + int(stat[12])) / _TICKS_PER_S  # utime and stime
        return self._standstill.is_there(time.monotonic(), used_s)

    def has_ended(self) -> bool:
        """Whether it stopped, or took too long."""
        return self._process.poll() is not None or time.monotonic() > self.deadline


def _make_disk(file: Path) -> None:
    with file.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    call("mkfs.ext4", "-qF", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", file)


def _command(kernel: Kernel, scratch: Path, results: Path, options: str) -> list[str]:
    command = [find("qemu-system-x86_64"), "-machine", "q35,usb=off", "-smp", "2", "-cpu", _CPU]
    command += ["-m", f"{_MEMORY_MIB}M", "-accel", "tcg,thread=multi,tb-size=512", "-no-reboot"]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]
    command += ["-kernel", str(kernel.vmlinux), "-initrd", str(scratch / "initrd")]
    command += ["-append", f"{_KERNEL_OPTIONS} {options}", "-serial", f"file:{_escaped(results)}/console"]
    command += ["-drive", f"file={_escaped(scratch)}/disk,format=raw,if=none,id=disk,cache=unsafe"]
    command += ["-device", "virtio-blk-pci,drive=disk"]
    for tag, folder, access in (
        ("root", Path("/"), ",readonly=on"),
        ("checkout", CHECKOUT, ",readonly=on"),
        ("results", results, ""),
    ):
        options = f"local,id={tag},path={_escaped(folder)},security_model=none,multidevs=remap{access}"
        command += ["-fsdev", options, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return command


def _escaped(path: Path) -> str:
    """QEMU separates options by commas, and takes two for one."""
    return str(path).replace(",", ",,")
