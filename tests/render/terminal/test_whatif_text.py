from __future__ import annotations

from dataclasses import replace

from tracer.analysis.results.outcome import AtLimit, WhatIf
from tracer.render.terminal import console
from tracer.render.terminal.whatif_text import lines
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20
HOSTILE = "\x1b[31m[red]<script>\nx\udc80"
FOUND = WhatIf(
    cgroup="/web",
    container=None,
    run=2,
    runs=3,
    recorded_limit_bytes=64 * MIB,
    killed_below_bytes=20 * MIB,
    survives_from_bytes=30 * MIB,
    limits=(
        AtLimit(10 * MIB, 0, "killed", "too much"),
        AtLimit(40 * MIB, 0, "survives", "it fits", (12 * MIB, None), (0.25, None)),
        AtLimit(64 * MIB, 0, "thrashes", "it fits, but crawls", (12 * MIB, 16 * MIB), (0.25, 0.5)),
        AtLimit(96 * MIB, 0, "survives", "it fits", (None, 4 * MIB), (None, 0.125)),
        AtLimit(128 * MIB, 0, "survives", "it fits", (0, 0), (0.0, 0.0)),
        AtLimit(256 * MIB, 0, "unknown", "nobody knows"),
    ),
)


def text_of(found: WhatIf, columns: int = 100) -> str:
    return console.to_text(lines(found), columns=columns, colour=False)


def test_ranges_are_as_wide_as_what_is_known() -> None:
    text = text_of(FOUND)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert rows[0] == "/web (run 2 of 3), recorded at 64 MiB: killed below 20 MiB, not killed from 30 MiB."
    assert "10 MiB killed" in rows
    assert "40 MiB survives at least 12 MiB at least 25.0 % ████████████" in rows
    assert "64 MiB thrashes (recorded) 12 MiB to 16 MiB 25.0 % to 50.0 % ████████████████" in rows
    assert "96 MiB survives at most 4 MiB at most 12.5 % ████" in rows
    assert "128 MiB survives nothing 0.0 %" in rows
    assert "256 MiB unknown not known not known" in rows
    assert "96 MiB to 128 MiB survives: it fits." in rows


def test_ends_that_are_not_known_are_left_out() -> None:
    open_ = replace(FOUND, runs=1, recorded_limit_bytes=UNLIMITED_BYTES, survives_from_bytes=None)
    assert text_of(open_).startswith("/web, recorded at no limit: killed below 20 MiB.")
    neither = replace(open_, killed_below_bytes=None, recorded_limit_bytes=None)
    assert text_of(neither).startswith("/web: no limit is known to be enough or too low.")


def test_hostile_names_are_escaped() -> None:
    found = replace(
        FOUND, container=HOSTILE, limits=(AtLimit(MIB, None, "killed", f"the peak, by {HOSTILE}"),)
    )
    text = text_of(found)
    assert "\x1b" not in text and "\udc80" not in text
    assert "[red]<script>" in text
    assert all(len(line) <= 60 for line in text_of(FOUND, 60).splitlines())
