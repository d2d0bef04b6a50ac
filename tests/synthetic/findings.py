"""Findings of a kill with a composition that a test names, in MiB."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from tracer.analysis.explain.measure.findings import Circumstances, Findings
from tracer.analysis.explain.measure.window import Window
from tracer.analysis.results.kill import LimitOwner, Trigger, Victim
from tracer.analysis.results.memory import COMPOSITION_PARTS, Composition, Cushion, Reclaim

MIB = 1 << 20
LIMIT = 100 * MIB
SECOND = 1_000_000_000
GFP_KERNEL = 0xCC0
GFP_NOFS = 0xC40

UNKNOWN_COMPOSITION = Composition()


def made_of(**mib: float) -> Composition:
    """Return a composition that fills the limit: classes that are not named are 0, `other` is the rest."""
    parts = dict.fromkeys(COMPOSITION_PARTS, 0) | {name: round(value * MIB) for name, value in mib.items()}
    return Composition(**parts | {"other": LIMIT - sum(parts.values())}, total=LIMIT)


def grew(**mib: int) -> Circumstances:
    """Return circumstances in which classes of the ledger grew."""
    return Circumstances({name: mib.get(name, 0) * MIB for name in ("anon", "shmem", "kernel", "sock")})


def victim(pid: int, comm: str) -> Victim:
    """Return a victim that held nothing."""
    return Victim(pid, comm, "/a", 0, 0, 0, 0, 0, 0, False)


def trigger(gfp: int) -> Trigger:
    """Return the task that asked: `sh` (pid 41), with these gfp flags."""
    return Trigger(41, "sh", "/a", gfp, 0, None, None, tgid=41)


def findings(composition: Composition, around: Circumstances, **others: Any) -> Findings:
    """Return the findings of a kill at a limit of 100 MiB, recorded by a hook and sampled at the kill."""
    found = Findings(
        time=pd.Timestamp("2026-01-31T12:00:00+00:00"),
        constraint="memcg",
        owner=LimitOwner("/a", None, None, LIMIT, LIMIT, False),
        trigger=trigger(GFP_KERNEL),
        victims=[victim(41, "sh")],
        victim_tgids=frozenset({41}),
        composition=composition,
        origins=dict.fromkeys((*COMPOSITION_PARTS, "usage", "zswap_incomp"), ("samples",)),
        cushion=Cushion(0, 0, 0, 0, refaulted_bytes=0),
        reclaim=Reclaim(16, 0, 0, 1.0, ()),
        allocators=(),
        page_size=4096,
        window=Window(0, 5 * SECOND, 10 * SECOND),
        circumstances=around,
        is_told=True,
    )
    return replace(found, **others)
