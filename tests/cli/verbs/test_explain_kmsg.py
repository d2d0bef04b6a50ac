"""`explain --kmsg`: the post-mortem from a kernel log alone."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len
from support.golden import compare

from tracer.cli.verbs import explain
from tracer.errors import TracerError, UsageError

CORPUS = Path(__file__).parents[2] / "kernel/kmsg/corpus"
GOLDEN = Path(__file__).parent / "golden"
NO_KILL = "This log has no report of the OOM killer"


def output(result: Result) -> str:
    assert result.exception is None, result.exception
    return result.stdout


def failure(result: Result) -> BaseException:
    assert result.exception is not None
    return result.exception


@pytest.mark.parametrize(
    ("name", "log", "arguments"),
    [
        ("swap", "captured-6.12-debian13-v2-dmesg-x.log", []),
        ("pod", "written-5.10-debian11-v2-rfc3339.log", ["-v"]),
        ("global", "captured-6.18-debian13-v2-dmesg-iso.log", ["--kill", "2"]),
        ("group", "captured-6.1-debian12-v2-kmsg.log", ["--kill", "2"]),
        ("hostile", "captured-6.1-debian12-v2-hostile-dmesg.log", []),
        ("kill-alone", "written-6.6-cut.log", ["--kill", "2"]),
        ("old", "written-4.19-debian10-v1-kern.log", []),
    ],
)
def test_explain_of_a_log_matches_the_golden_file(
    run: CliRunner, name: str, log: str, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    shown = output(run.invoke(explain.command, ["--kmsg", str(CORPUS / log), *arguments]))
    assert max(map(cell_len, shown.splitlines())) <= 100
    compare(GOLDEN / f"explain-kmsg-{name}.txt", shown, request.node.nodeid)


def test_log_that_cannot_show_a_kill_is_an_error(run: CliRunner) -> None:
    for given, what in ((b"", "is empty"), (b"-- No entries --\n", "has no line of the kernel")):
        for arguments in ([], ["--json"]):
            raised = failure(run.invoke(explain.command, ["--kmsg", "-", *arguments], input=given))
            assert isinstance(raised, TracerError) and raised.exit_code == 1
            assert f"standard input {what}" in str(raised) and "journalctl -k" in str(raised)


def test_kmsg_json_has_all_kills_and_reads_stdin(run: CliRunner) -> None:
    log = CORPUS / "captured-6.1-debian12-v2-kmsg.log"
    document = json.loads(output(run.invoke(explain.command, ["--kmsg", str(log), "--json"])))
    assert (document["schema"], document["trace"], document["kmsg"]) == (1, None, str(log))
    assert [kill["kill_id"] for kill in document["kills"]] == list(range(1, 9))
    assert {kill["quality"]["kmsg"] for kill in document["kills"]} == {"only"}
    piped = run.invoke(explain.command, ["--kmsg", "-", "--json"], input=log.read_bytes())
    assert json.loads(output(piped)) == document | {"kmsg": "-"}
    second = run.invoke(explain.command, ["--kmsg", str(log), "--json", "--kill", "2"])
    assert json.loads(output(second))["kills"] == [document["kills"][1]]


@pytest.mark.parametrize("content", [b"[    1.000000] Linux version 6.12\n", b"\0\n" * 9 + b"words\n"])
def test_log_without_a_kill_is_no_error(run: CliRunner, tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "kern.log"
    log.write_bytes(content)
    shown = run.invoke(explain.command, ["--kmsg", str(log)])
    document = run.invoke(explain.command, ["--kmsg", str(log), "--json"])
    if b"\0" in content:
        assert "is not text" in str(failure(shown))
    else:
        assert output(shown).startswith(NO_KILL)
        assert json.loads(output(document))["kills"] == []


def test_zeros_after_a_crash_do_not_hide_a_kill(run: CliRunner, tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    log.write_bytes(b"\0" * 4096 + b"\n" + (CORPUS / "captured-6.18-v1-kmsg.log").read_bytes())
    assert len(json.loads(output(run.invoke(explain.command, ["--kmsg", str(log), "--json"])))["kills"]) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x28\xb5\x2f\xfd" + bytes(9), "zstdcat"),
        (lzma.compress(b"\0" * 99), "is not text"),
        (b"LPKSHHRH" + bytes(99), "journalctl -k --file"),
        (bytes(99), "is not text"),
    ],
)
def test_binary_log_is_an_error(run: CliRunner, tmp_path: Path, content: bytes, expected: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    raised = failure(run.invoke(explain.command, ["--kmsg", str(log)]))
    assert isinstance(raised, TracerError) and raised.exit_code == 1
    assert expected in str(raised)


def test_device_file_as_log_is_refused(run: CliRunner) -> None:
    if not Path("/dev/kmsg").exists():
        pytest.skip("no /dev/kmsg here")
    raised = failure(run.invoke(explain.command, ["--kmsg", "/dev/kmsg"]))
    assert isinstance(raised, TracerError)
    assert "dmesg" in str(raised)


def test_missing_log_is_an_error(run: CliRunner) -> None:
    raised = failure(run.invoke(explain.command, ["--kmsg", "/nowhere/kern.log"]))
    assert isinstance(raised, FileNotFoundError)


def test_explain_of_a_trace_and_a_log_is_a_usage_error(run: CliRunner) -> None:
    raised = failure(run.invoke(explain.command, ["trace", "--kmsg", "log"]))
    assert isinstance(raised, UsageError) and raised.exit_code == 2


def test_kill_number_that_is_not_in_the_log_is_an_error(run: CliRunner) -> None:
    log = str(CORPUS / "captured-6.18-v1-kmsg.log")
    raised = failure(run.invoke(explain.command, ["--kmsg", log, "--kill", "7"]))
    assert isinstance(raised, UsageError)
    assert "in this log: it holds kill 1" in str(raised)


ID = "9f" * 32
UID = "0f4a1e9c-3b1d-4d5e-8a7b-1c2d3e4f5a6b"
HOSTILE = "\x1b[31mweb"


def _log_of(path: str) -> str:
    """Return the log of a kill at the limit of the cgroup with this path."""
    return (CORPUS / "captured-6.18-v1-kmsg.log").read_text().replace("/memcg-tracer-kmsg", path)


def _docker_knows(monkeypatch: pytest.MonkeyPatch, host: Path, name: str) -> None:
    config = host / "var" / "lib" / "docker" / "containers" / ID / "config.v2.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"Name": f"/{name}", "Config": {"Image": f"{name}:7"}}))
    monkeypatch.setenv("MEMCG_TRACER_HOST_ROOT", str(host))


def test_container_has_the_name_from_its_runtime(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    once = _log_of(f"/docker/{ID}")
    log.write_text(once + once.replace("23055", "23066"))  # the same again would be a copy of one kill
    plain = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert f"cgroup container {ID} (/docker/{ID})" in plain
    _docker_knows(monkeypatch, tmp_path / "host", "crasher")
    shown = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert f"cgroup container crasher (/docker/{ID})" in shown
    assert "container crasher: killed twice" in shown
    for named in ("crasher", ID[:12], f"/docker/{ID}", "crash*"):
        document = output(run.invoke(explain.command, ["--kmsg", str(log), "-c", named, "--json"]))
        assert [kill["limit_owner"]["container"] for kill in json.loads(document)["kills"]] == ["crasher"] * 2
        assert [kill["limit_owner"]["image"] for kill in json.loads(document)["kills"]] == ["crasher:7"] * 2
    raised = failure(run.invoke(explain.command, ["--kmsg", str(log), "-c", "other"]))
    assert isinstance(raised, TracerError)
    assert str(raised) == "no kill in this log is of 'other'; it has '/inner', 'crasher'"


def test_name_of_a_container_is_escaped(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text(_log_of(f"/docker/{ID}") * 2)
    _docker_knows(monkeypatch, tmp_path / "host", HOSTILE)
    for arguments in ([], ["-v"], ["--list"], ["--json"]):
        shown = output(run.invoke(explain.command, ["--kmsg", str(log), *arguments]))
        assert "\x1b" not in shown and "[31mweb" in shown


def test_pod_and_container_precede_the_path(run: CliRunner, tmp_path: Path) -> None:
    slice_ = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    path = f"/kubepods.slice/kubepods-burstable.slice/{slice_}/cri-containerd-{ID}.scope"
    log = tmp_path / "log"
    log.write_text(_log_of(path))
    shown = output(run.invoke(explain.command, ["--kmsg", str(log)]))
    _, _, cgroup = "".join(shown.split()).partition("cgroupcontainer")
    assert cgroup.startswith(f"{ID},pod{UID}({path})")


@pytest.mark.parametrize(
    ("path", "sentence", "in_the_list"),
    [
        (
            "/lxc/217/ns/system.slice/mail.service",
            "the cgroup /system.slice/mail.service in container 217",
            "217/system.slice/mail.service",
        ),
        (f"/lxc/217/ns/docker/{ID}", f"container {ID[:12]} in container 217", f"{ID[:12]} in 217"),
        (f"/docker/{ID}/kubelet/kubepods/pod{UID}", f"pod {UID} in container {ID[:12]}", f"pod {UID}"),
    ],
)
def test_limit_inside_a_container_is_named_with_what_it_is_in(
    run: CliRunner, tmp_path: Path, path: str, sentence: str, in_the_list: str
) -> None:
    log = tmp_path / "log"
    log.write_text(_log_of(path))
    assert sentence in " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert in_the_list in " ".join(
        output(run.invoke(explain.command, ["--kmsg", str(log), "--list"])).split()
    )


def test_kills_inside_one_container_are_counted_by_limit(run: CliRunner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    units = [_log_of(f"/lxc/217/ns/system.slice/{name}.service") for name in ("mail", "web")]
    log.write_text(units[0] + units[1].replace("23055", "23066"))
    shown = output(run.invoke(explain.command, ["--kmsg", str(log)]))
    assert [line.partition(":")[0] for line in shown.splitlines()[:2]] == [
        "container 217/system.slice/mail.service",
        "container 217/system.slice/web.service",
    ]


def test_list_and_last_work_with_a_log(run: CliRunner) -> None:
    log = str(CORPUS / "captured-6.1-debian12-v2-kmsg.log")
    listed = output(run.invoke(explain.command, ["--kmsg", log, "--list"])).splitlines()
    assert [line.split()[0] for line in listed[1:]] == [str(number) for number in range(1, 9)]
    last = output(run.invoke(explain.command, ["--kmsg", log, "--last"]))
    assert last.startswith("Kill 8; 7 others: --list")
    whole = output(run.invoke(explain.command, ["--kmsg", log]))
    assert "Kill 8, the newest (7 others" in whole


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "May 01 10:00:00 h systemd-oomd[612]: Killed /user.slice/a.scope due to memory pressure for /u",
            "In user space, systemd-oomd killed:",
        ),
        (
            'May 01 10:00:00 h earlyoom[9]: sending SIGTERM to process 7 uid 1000 "firefox": oom_score 901',
            "In user space, earlyoom killed:",
        ),
        (
            "5m Warning Evicted pod/hog The node was low on resource: memory. Threshold: 100Mi",
            "In user space, kubelet killed:",
        ),
    ],
)
def test_log_with_userspace_kills_only_lists_them(
    run: CliRunner, tmp_path: Path, line: str, expected: str
) -> None:
    log = tmp_path / "log"
    log.write_text(f"{line}\n")
    shown = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert shown.startswith(f"This log has no report of the kernel's OOM killer. {expected}")
    assert "killed nothing" not in shown
    log.write_text("May 01 10:00:00 h kernel: eth0: up\n")
    quiet = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert "the kernel killed nothing, or logged it elsewhere" in quiet


def test_progress_says_how_much_of_a_log_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr("tracer.cli.standard_streams.Progress.says", lambda _, what: said.append(what))
    log = CORPUS / "captured-6.18-v1-kmsg.log"
    output(CliRunner().invoke(explain.command, ["--kmsg", str(log), "--list"]))
    assert any(what.startswith(f"reading {log}: ") for what in said)


TABLE = """\
[   71.000001] [    612]     0   612     6130     1100    77824        0         -1000 udevd
[   71.000002] [   2210]  1001  2210   901122   612345  5242880        0             0 java
[   71.000003] [   2300]  1001  2300   112233    20111   401408        0             0 node
"""
TITLE = "[   71.000000] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n"


@pytest.mark.parametrize("titled", ["", TITLE], ids=["rows alone", "with the title"])
def test_rows_of_a_table_alone_are_a_part_of_a_report(run: CliRunner, tmp_path: Path, titled: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"{titled}{TABLE}[   90.000001] usb 1-1: new device found\n")
    shown = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert shown.startswith("the kernel log has only a part of an OOM report, the table of processes: the ")
    assert "The largest processes: java (pid 2210) with 2.3 GiB, node (pid 2300) with 78.6 MiB" in shown
    found = json.loads(output(run.invoke(explain.command, ["--kmsg", str(log), "--json"])))["kills"]
    assert [one["victims"] for one in found] == [[]]
    assert found[0]["constraint"] == "unknown"
    assert [one["pid"] for one in found[0]["candidates"]] == [2210, 2300, 612]


def test_state_of_the_machine_alone_may_be_of_no_oom(run: CliRunner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "[   71.000001] Mem-Info:\n[   71.000002] Node 0 DMA free:11264kB min:1024kB high:1500kB\n"
    )
    shown = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert "which the kernel prints for an OOM, for a failed allocation and for SysRq+M" in shown


@pytest.mark.parametrize(
    ("named", "container"),
    [("1234", "1234"), ("8f6a1f0a-1c2b-4a5d-9a7b-00000000000a", "8f6a1f0a-1c2b-4a5d-9a7b-00000000000a")],
)
def test_container_of_openvz_is_the_limit_owner(
    run: CliRunner, tmp_path: Path, named: str, container: str
) -> None:
    log = tmp_path / "log"
    killed = "OOM killed process 8123 (php) score 0 vm:441000kB, rss:220000kB, swap:1024kB"
    log.write_text(f"[   71.000001] Out of memory in UB {named}: {killed}\n")
    found = json.loads(output(run.invoke(explain.command, ["--kmsg", str(log), "--json"])))["kills"][0]
    assert found["constraint"] == "memcg"
    assert found["limit_owner"]["container"] == container
    assert not {"limit_owner", "limit_owner.container"} & {*found["quality"]["unknown"]}
    shown = " ".join(output(run.invoke(explain.command, ["--kmsg", str(log)])).split())
    assert f"killed because container {named} was at its limit" in shown


def test_host_of_openvz_is_no_container(run: CliRunner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "[   71.000001] Out of memory in UB 0: OOM killed process 8123 (php) score 0 vm:441000kB\n"
    )
    found = json.loads(output(run.invoke(explain.command, ["--kmsg", str(log), "--json"])))["kills"][0]
    assert found["limit_owner"]["container"] is None
