"""What the tracer itself brings to this machine: BCC, and programs that this kernel takes."""

from __future__ import annotations

import time

from tracer.capture.bcc_module import find_bcc
from tracer.capture.load import Programs
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.cgroupfs import memory_hierarchy
from tracer.kernel.doctor import Check, State

AREA = "tracer"


def examine(*, may_load: bool) -> list[Check]:
    """BCC, and a trial of the programs where the kernel's own checks let one expect that it works."""
    compiler = bcc()
    return [compiler, trial() if may_load and compiler.state is State.OK else untried()]


def bcc() -> Check:
    """Whether the distribution's BCC can be imported, and its version."""
    try:
        module = find_bcc()
    except TracerError as error:
        return Check(
            "BCC",
            State.MISSING,
            str(error),
            "the BPF programs cannot be compiled",
            prevents_recording=True,
            area=AREA,
        )
    return Check("BCC", State.OK, f"{module.__version__} in {(module.__path__ or [''])[0]}", area=AREA)


def trial() -> Check:
    """Compile, load, attach and detach everything, with no cgroup traced."""
    begin = time.monotonic()
    warnings: list[str] = []
    try:
        programs = Programs(Btf.load(), version=memory_hierarchy().version, roots=[])
        programs.wait(warnings.append)
        try:
            programs.attach(warnings.append)
            attached = [choice for choice in programs.choices if choice.way]
        finally:
            programs.close()
    except TracerError as error:
        return Check(
            "programs",
            State.MISSING,
            str(error).replace("; see memcg-tracer doctor", ""),
            "nothing can be traced",
            "memcg-tracer --debug record -d 1 shows all that the kernel said of them",
            prevents_recording=True,
            area=AREA,
        )
    summary = f"{len(attached)} attached and detached in {time.monotonic() - begin:.2f} s"
    if warnings:
        return Check(
            "programs",
            State.DEGRADED,
            f"{summary}; {'; '.join(warnings)}",
            "what these would have told",
            area=AREA,
        )
    return Check("programs", State.OK, summary, area=AREA)


def untried() -> Check:
    """What is said of the programs where a trial makes no sense."""
    return Check("programs", State.UNKNOWN, "not tried, because of what is missing", area=AREA)
