"""Compile the BPF programs for arm64, by the BTF of such a kernel: `compile_arm64.py BTF_FILE`, as root.

What the loader asks of the running kernel is answered by that BTF instead, and it is told that this is arm64.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from tracer.capture.bpf import load
from tracer.capture.bpf.hooks import FAMILIES, Offer
from tracer.capture.bpf.syscall import Machine
from tracer.errors import TracerError
from tracer.kernel.btf import Btf
from tracer.kernel.probes import Hook, Kind


class OfferOfBtf(Offer):
    """All that a kernel's BTF has: nothing is closed there, and no function inlined."""

    @classmethod
    def look(cls, btf: Btf) -> OfferOfBtf:
        return cls(btf, {})

    def why_not(self, hook: Hook) -> str | None:
        # a kprobe would be looked for in the running kernel's symbols
        return super().why_not(replace(hook, kind=Kind.FENTRY) if hook.kind.family == Kind.KPROBE else hook)


class Arm64Programs(load.Programs):
    """Programs that are compiled, and not loaded."""

    def _flags(self) -> list[str]:
        # BCC gives the compiler an option of the architecture that it was itself built for
        return [*super()._flags(), "-fcf-protection=none"]

    def count(self) -> int:
        """How many there are, once they are compiled. Raises TracerError where they cannot be."""
        return len(self._compilation.unit().programs)


def main() -> int:
    """Exit status 0 if the programs compile for each family of hooks."""
    os.environ["ARCH"] = "arm64"  # BCC's own word for it
    btf = Btf(Path(sys.argv[1]).read_bytes())
    arm64 = Machine("TRACER_ARM64", 280)
    with patch.object(load, "machine", lambda: arm64), patch.object(load, "Offer", OfferOfBtf):
        for family in FAMILIES:
            programs = Arm64Programs(btf, version=2, trace_all=True, forced=family)
            try:
                print(f"hooked by {family}: {programs.count()} programs")
            except TracerError as error:
                print(f"hooked by {family}: {error}")
                return 1
            programs.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
