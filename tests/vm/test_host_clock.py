"""The clock of this machine, and of the guests that are told its frequency."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest
from vm.host_clock import tsc_khz

RTC = Path("/sys/class/rtc/rtc0/since_epoch")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="guests are emulated on x86-64")
def test_frequency_is_the_same_each_time() -> None:
    first = tsc_khz()
    assert 500_000 < first < 10_000_000
    assert tsc_khz() == pytest.approx(first, rel=0.01)


@pytest.mark.kernel
@pytest.mark.vm
@pytest.mark.skipif("MEMCG_TRACER_WHOLE_MACHINE" not in os.environ, reason="needs a guest of tests/vm")
def test_clock_of_a_guest_runs_as_fast_as_time() -> None:
    """A guest reads its date from the emulated clock of the hardware at boot, minutes ago."""
    assert int(RTC.read_text(encoding="ascii")) == pytest.approx(time.time(), abs=30)
