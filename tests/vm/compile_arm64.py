"""Compilation of the BPF programs for arm64, with the BTF of such a kernel: `compile_arm64.py BTF_FILE`, as
root.

The compiler reads that BTF in place of the running kernel's, and arm64 as the architecture.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from tracer.capture.bpf import load
from tracer.capture.bpf.compiled import compiler
from tracer.capture.bpf.hooks import FAMILIES, Offer
from tracer.capture.bpf.syscall import Machine
from tracer.errors import TracerError
from tracer.kernel.probes import Hook, Kind


class OfferOfBtf(Offer):
    """An offer of everything in a kernel's BTF: no function is inlined."""

    def why_not(self, hook: Hook) -> str | None:
        # a kprobe would be looked up in the running kernel's symbols
        return super().why_not(replace(hook, kind=Kind.FENTRY) if hook.kind.family == Kind.KPROBE else hook)


class Arm64Programs(load.Programs):
    """Programs that are compiled but not loaded."""

    def _flags(self) -> list[str]:
        # BCC passes the compiler an option for the architecture that BCC was built for
        return [*super()._flags(), "-fcf-protection=none"]

    def count(self) -> int:
        """Compile the programs, and return their number; raises TracerError if they do not compile."""
        return len(self._compilation.result().object_file.programs)


def main() -> int:
    """Return the exit status: 0 if the programs compile for each family of hooks."""
    os.environ["ARCH"] = "arm64"  # BCC's name for the architecture
    arm64 = Machine("TRACER_ARM64", 280, 241)
    with (
        patch.object(load, "machine", lambda: arm64),
        patch.object(compiler, "machine", lambda: arm64),
        patch.object(load, "Offer", OfferOfBtf),
        patch.object(compiler, "closed_families", lambda _: {}),
    ):
        for family in FAMILIES:
            programs = Arm64Programs(version=2, trace_all=True, forced=family, btf=Path(sys.argv[1]))
            try:
                print(f"hooked by {family}: {programs.count()} programs")
            except TracerError as error:
                print(f"hooked by {family}: {error}")
                return 1
            programs.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
