"""`export` of a trace on disk: its output and its refusals."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tracer
from tracer.analysis.explain.postmortem import allocated_before
from tracer.analysis.trace import AnalysedTrace
from tracer.analysis.views.code_samples import samples_within
from tracer.cli.verbs import explain, export
from tracer.errors import TraceError, TracerError, UsageError
from tracer.protobuf_messages import message_classes
from tracer.render.export import pprof_profile

MIB = 1 << 20
HOSTILE = "\x1b[31m;<script>\nx"

WriteTrace = Callable[..., Path]


@pytest.fixture
def path(write_trace: WriteTrace) -> Path:
    return write_trace(stacks_bytes=MIB)


@pytest.fixture
def exported(run: CliRunner) -> Callable[..., Result]:
    return lambda *arguments: run.invoke(export.command, [*map(str, arguments), "--to", "folded"])


Exported = Callable[..., Result]


def refusal(result: Result) -> str:
    assert isinstance(result.exception, TracerError)
    assert result.stdout == "" and "\n" not in str(result.exception)
    return str(result.exception)


def test_export_has_all_samples(exported: Exported, path: Path) -> None:
    result = exported(path, "-o", "-")
    assert result.stdout == f"python3;main;python3;try_charge_memcg;out_of_memory {216 * MIB}\n"
    assert result.exit_code == 0
    charged = tracer.open(path).charged_stacks()
    assert [row.weight_bytes for row in charged] == [216 * MIB]


def test_export_of_a_kill_or_a_cgroup_leaves_others_out(exported: Exported, path: Path) -> None:
    """The window before the kill is that of the allocators of `explain`."""
    trace = AnalysedTrace(path)
    members, begin, end = allocated_before(trace, 1)
    samples = samples_within(trace.code_samples, members, begin, end)
    of_kill = exported(path, "-o", "-", "--kill", "1").stdout
    assert int(of_kill.rpartition(" ")[2]) == samples["bytes"].sum() < 216 * MIB
    assert exported(path, "-o", "-", "-c", "7").stdout.endswith(f" {216 * MIB}\n")
    assert exported(path, "-o", "-", "-c", "/quiet").stdout == ""
    assert exported(path, "-o", "-", "-c", "/quiet", "--kill", "1").stdout == ""
    assert exported(path, "-o", "-", "-c", "7", "--kill", "1").stdout == of_kill


def test_exported_file_is_private_and_not_replaced_without_force(
    exported: Exported, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.folded"
    assert exported(path, "-o", file).stdout == f"{file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert text == exported(path, "-o", "-").stdout
    file.write_text("kept")
    assert "-f" in refusal(exported(path, "-o", file))
    assert file.read_text() == "kept"
    assert exported(path, "-f", "-o", file).exit_code == 0
    assert file.read_text() == text
    assert sorted(item.name for item in tmp_path.iterdir()) == ["mine.folded", "trace"]


def test_output_that_cannot_be_written_is_an_error(exported: Exported, path: Path, tmp_path: Path) -> None:
    assert "cannot write" in refusal(exported(path, "-o", tmp_path / "no" / "mine"))
    assert isinstance(exported(path, "-f", "-o", tmp_path).exception, UsageError)
    os.mkfifo(tmp_path / "pipe")
    assert "a device or a pipe" in refusal(exported(path, "-f", "-o", tmp_path / "pipe"))


def test_export_of_a_trace_without_stacks_writes_nothing(
    exported: Exported, write_trace: WriteTrace, tmp_path: Path
) -> None:
    """So does export of an older trace, whose meta.json has no field for stacks."""
    file = tmp_path / "mine"
    assert "recorded with --stacks off" in refusal(exported(write_trace(), "-o", file))
    assert not file.exists()
    assert "recorded with --stacks off" in refusal(exported("traces/page-cache", "-o", "-"))


def test_missing_kill_cgroup_or_trace_is_an_error(exported: Exported, path: Path, tmp_path: Path) -> None:
    assert "it holds kill 1" in refusal(exported(path, "-o", "-", "--kill", "7"))
    assert "/quiet" in refusal(exported(path, "-o", "-", "-c", "nowhere"))
    assert isinstance(exported(tmp_path / "none", "-o", "-").exception, TraceError)


def test_export_with_invalid_options_is_a_usage_error(run: CliRunner, path: Path) -> None:
    for arguments in (["-o", "-"], ["--to", "folded"], ["--to", "flames", "-o", "-"]):
        assert run.invoke(export.command, [str(path), *arguments]).exit_code == 2
    shown = run.invoke(export.command, ["--help"]).stdout
    assert "folded" in shown


def test_hostile_names_are_escaped_by_export_and_explain(
    run: CliRunner, exported: Exported, write_trace: WriteTrace
) -> None:
    path = write_trace(comm=HOSTILE, stacks_bytes=MIB)
    (line,) = exported(path, "-o", "-").stdout.splitlines()
    assert line.count(";") == 4
    assert r"\x1b[31m\x3b<script>\nx" in line
    for options in ([], ["-v"], ["--json"]):
        shown = run.invoke(explain.command, [str(path), *options]).stdout
        assert "\x1b" not in shown
        assert "sampled" in shown


def test_kill_restricts_folded_stacks_only(run: CliRunner, path: Path) -> None:
    result = run.invoke(export.command, [str(path), "--to", "perfetto", "-o", "-", "--kill", "1"])
    assert isinstance(result.exception, UsageError)
    assert "--kill is for --to folded and --to pprof" in str(result.exception)


def test_profile_has_the_bytes_of_the_folded_stacks(run: CliRunner, exported: Exported, path: Path) -> None:
    for options, whole in (([], 216 * MIB), (["--kill", "1"], None), (["-c", "/quiet"], 0)):
        written = run.invoke(export.command, [str(path), "--to", "pprof", "-o", "-", *options]).stdout_bytes
        message = message_classes("test", pprof_profile.MESSAGES)["Profile"].FromString(
            gzip.decompress(written)
        )
        folded = exported(path, "-o", "-", *options).stdout.splitlines()
        nr_bytes = sum(one.value[0] for one in message.sample)
        assert nr_bytes == sum(int(line.rpartition(" ")[2]) for line in folded)
        assert whole is None or nr_bytes == whole
        assert message.period == MIB


def test_profile_of_a_trace_without_samples_is_refused(
    run: CliRunner, write_trace: WriteTrace, tmp_path: Path
) -> None:
    result = run.invoke(export.command, [str(write_trace()), "--to", "pprof", "-o", str(tmp_path / "p")])
    assert "recorded with --stacks off" in refusal(result)
    assert not (tmp_path / "p").exists()


def test_binary_format_is_refused_on_a_terminal_and_written_to_a_pipe(
    run: CliRunner, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(path), "--to", "perfetto", "-o"]
    to_pipe = run.invoke(export.command, [*arguments, "-"])
    assert to_pipe.exit_code == 0
    assert run.invoke(export.command, [*arguments, str(tmp_path / "file")]).exit_code == 0
    assert (tmp_path / "file").read_bytes() == to_pipe.stdout_bytes
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _stream: True, raising=False)
    refused = run.invoke(export.command, [*arguments, "-"])
    assert isinstance(refused.exception, UsageError)
    assert "a terminal" in str(refused.exception)


def test_hostile_names_are_escaped_in_a_trace_for_perfetto(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace(comm=HOSTILE, cgroup=f"/{HOSTILE}", container=HOSTILE)
    written = run.invoke(export.command, [str(path), "--to", "perfetto", "-o", "-"]).stdout_bytes
    assert rb"\x1b[31m;<script>\nx" in written
    assert HOSTILE.encode() not in written


def test_steps_of_a_long_trace_are_longer_and_said_to_be(
    run: CliRunner, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_MOST_ROWS", 20)
    result = run.invoke(export.command, [str(path), "--to", "perfetto", "-o", "-"])
    assert "a value each 500ms instead of 100ms" in result.stderr


def test_hostile_names_are_escaped_in_chrome_json(run: CliRunner, write_trace: WriteTrace) -> None:
    path = write_trace(comm=HOSTILE, cgroup=f"/{HOSTILE}", container='"}]')
    text = run.invoke(export.command, [str(path), "--to", "chrome", "-o", "-"]).stdout
    assert text.isascii() and "\x1b" not in text
    names = {event.get("args", {}).get("name") for event in json.loads(text)["traceEvents"]}
    assert rf"/{shown(HOSTILE)} (" + '"}])' in names
    assert shown(HOSTILE) in names


def shown(name: str) -> str:
    return name.replace("\x1b", r"\x1b").replace("\n", r"\n")


def test_metrics_of_a_cgroup_leave_others_out(run: CliRunner, path: Path) -> None:
    def exported(*arguments: str) -> str:
        return run.invoke(export.command, [str(path), "--to", "openmetrics", "-o", "-", *arguments]).stdout

    assert 'id="/quiet"' in exported()
    quiet = exported("-c", "/quiet")
    assert 'id="/quiet"' in quiet and "page-cache" not in quiet and "oom_kills" not in quiet
    assert quiet.endswith("# EOF\n")
