"""What the loader decides before any kernel is asked."""

from __future__ import annotations

import platform
import re

import pytest

from tracer.capture.bpf_syscall import machine
from tracer.capture.load import RING_BYTES, bpf_folder
from tracer.errors import TracerError
from tracer.schema import LOSSES, WIRE


@pytest.mark.parametrize("page_bytes", [4096, 16_384, 65_536])
def test_rings_are_a_power_of_two_of_pages_of_any_size(page_bytes: int) -> None:
    for name, size in RING_BYTES.items():
        pages, rest = divmod(size, page_bytes)
        assert (pages.bit_count(), rest) == (1, 0), name


def test_losses_are_counted_in_the_order_of_the_streams() -> None:
    """By number alone: `enum stream` in C, the streams' order here."""
    counted = re.findall(r"^\tSTREAM_(\w+),", (bpf_folder() / "tracked.h").read_text(), flags=re.MULTILINE)
    assert counted == [*(stream.upper() for stream in LOSSES), "COUNT"]
    assert list(RING_BYTES) == [*WIRE, "watched"]


def test_a_machine_that_the_programs_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(TracerError, match="riscv64 is not supported: use x86_64 or aarch64"):
        machine()
