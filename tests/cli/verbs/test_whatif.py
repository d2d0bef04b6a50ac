from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.recorded import TRACES

from tracer.cli.verbs import whatif
from tracer.errors import TracerError

MIB = 1 << 20


def asked(run: CliRunner, *arguments: object) -> str:
    result = run.invoke(whatif.command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def limits_of(run: CliRunner, *arguments: object) -> list[int]:
    document = json.loads(asked(run, *arguments, "--json"))
    return [one["limit_bytes"] for one in document["limits"]]


def test_whatif_shows_a_row_for_each_limit_and_the_reasons(run: CliRunner) -> None:
    text = asked(run, TRACES / "thrash", "--limit", "5M", "40M", "120M")
    words = " ".join(text.split())
    assert "recorded at 40 MiB: killed below 6.3 MiB, not killed from 25.7 MiB." in words
    assert "40 MiB survives (recorded) 160.6 MiB to 171.4 MiB" in words
    assert "120 MiB survives nothing to 256 KiB" in words
    assert "5 MiB killed: the peak of what reclaim cannot free (7.3 MiB at 1.57 s, by python)" in words
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_sizes_that_follow_an_option_are_all_limits(run: CliRunner) -> None:
    trace = TRACES / "thrash"
    expected = [8 * MIB, 64 * MIB, 120 * MIB]
    assert limits_of(run, trace, "--limit", "64M", "8M", "120M") == expected
    assert limits_of(run, "--limit", "64M", "8M", "120M", trace) == expected
    assert limits_of(run, "--limit=64M", "--limit", "8M", "--limit", "120M", trace) == expected
    assert limits_of(run, trace, "--limit", "8M", "--swap", "64M", "--limit", "120M") == [8 * MIB, 120 * MIB]
    assert len(limits_of(run, trace)) > 3


def test_document_names_the_trace_and_its_fields(run: CliRunner) -> None:
    document = json.loads(asked(run, TRACES / "page-cache", "--limit", "50M", "500M", "--json"))
    assert list(document)[:3] == ["schema", "trace", "cgroup"]
    assert (document["schema"], document["trace"]) == (1, str(TRACES / "page-cache"))
    less, more = document["limits"]
    assert (less["outcome"], more["outcome"]) == ("killed", "unknown")
    assert more["read_again_bytes"] == more["lost_share"] == [None, None]
    assert more["swap_bytes"] == 0


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--limit", "much"], ["--swap", "-1"], ["--limit"]])
def test_values_that_are_no_sizes_are_refused(run: CliRunner, arguments: list[str]) -> None:
    assert run.invoke(whatif.command, [str(TRACES / "thrash"), *arguments]).exit_code == 2


def test_cgroup_and_name_choose_whose_limit_it_is(run: CliRunner, tmp_path: Path) -> None:
    document = json.loads(asked(run, TRACES / "parent-limit", "-c", "*/big", "--limit", "9M", "--json"))
    assert document["cgroup"].endswith("/big")
    refused = run.invoke(whatif.command, [str(TRACES / "thrash"), "-c", "nope"]).exception
    assert isinstance(refused, TracerError) and "\n" not in str(refused)
    missing = run.invoke(whatif.command, [str(tmp_path / "none")]).exception
    assert isinstance(missing, TracerError)
