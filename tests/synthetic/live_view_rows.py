"""Rows of a live view of a small machine, without a kernel."""

from __future__ import annotations

from typing import Any, Final

from tracer.quantities import SORT_KEYS
from tracer.top.live_row import LiveRow

MIB: Final = 1 << 20
NOON_NS: Final = 1_795_694_400_000_000_000  # 2026-11-26T12:00:00Z
HOSTILE: Final = "evil\x1b[2J\n\u202ename\udcff漢字"


def row(number: int, parent: int | None, path: str, **known: Any) -> LiveRow:
    """Return a row; `known` has numbers by their keys, and other fields."""
    numbers = {key: known.pop(key) for key in SORT_KEYS[1:] if key in known}
    known = {"name": path.rsplit("/", 1)[-1] or "/"} | known
    return LiveRow(cgroup_id=number, parent_id=parent, path=path, numbers=numbers, **known)


def machine_rows() -> tuple[LiveRow, ...]:
    """Return a tree of pods, with a container near its kill, and a cgroup whose numbers are unknown."""
    return (
        row(
            1,
            None,
            "/kubepods",
            usage_bytes=1200 * MIB,
            held=700 * MIB,
            cache=500 * MIB,
            charge=30.5 * MIB,
            add=1.5 * MIB,
            evict=2.0 * MIB,
            refault=0.0,
            stall=3.2,
            psi=0.04,
            swap=0,
            layers={"anon": 650 * MIB, "kernel": 50 * MIB, "cache": 480 * MIB, "dirty": 20 * MIB},
            usages=tuple(float(step * 40 * MIB) for step in range(31)),
        ),
        row(
            2,
            1,
            "/kubepods/web",
            name="shop/web",
            usage_bytes=490 * MIB,
            limit=512 * MIB,
            limit_owner="/kubepods/web",
            held=480 * MIB,
            cache=10 * MIB,
            cushion=32 * MIB,
            left=4.27,
            charge=7.5 * MIB,
            add=1.5 * MIB,
            evict=2.0 * MIB,
            refault=12.0 * 1024,
            stall=120.0,
            psi=38.0,
            swap=3 * MIB,
            kills=2,
            layers={"anon": 470 * MIB, "kernel": 10 * MIB, "cache": 10 * MIB},
            usages=tuple(float(step * 16 * MIB) for step in range(31)),
        ),
        row(
            3,
            1,
            "/kubepods/db",
            name="shop/db",
            usage_bytes=710 * MIB,
            limit=1024 * MIB,
            limit_owner="/kubepods/db",
            held=220 * MIB,
            cache=490 * MIB,
            cushion=804 * MIB,
            charge=23.0 * MIB,
            add=20.0 * MIB,
            evict=0.0,
            refault=0.0,
            stall=0.0,
            psi=0.0,
            swap=0,
            layers={"anon": 180 * MIB, "kernel": 40 * MIB, "cache": 470 * MIB, "dirty": 20 * MIB},
            usages=tuple(float(700 * MIB) for _ in range(31)),
        ),
        row(4, None, f"/system/{HOSTILE}", name=HOSTILE),
    )
