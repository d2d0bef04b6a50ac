from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tracer.kernel.process.children import call_in_child, huge_pages_for_children, keep_pages_small

_STATUS = Path("/proc/self/status")


def may_have_huge_pages(status: str) -> bool:
    """Return whether a process may have huge pages, given its /proc/PID/status."""
    found = re.search(r"^THP_enabled:\s+([01])$", status, flags=re.MULTILINE)
    if found is None:
        pytest.skip("this kernel has no transparent huge pages, or does not show who has them")
    return found[1] == "1"


def own() -> bool:
    return may_have_huge_pages(_STATUS.read_text())


def of_a_child() -> bool:
    printed = subprocess.run(["cat", _STATUS], stdout=subprocess.PIPE, text=True, check=True).stdout
    return may_have_huge_pages(printed)


def after(*acts: Callable[[], object]) -> list[object]:
    """Return what each act returns, one after the other in a process of its own."""
    results: list[object] = call_in_child(lambda: [act() for act in acts])
    return results


def test_process_that_keeps_pages_small_has_children_without_huge_pages() -> None:
    assert after(keep_pages_small, own, of_a_child)[1:] == [False, False]


def test_children_for_whom_it_is_set_aside_have_huge_pages() -> None:
    def child() -> bool:
        with huge_pages_for_children():
            return of_a_child()

    assert after(keep_pages_small, child, of_a_child)[1:] == [True, False]


def test_setting_from_before_is_restored() -> None:
    before = own()
    with huge_pages_for_children():
        assert of_a_child()
    assert own() == before
