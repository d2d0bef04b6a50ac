"""Settings of a recorder from the environment, for tests and measurements."""

from __future__ import annotations

import os

import click


def ring_pages() -> dict[str, int]:
    """Return the sizes of rings in MEMCG_TRACER_RING_PAGES (`STREAM=PAGES,...`), for machines with little
    memory and for tests of losses."""
    from tracer.wire.streams import RING_BYTES

    sizes = {}
    for item in filter(None, os.environ.get("MEMCG_TRACER_RING_PAGES", "").split(",")):
        stream, _, pages = item.partition("=")
        if stream not in RING_BYTES or not pages.isdecimal() or int(pages).bit_count() != 1:
            raise click.UsageError(
                f"MEMCG_TRACER_RING_PAGES: {item!r} is not STREAM=PAGES, a power of two, as pagecache=4096"
            )
        sizes[stream] = int(pages)
    return sizes


def hooks() -> str | None:
    """Return the family of hooks to prefer, MEMCG_TRACER_HOOKS, for comparisons of records and costs."""
    from tracer.capture.bpf.hooks import FAMILIES

    family = os.environ.get("MEMCG_TRACER_HOOKS", "")
    if family and family not in FAMILIES:
        raise click.UsageError(f"MEMCG_TRACER_HOOKS: {family!a} is none of {', '.join(FAMILIES)}")
    return family or None
