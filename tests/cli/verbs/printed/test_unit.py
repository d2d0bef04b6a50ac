from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tracer.cli.verbs import watch
from tracer.cli.verbs.printed import unit
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
def test_default_directory_needs_no_permission_of_its_own() -> None:
    assert run("--", "--out", "/var/lib/memcg-tracer/").stdout.count("\nReadWritePaths=") == 1


@pytest.mark.usefixtures("program")
def test_relative_directory_of_out_is_refused() -> None:
    refused = run("--", "--out", "traces")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--out traces is relative" in refused.stderr


@pytest.mark.usefixtures("program")
def test_network_is_closed_unless_an_argument_needs_it() -> None:
    assert "\nPrivateNetwork=yes\n" in run("--", "--on", "soon").stdout
    assert "PrivateNetwork=" not in run("--", "--exec", "/bin/x").stdout
    assert "PrivateNetwork=" not in run("--", "--serve", "127.0.0.1:9755").stdout


@pytest.mark.usefixtures("program")
def test_argument_that_watch_does_not_take_is_refused() -> None:
    refused = run("--", "--on", "sun")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "'sun'" in refused.stderr


def test_default_directory_of_watch_is_the_one_of_the_service() -> None:
    options = {option.name: option.default for option in watch.command.params}
    assert options["directory"] == Path(STATE_FOLDER)


def test_unit_is_part_of_the_distribution() -> None:
    """The file is no module, so setuptools leaves it out unless it is package data."""
    top = Path(__file__).parents[4]
    listed = tomllib.loads((top / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = [file for pattern in listed["tracer.watch"] for file in top.glob(f"tracer/watch/{pattern}")]
    assert [file.name for file in packed] == [NAME]
