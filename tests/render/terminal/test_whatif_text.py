from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from tracer.analysis.results.outcome import AtLimit, PodLimit, WhatIf
from tracer.analysis.whatif.outcomes import command
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


def text_of(found: WhatIf, columns: int = 100, *, is_asked: bool = True) -> str:
    return console.to_text(lines(found, is_asked=is_asked), columns=columns, colour=False)


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
    small = replace(FOUND, runs=1, killed_below_bytes=0)
    assert text_of(small).startswith("/web, recorded at 64 MiB: not killed from 30 MiB.")
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


POD = PodLimit("shop", "web-0", "app", "Burstable")
COMMAND = ("kubectl", "patch", "pod", "web-0", "-n", "shop", "--subresource", "resize", "--patch")


def resizable(pod: PodLimit, *limits: AtLimit, recorded_bytes: int = 64 * MIB) -> WhatIf:
    """Return the answer for a pod; each limit has its command."""
    with_command = tuple(replace(one, resize=command(pod, one.limit_bytes)) for one in limits)
    peak_bytes = 41 * MIB
    found = replace(FOUND, pod_limit=pod, limits=with_command, peak_usage_bytes=peak_bytes)
    return replace(found, recorded_limit_bytes=recorded_bytes)


def pasted(text: str) -> list[str]:
    """Return the words of the command in the text, as a shell reads them."""
    first, last = text[text.index("  kubectl patch") :].splitlines()[:2]
    assert first.endswith(" \\")
    return shlex.split(f"{first[:-1]} {last}")


@pytest.mark.parametrize("columns", [60, 100])
def test_least_limit_that_survives_is_a_command_to_paste_with_its_outcome(columns: int) -> None:
    survives = [AtLimit(size * MIB, 0, "survives", "it fits", (0, 0)) for size in (48, 96)]
    text = text_of(resizable(POD, AtLimit(8 * MIB, 0, "killed", "too much"), *survives), columns)
    words = " ".join(text.split())
    assert "Resize of container app of pod web-0, namespace shop" in words
    assert "Shrinking to 48 MiB: survives; the highest usage in the trace was 41 MiB." in words
    assert "and restarts the container if its resizePolicy for memory is RestartContainer. To shrink" in words
    assert "To shrink without a restart takes 1.34" in words
    *arguments, patch = pasted(text)
    assert tuple(arguments) == COMMAND
    resources = {"limits": {"memory": "48Mi"}}
    assert json.loads(patch) == {"spec": {"containers": [{"name": "app", "resources": resources}]}}
    assert json.loads(text.splitlines()[-1].removeprefix("    resources: ")) == resources


def test_recorded_limit_is_no_resize_and_more_has_the_cost() -> None:
    same = AtLimit(64 * MIB, 0, "survives", "it fits")
    text = text_of(resizable(POD, same, AtLimit(96 * MIB, 0, "survives", "it fits", (12 * MIB, None))))
    words = " ".join(text.split())
    assert "Growing to 96 MiB: survives, and reads at least 12 MiB again; the highest usage" in words
    assert "To shrink" not in words
    assert "No other limit of these is known to be enough" in text_of(resizable(POD, same))


def test_limit_that_may_be_enough_is_a_command_only_if_it_was_asked_for() -> None:
    found = resizable(POD, *(AtLimit(size * MIB, 0, "unknown", "it grew") for size in (32, 96, 128)))
    assert "Growing to 128 MiB: unknown; the highest usage" in " ".join(text_of(found).split())
    assert "kubectl" not in text_of(found, is_asked=False)


def test_pod_as_a_whole_and_best_effort_are_said_to_be_so() -> None:
    survives = AtLimit(96 * MIB, 0, "survives", "it fits")
    text = text_of(resizable(replace(POD, container=None), survives))
    words = " ".join(text.split())
    assert "Resize of pod web-0, namespace shop This limit is the pod's, not a container's" in words
    assert json.loads(pasted(text)[-1]) == {"spec": {"resources": {"limits": {"memory": "96Mi"}}}}
    less = " ".join(
        text_of(resizable(replace(POD, container=None), replace(survives, limit_bytes=MIB))).split()
    )
    assert "(1.35 with a feature gate). The kubelet waits while usage is above the new limit; growth" in less
    assert "restart" not in less  # a pod as a whole has no resizePolicy
    best_effort = text_of(resizable(replace(POD, qos_class="BestEffort"), survives))
    assert "QoS class is BestEffort" in best_effort and "kubectl" not in best_effort
