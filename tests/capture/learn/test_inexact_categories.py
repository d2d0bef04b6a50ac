"""The categories that the ledger lacks, because their counters were not found, on synthetic kernels."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tracer.capture.bpf.hooks import Choice
from tracer.capture.learn import calibration
from tracer.capture.learn.calibration import describe, unrecorded
from tracer.categories import CATEGORIES
from tracer.kernel.probes import SIGNALS

ITEMS = {item for category in CATEGORIES for item in category.items} - {"NR_VMALLOC"}


def described(unknown: Collection[str], version: int = 2) -> dict[str, tuple[str | None, str | None]]:
    """Return signal -> (meaning, detail), with all counters found but those of these categories."""
    choices = [Choice(signal, signal.ways[0]) for signal in SIGNALS]
    positions = {category.item: 0 for category in CATEGORIES if category.name not in unknown}
    documents = describe(choices, unrecorded(positions, ITEMS, version))
    return {name: (probe["meaning"], probe["detail"]) for name, probe in documents.items()}


def test_describe_with_every_position_is_exact() -> None:
    assert described(()).pop("memory by kind") == ("exact", "")


def test_describe_reports_each_category_without_a_position_at_the_ledger_alone() -> None:
    probes = described(["shmem", "anon", "vmalloc"])
    detail = "anon, shmem, vmalloc are not recorded: their counters were not found"
    assert probes.pop("memory by kind") == ("approximate", detail)
    assert {meaning for meaning, _ in probes.values()} == {"exact"}


def test_describe_leaves_out_what_the_kernel_was_booted_not_to_charge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "uncharged", lambda: {"slab_reclaimable", "page_tables"})
    assert described(["page_tables", "slab_reclaimable"])["memory by kind"] == ("exact", "")
    assert "shmem are not" in (described(["page_tables", "shmem"])["memory by kind"][1] or "")


def test_describe_on_v1_leaves_sockets_out() -> None:
    assert described(["sock"], version=1)["memory by kind"] == ("exact", "")
    assert "sock" in (described(["sock"], version=2)["memory by kind"][1] or "")
