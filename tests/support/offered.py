"""The families of hooks by which the counters of the ledger can be found on this kernel."""

from __future__ import annotations

import pytest

from tracer.capture.bpf.hooks import Offer, choose
from tracer.kernel.btf import Btf
from tracer.kernel.cgroups.cgroupfs import memory_hierarchy


def skip_unless_offered(family: str) -> None:
    """Skip the test if this kernel lacks a hook of `family` that the calibration needs."""
    offer = Offer.look(Btf.load())
    for choice in choose(offer, memory_hierarchy().version, forced=family):
        if (
            choice.signal.is_calibration
            and choice.signal.required
            and (choice.way is None or choice.way.family != family)
        ):
            hooks = [hook for way in choice.signal.ways if way.family == family for hook in way.hooks]
            reasons = dict.fromkeys(filter(None, map(offer.why_not, hooks)))
            pytest.skip(f"{choice.signal.name} by {family}: {'; '.join(reasons)}")
