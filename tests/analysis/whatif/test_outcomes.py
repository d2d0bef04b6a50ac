"""The answer for the recorded examples, and the choice of the cgroup and the limits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.recorded import NAMES, TRACES, opened, reports_of
from support.schemas import require_form

import tracer
from tracer.analysis.core import naming
from tracer.analysis.explain.postmortem import PostMortems
from tracer.analysis.explain.sizing import replayed_run
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.outcome import PodLimit
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.whatif.outcomes import command, pod_limit, quantity, what_if
from tracer.errors import TracerError
from tracer.units import size

MIB = 1 << 20


@pytest.mark.parametrize("name", NAMES)
def test_report_says_what_the_replay_says(name: str) -> None:
    """Both ends of each range, and the outcomes beside it, are those of `whatif` at the same limits."""
    trace = opened(name)
    for held in trace.held_cgroups():
        limits = [one.limit_bytes for one in held.sizing.outcomes]
        found = what_if(trace, limits or [MIB], held.cgroup_id)
        if held.sizing.min_limit_bytes is None:
            assert "a kill cut" in held.quality.unknown["sizing.min_limit_bytes"] or not held.sizing.outcomes
            continue
        low, high = held.sizing.min_limit_bytes
        assert low == found.killed_below_bytes
        assert limits[:1] == [one for one in [found.survives_from_bytes] if one is not None]
        assert held.sizing.outcomes == (found.limits if limits else ())
        if high is not None:
            (at_high,) = what_if(trace, [high], held.cgroup_id).limits
            assert at_high.outcome == "survives"
            most = 2 * max((held.refaulted_bytes or 0) // 64, MIB // 4)
            assert at_high.read_again_bytes[1] is not None and at_high.read_again_bytes[1] <= most
    for kill in reports_of(name):
        _require_agreement(trace, kill)


def _require_agreement(trace: AnalysedTrace, kill: OomReport) -> None:
    low, high = kill.sizing.min_limit_bytes or (None, None)
    found = what_if(trace, [MIB], kill.limit_owner.cgroup_id)
    if low is not None:
        assert found.killed_below_bytes is not None and found.killed_below_bytes >= low
    assert found.survives_from_bytes is None
    if high is not None:
        (at_high,) = what_if(trace, [high], kill.limit_owner.cgroup_id).limits
        assert at_high.outcome == "unknown"
        assert f"fits from {size(high)} on, and what comes after it is not known" in at_high.why


def test_end_of_growth_beside_swap_is_no_proof_without_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = AnalysedTrace(TRACES / "cow")
    assert "what grew before the kill fits from" in what_if(trace, [400 * MIB], swap_bytes=0).limits[0].why
    monkeypatch.setattr(replayed_run, "swap_room_bytes", lambda _: 64 * MIB)
    assert "what grew before the kill fits from" in what_if(trace, [400 * MIB]).limits[0].why
    less, more = what_if(trace, [50 * MIB, 400 * MIB], swap_bytes=0).limits
    assert (less.outcome, more.outcome) == ("killed", "unknown")
    assert more.why.endswith("what was in swap needs room as well, with less swap")


def test_reason_names_the_kill_at_the_highest_limit(page_cache_experiment: Any) -> None:
    """A limit of 100 MiB led to a kill, and then one of 200 MiB."""
    trace = page_cache_experiment
    again = {**trace.recorded()["oom"][0], "kill_id": 2, "time": trace.ns(3.9), "limit_bytes": 200 * MIB}
    again["usage_bytes"] = 200 * MIB
    trace.recorded()["oom"].append(again)
    (found,) = what_if(trace, [150 * MIB], 7).limits
    assert (found.outcome, found.why) == ("killed", "the run was killed at 200 MiB at 3.80 s")


def test_kills_for_one_limit_have_the_range_of_their_run() -> None:
    """The third kill alone would have needed 132.9 MiB, since two victims had freed memory before."""
    trace = AnalysedTrace(TRACES / "sharedbuffers")
    found, kills = what_if(trace, [400 * MIB]), trace.explain()
    low, high = kills[0].sizing.min_limit_bytes or (None, None)
    assert [kill.sizing.min_limit_bytes for kill in kills] == [(low, high)] * 3
    assert found.killed_below_bytes == low and f"fits from {size(high)} on" in found.limits[0].why
    assert all(kill.sizing.basis[0].startswith("The range is for all 3 kills") for kill in kills)
    assert PostMortems(trace).one(3).sizing == kills[2].sizing


def test_curve_is_of_limits_where_something_changes() -> None:
    found = what_if(AnalysedTrace(TRACES / "thrash"))
    assert found.recorded_limit_bytes == 40 * MIB
    limits = [one.limit_bytes for one in found.limits]
    assert limits == sorted(set(limits)) and 40 * MIB in limits
    assert all(limit % MIB == 0 for limit in limits)
    outcomes = [one.outcome for one in found.limits]
    assert outcomes[0] == "killed" and outcomes[-1] == "survives"
    highs = [one.read_again_bytes[1] for one in found.limits if one.limit_bytes >= 40 * MIB]
    assert highs == sorted(highs, reverse=True)  # type: ignore[type-var]


def test_the_cgroup_with_the_kill_is_chosen(trace: Any) -> None:
    found = what_if(AnalysedTrace(TRACES / "parent-limit"))
    assert found.cgroup.endswith("-lab-parent-limit")
    assert what_if(AnalysedTrace(TRACES / "parent-limit"), cgroup="*/small").cgroup.endswith("/small")
    with pytest.raises(TracerError, match="no data of a cgroup"):
        what_if(trace)


def test_frame_has_a_row_for_each_limit() -> None:
    frame = tracer.open(TRACES / "thrash").whatif([64 * MIB, 4 * MIB])
    assert frame.index.tolist() == [4 * MIB, 64 * MIB]
    assert frame["outcome"].tolist() == ["killed", "survives"]
    (low, high) = (frame[f"read_again_{end}_bytes"] for end in ("low", "high"))
    assert low.isna().tolist() == high.isna().tolist() == [True, False]
    assert 150 * MIB < low.tolist()[1] < high.tolist()[1] < 180 * MIB


def test_document_has_the_fields_that_users_rely_on() -> None:
    document = json.loads(json.dumps(what_if(AnalysedTrace(TRACES / "thrash"), [64 * MIB]).to_dict()))
    (one,) = document["limits"]
    expected = ["limit_bytes", "swap_bytes", "outcome", "why", "read_again_bytes", "lost_share", "resize"]
    assert list(one) == expected
    assert len(one["read_again_bytes"]) == len(one["lost_share"]) == 2


UID, ID = "1d65f9b6-7e8d-4a6c-9a0c-7a6c2f1b9e11", "4f" * 32
POD = f"/kubepods/burstable/pod{UID}"
NAMES_OF_A_POD: dict[str, str | None] = {
    "namespace": "shop",
    "pod": "web-0",
    "container": "app",
    "container_id": ID,
}


def in_pod(folder: Path, path: str, names: Mapping[str, str | None]) -> AnalysedTrace:
    """Return a recorded example whose cgroup has this path and these names."""
    shutil.copytree(TRACES / "thrash", folder / "thrash")
    file = folder / "thrash/cgroups.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    for row in rows:
        if row["path"].endswith("lab-thrash"):
            row |= {"path": path, **names}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return AnalysedTrace(folder / "thrash")


@pytest.mark.parametrize(
    ("path", "names", "found"),
    [
        (f"{POD}/{ID}", NAMES_OF_A_POD, PodLimit("shop", "web-0", "app", "Burstable")),
        (f"/kubepods/pod{UID}/{ID}", NAMES_OF_A_POD, PodLimit("shop", "web-0", "app", "Guaranteed")),
        (
            POD,
            NAMES_OF_A_POD | {"container": None, "container_id": None},
            PodLimit("shop", "web-0", None, "Burstable"),
        ),
        (f"{POD}/{ID}/init.scope", NAMES_OF_A_POD, None),
        (f"/kubepods/burstable/pod{'1d65f9b6' * 4}/{ID}", NAMES_OF_A_POD, None),  # a static pod
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"container": None}, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"namespace": None}, None),
        (f"/docker/{ID}", NAMES_OF_A_POD, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"pod": "web';touch x;'"}, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"pod": "--all"}, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"namespace": "$(touch x)"}, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"container": 'a"}]}}'}, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"container": "a\n"}, None),
        (f"{POD}/{ID}", NAMES_OF_A_POD | {"container": "a" * 64}, None),
    ],
)
def test_pod_is_known_if_all_names_are_and_kubernetes_accepts_them(
    tmp_path: Path, path: str, names: dict[str, str | None], found: PodLimit | None
) -> None:
    trace = in_pod(tmp_path, path, names)
    (number,) = naming.select(trace, path)
    assert pod_limit(trace, number) == found


def test_answer_has_the_command_of_each_limit_that_may_be_enough(tmp_path: Path) -> None:
    answer = what_if(in_pod(tmp_path, f"{POD}/{ID}", NAMES_OF_A_POD), [5 * MIB, 60 * MIB])
    assert answer.pod_limit == PodLimit("shop", "web-0", "app", "Burstable")
    killed, survives = answer.limits
    assert (killed.outcome, killed.resize) == ("killed", None)
    assert (survives.outcome, survives.resize) == ("survives", command(answer.pod_limit, 60 * MIB))
    assert answer.peak_usage_bytes == 40 * MIB
    document = {"schema": 1, "trace": "thrash", **answer.to_dict()}
    require_form("whatif", json.loads(json.dumps(document)))


def test_guaranteed_pod_keeps_its_class() -> None:
    words = command(PodLimit("shop", "web-0", "app", "Guaranteed"), 300 * MIB)
    assert words is not None
    resources = {"requests": {"memory": "300Mi"}, "limits": {"memory": "300Mi"}}
    assert json.loads(words[-1]) == {"spec": {"containers": [{"name": "app", "resources": resources}]}}
    assert command(PodLimit("shop", "web-0", "app", "BestEffort"), 300 * MIB) is None


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(2 << 30, "2Gi"), (300 * MIB, "300Mi"), (1536 << 10, "1536Ki"), (314_572_801, "314572801")],
)
def test_quantity_is_exact(size_bytes: int, text: str) -> None:
    assert quantity(size_bytes) == text
