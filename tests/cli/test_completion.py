from __future__ import annotations

import shutil
import subprocess

import click
import pytest
from click.testing import CliRunner

from tracer.cli import completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_for_this_command_and_the_shell_can_read_it(shell: str) -> None:
    result = CliRunner().invoke(completion.command, [shell])
    assert result.exit_code == 0, result.output
    assert "memcg-tracer" in result.stdout
    assert f"_MEMCG_TRACER_COMPLETE={shell}_complete" in result.stdout
    if interpreter := shutil.which(shell):
        subprocess.run([interpreter, "-n"], input=result.stdout, text=True, check=True)


def test_other_shells_are_a_usage_error() -> None:
    result = CliRunner().invoke(completion.command, ["tcsh"])
    assert result.exit_code == click.UsageError.exit_code
    assert "tcsh" in result.stderr
