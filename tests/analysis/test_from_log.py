"""Post-mortems of the logs in the grammar's corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracer.analysis import from_log
from tracer.analysis.report import OomReport
from tracer.kernel.kmsg.grammar import reports
from tracer.kernel.kmsg.lines import split

CORPUS = Path(__file__).parents[1] / "kernel/kmsg/corpus"
LOGS = sorted(path for path in CORPUS.glob("*-*") if not path.name.endswith(".expected.json"))
MIB = 1 << 20


def explained(name: str) -> list[OomReport]:
    return list(from_log.explain(reports(split([(CORPUS / name).read_bytes()]))))


@pytest.mark.parametrize("log", LOGS, ids=lambda path: path.name)
def test_every_report(log: Path) -> None:
    """Adds up, is JSON, says why what is null is null, and comes from the log alone."""
    for number, report in enumerate(explained(log.name), start=1):
        document = report.to_dict()
        assert json.loads(json.dumps(document)) == document
        assert report.kill_id == number
        assert report.quality.kmsg == "only"
        made_of = report.composition
        if made_of.total is not None:
            assert sum(part or 0 for _, part in made_of.parts()) == made_of.total
        assert made_of.total == report.limit_owner.usage_bytes
        assert min((part or 0 for name, part in made_of.parts() if name != "other"), default=0) >= 0
        nulls = {null for null in _nulls(document, "") if not null.startswith("kernel_log.")}
        unknown = set(report.quality.unknown)
        assert {null for null in nulls if not _is_covered(null, unknown)} <= _known_to_be_none(report)


def _nulls(value: Any, name: str) -> list[str]:
    if isinstance(value, dict):
        return [null for key, item in value.items() for null in _nulls(item, f"{name}.{key}".strip("."))]
    if isinstance(value, list):
        return [null for item in value for null in _nulls(item, name)]
    return [name] if value is None else []


def _is_covered(null: str, unknown: set[str]) -> bool:
    return null in unknown or null.partition(".")[0] in unknown


def _known_to_be_none(report: OomReport) -> set[str]:
    """No container, no pod; what adj adds where badness is never computed has its reason there."""
    is_known = report.limit_owner.cgroup is not None
    names = {"limit_owner.container", "limit_owner.pod"} if is_known else set()
    never = {"candidates.badness"} if any(one.oom_score_adj == -1000 for one in report.candidates) else set()
    badness = {"candidates.adj_pages", "candidates.held_pages"}
    return names | never | (badness if "candidates.badness" in report.quality.unknown else set())


def test_swap_that_is_full_is_the_cause() -> None:
    assert [one.verdict.cause for one in explained("captured-6.12-debian13-v2-dmesg-x.log")] == [
        "swap_exhausted",
        "shmem",
    ]
    _, full = explained("captured-6.1-debian12-v1-dmesg.log")
    assert full.verdict.cause == "swap_exhausted"
    assert full.composition.anon is not None
    assert full.composition.anon > 23 * MIB  # half of it in the swap cache, which no class but this has


def test_a_limit_of_an_ancestor() -> None:
    report = explained("captured-6.1-debian12-v2-kmsg.log")[0]
    owner = report.limit_owner
    assert (owner.cgroup, owner.is_ancestor, owner.limit_bytes) == ("/web.slice", True, 48 * MIB)
    assert report.trigger.cgroup == report.victims[0].cgroup == "/web.slice/app.service"
    assert "(above the cgroup that asked)" in report.verdict.summary


def test_containers_are_named_by_their_ids() -> None:
    (docker,) = explained("written-5.4-ubuntu20.04-v1-journal.log")
    assert docker.limit_owner.container is not None
    assert docker.limit_owner.container.startswith("9c1d0ec8a5f5")
    (pod,) = explained("written-5.10-debian11-v2-rfc3339.log")
    assert (pod.limit_owner.container, pod.limit_owner.pod) == (None, "5931aa75-4603-4e65-b552-7c71cf55cfb5")
    assert pod.verdict.cause == "shmem"


def test_old_counters_in_kb_are_added_up_over_the_tree() -> None:
    (report,) = explained("written-4.19-debian10-v1-kern.log")
    made_of = report.composition
    assert made_of.anon == (1840 + 515836) << 10
    assert made_of.file_clean == (188 + 412 - 132) << 10
    assert made_of.writeback == 132 << 10
    assert "6156288 bytes" in report.quality.unknown["composition.page_tables"]
    assert [victim.pid for victim in report.victims] == [21931]
    assert [one.pid for one in report.candidates if one.chosen] == [21854]


def test_a_group() -> None:
    report = explained("captured-6.1-debian12-v2-kmsg.log")[1]
    assert [victim.pid for victim in report.victims] == [142, 139, 140, 141]
    assert all(victim.group_kill for victim in report.victims)
    assert [victim.cgroup for victim in report.victims] == ["/batch", None, None, None]


def test_times() -> None:
    def time_of(name: str) -> tuple[str | None, str]:
        report = explained(name)[0]
        return report.time, report.quality.unknown.get("time", "")

    assert time_of("captured-6.18-debian13-v2-dmesg-iso.log")[0] == "2026-11-25T09:35:02.246273+00:00"
    assert time_of("written-5.10-debian11-v2-rfc3339.log")[0] == "2024-10-12T17:00:20.347274+00:00"
    assert time_of("written-6.8-ubuntu24.04-v2-journal.json")[0] == "2024-11-10T16:00:00.123456+00:00"
    assert "1367.841788 s" in time_of("captured-6.18-v1-kmsg.log")[1]
    assert "Nov 02 14:03:27" in time_of("written-5.4-ubuntu20.04-v1-journal.log")[1]
    assert "no times" in time_of("written-4.19-global-bare.log")[1]


def test_a_kill_without_a_report() -> None:
    report = explained("written-6.6-cut.log")[1]
    assert report.verdict.summary.startswith("limited (pid 812) was killed since a cgroup was at its limit")
    assert (report.verdict.cause, report.trigger.pid, report.composition.total) == ("unknown", None, None)


def test_a_report_without_its_kill() -> None:
    report = explained("written-6.6-cut.log")[2]
    assert report.victims == ()
    assert "ends before" in report.quality.unknown["victims"]


def test_nobody_could_be_killed() -> None:
    report = next(one for one in explained("captured-7.3-debian13-v2-dmesg-T.log") if not one.victims)
    assert "no process" in report.quality.unknown["victims"]


def test_the_whole_machine() -> None:
    report = explained("captured-6.18-debian13-v2-dmesg-iso.log")[1]
    assert (report.constraint, report.verdict.cause) == ("global", "global_pressure")
    assert report.candidates[0].chosen
    assert report.badness_total_pages == 163707 - 18593


def test_the_size_of_a_page_is_told_by_the_log() -> None:
    def size_of(name: str) -> int | None:
        place = explained(name)[0].kernel_log
        return None if place is None else place.page_size

    assert size_of("captured-6.18-v1-kmsg.log") == 4096
    assert size_of("written-6.6-cut.log") == 4096
