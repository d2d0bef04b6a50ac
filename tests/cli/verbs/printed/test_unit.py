from __future__ import annotations

import socket
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tracer.cli.verbs import watch
from tracer.cli.verbs.printed import unit
from tracer.errors import TracerError, UsageError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.watch.service import NAME, STATE_FOLDER


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the running program is an installed one, with a space in its path."""
    file = tmp_path / "a folder" / "memcg-tracer"
    file.parent.mkdir()
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(file)])
    return file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(unit.command, arguments)


def command_in(printed: str) -> list[str]:
    return [line.removeprefix("ExecStart=") for line in printed.splitlines() if line.startswith("ExecStart=")]


def test_unit_starts_the_program_that_prints_it(program: Path) -> None:
    assert command_in(run().stdout) == [f'"{program}" watch']
    assert command_in(run("--", "--on", "soon").stdout) == [f'"{program}" watch --on soon']


def test_unit_has_no_events(program: Path) -> None:
    refused = run("--", "--events")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--events is for a pod of Kubernetes" in refused.stderr


def test_unit_of_a_relative_path_starts_the_absolute_one(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys, "argv", ["./memcg-tracer"])
    assert command_in(run().stdout) == [f'"{program}" watch']


def test_unit_of_a_module_starts_the_program_beside_the_interpreter(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/tracer/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert command_in(run().stdout) == [f'"{program}" watch']
    program.unlink()
    missing = run()
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert str(program) in missing.stderr


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    "arguments", [("--out", "/srv/x"), ("--out=/srv/x",), ("--out=/a", "--out", "/srv/x")]
)
def test_directory_of_out_can_be_written_to(arguments: tuple[str, ...]) -> None:
    assert "\nReadWritePaths=/srv/x\n" in run("--", *arguments).stdout


@pytest.mark.usefixtures("program")
def test_url_of_out_needs_the_network_and_no_other_directory() -> None:
    printed = run("--", "--out", "s3://oom/traces").stdout
    assert "PrivateNetwork" not in printed
    assert printed.count("\nReadWritePaths=") == 1
    assert command_in(printed)[0].endswith(" watch --out s3://oom/traces")


@pytest.mark.usefixtures("program")
def test_url_that_cannot_be_used_yet_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(_: object) -> None:
        raise TracerError("cannot use s3://\x1b[2J: pip install s3fs")

    monkeypatch.setattr(watch, "check_in_child", not_installed)
    printed = run("--", "--out", "s3://oom/traces")
    assert printed.exit_code == 0 and "ExecStart=" in printed.stdout
    assert printed.stderr == (
        "memcg-tracer: warning: the service would not start now: cannot use s3://\\x1b[2J: pip install s3fs\n"
    )


@pytest.mark.usefixtures("program")
def test_local_url_of_out_is_a_directory_that_can_be_written_to() -> None:
    pytest.importorskip("fsspec")
    printed = run("--", "--out", "file:///srv/x/").stdout
    assert "\nReadWritePaths=/srv/x\n" in printed
    assert "\nPrivateNetwork=yes\n" in printed


@pytest.mark.usefixtures("program")
def test_default_directory_needs_no_permission_of_its_own() -> None:
    assert run("--", "--out", "/var/lib/memcg-tracer/").stdout.count("\nReadWritePaths=") == 1


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--out", "traces"], "--out traces"),
        (["--exec", "./page-me now"], "--exec ./page-me"),
        (["--serve", ":1", "--tls-cert", "c.pem", "--tls-key", "/k"], "--tls-cert c.pem"),
        (["--serve", ":1", "--tls-cert", "/c", "--tls-key", "k.pem"], "--tls-key k.pem"),
    ],
)
def test_relative_path_is_refused(arguments: list[str], what: str) -> None:
    refused = run("--", *arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"{what} is relative" in refused.stderr


@pytest.mark.usefixtures("program")
def test_program_in_the_path_of_the_service_is_taken() -> None:
    assert run("--", "--exec", "logger memory").exit_code == 0


@pytest.mark.usefixtures("program")
def test_network_is_closed_unless_an_argument_needs_it() -> None:
    assert "\nPrivateNetwork=yes\n" in run("--", "--on", "soon").stdout
    assert "PrivateNetwork=" not in run("--", "--exec", "/bin/x").stdout
    assert "PrivateNetwork=" not in run("--", "--serve", "127.0.0.1:9755").stdout


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "sun"], "'sun'"),
        (["--out", "nope://x"], "Protocol not known: nope"),
        (["--keep", "1s"], "from 10s to 24h"),
        (["--exec", ""], "--exec is empty"),
        (["--exec", "a 'b"], "close the quotation"),
        (["--tls-key", "/k"], "are for --serve"),
        (["--serve", ":1", "--tls-key", "/k"], "belong together"),
        (["--serve", "1.2.3.4.5:1"], "1.2.3.4.5 is no address"),
        (["-c", "../out"], "is not below"),
        (["-c", ""], "an empty cgroup name"),
    ],
)
def test_argument_that_watch_refuses_is_refused(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroupfs, "memory_hierarchy", lambda: Hierarchy(2, Path("/sys/fs/cgroup"), "/"))
    monkeypatch.setattr("socket.getaddrinfo", unknown_host)
    refused = run("--", *arguments)
    assert refused.stdout == ""
    error = refused.exception
    assert (error.exit_code if isinstance(error, UsageError) else refused.exit_code) == 2
    assert words in f"{error} {refused.stderr}"


def unknown_host(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.usefixtures("program")
def test_pressure_that_this_machine_does_not_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cgroupfs, "memory_hierarchy", lambda: Hierarchy(1, Path("/sys/fs/cgroup/memory"), "/")
    )
    refused = run("--", "--psi", "20")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--psi needs cgroup v2" in refused.stderr


@pytest.mark.parametrize("option", ["--keep", "-c"])
def test_option_of_watch_before_the_dashes_is_refused_with_the_way(option: str) -> None:
    refused = run(option, "5m")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"{option} is no option of unit: give arguments of watch after --" in refused.stderr


@pytest.mark.usefixtures("program")
def test_ready_file_is_refused() -> None:
    """The service may write it nowhere, and one of the last boot would stop the next start."""
    refused = run("--", "--ready-file", "/run/ready")
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_default_directory_of_watch_is_the_one_of_the_service() -> None:
    options = {option.name: option.default for option in watch.command.params}
    assert options["directory"] == Path(STATE_FOLDER)


def test_unit_is_part_of_the_distribution() -> None:
    """The file is no module, so setuptools leaves it out unless it is package data."""
    top = Path(__file__).parents[4]
    listed = tomllib.loads((top / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = [file for pattern in listed["tracer.watch"] for file in top.glob(f"tracer/watch/{pattern}")]
    assert [file.name for file in packed] == [NAME]
