"""`completion SHELL`: the script for shell completion of this command."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

PROGRAM = "memcg-tracer"
SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    epilog=f"""\b
Examples:
  eval "$({PROGRAM} completion bash)"
  {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish"""
)
@click.argument("shell", metavar="SHELL", type=click.Choice(list(SHELLS)))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL (bash, zsh or fish) complete this command's verbs and options."""
    variable = f"_{PROGRAM.upper().replace('-', '_')}_COMPLETE"
    click.echo(SHELLS[shell](context.find_root().command, {}, PROGRAM, variable).source())
