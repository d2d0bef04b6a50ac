from __future__ import annotations

from pathlib import Path

import pytest
from vm import __main__ as test_vm
from vm.kernels import Kernel


@pytest.mark.parametrize(
    ("asked", "guests", "titles"),
    [
        (["7.3"], ["preempt"], ["7.3, cgroup v2", "7.3, cgroup v2, preempt"]),
        ([], ["once", "systemd"], ["7.3, cgroup v2, once", "7.3, cgroup v2, systemd"]),
        (
            ["6.1", "6.12"],
            ["once", "preempt"],
            [
                "6.12, cgroup v2, once",
                "6.1, cgroup v2",
                "6.12, cgroup v2",
                "6.1, cgroup v2, preempt",
                "6.1, cgroup v1",
            ],
        ),
    ],
)
def test_guests_asked_for_by_name_are_of_the_newest_or_oldest_kernel(
    asked: list[str], guests: list[str], titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_vm, "prepare", lambda series: Kernel(series, series, has_v1=series == "6.1"))
    monkeypatch.setattr(test_vm, "INIT", Path(__file__))
    boots, not_run = test_vm.make_ready(asked, guests)
    assert [boot.title for boot in boots] == titles
    assert not_run == []
