"""The table of metric families keeps the rules of OpenMetrics."""

from __future__ import annotations

import re

from tracer.metric_families import FAMILIES, FAMILY_BY_NAME, Family, kill_labels, place_labels


def test_names_follow_the_rules_of_openmetrics() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"memcg_tracer_[a-z][a-z_]*[a-z]", family.full_name)
        assert not family.unit or family.name.endswith(f"_{family.unit}")
        assert not family.full_name.endswith(("_total", "_created", "_info", "_bucket", "_count", "_sum"))
        assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels)
        assert len({*family.labels}) == len(family.labels)
        assert family.help.endswith(".")


def test_names_of_samples_are_those_that_users_know() -> None:
    assert {family.sample_name.removeprefix("memcg_tracer_") for family in FAMILIES} == {
        "usage_bytes",
        "limit_bytes",
        "memory_bytes",
        "cushion_bytes",
        "seconds_to_kill",
        "working_set_bytes",
        "swap_bytes",
        "pagecache_added_bytes_total",
        "pagecache_evicted_bytes_total",
        "refaulted_bytes_total",
        "reclaim_attempts_total",
        "reclaim_stall_seconds_total",
        "pressure_seconds_total",
        "oom_kills_seen_total",
        "oom_kills_total",
        "sigkills_total",
        "pod_events_total",
        "cgroups_left_out",
        "lost_records_total",
        "tracer_cpu_seconds_total",
    }
    assert len(FAMILY_BY_NAME) == len(FAMILIES)


def test_kills_are_counted_without_the_id_of_a_cgroup() -> None:
    """The kills of a container are still counted when its cgroup is gone."""
    kills: Family = FAMILY_BY_NAME["oom_kills"]
    assert "id" not in kills.labels and "cause" in kills.labels


def test_labels_of_a_container_are_those_of_cadvisor() -> None:
    docker = {"container": "web", "pod": None, "namespace": None}
    kubernetes = {"container": "app", "pod": "shop-7", "namespace": "shop"}
    assert place_labels(path="/docker/4f", container_id="4f", **docker) == ("/docker/4f", "web", "", "", "")
    assert place_labels(path="/p/4f", container_id="4f", **kubernetes) == (
        *("/p/4f", "4f", "shop", "shop-7", "app"),
    )
    assert kill_labels(path="/docker/4f", unit=None, **docker) == ("web", "", "", "")
    assert kill_labels(path="/p/4f", unit=None, **kubernetes) == ("app", "shop", "shop-7", "app")


def test_kill_outside_of_containers_has_the_unit_or_the_path() -> None:
    nothing = {"container": None, "pod": None, "namespace": None}
    assert kill_labels(path="/a.slice/b.service", unit="b.service", **nothing)[0] == "b.service"
    assert kill_labels(path="/work", unit=None, **nothing)[0] == "/work"
    assert kill_labels(path="/p", unit="u", container=None, pod="shop-7", namespace="shop") == (
        *("", "shop", "shop-7", ""),
    )
