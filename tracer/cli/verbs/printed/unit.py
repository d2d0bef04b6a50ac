"""`unit [-- ARGUMENT...]`: the systemd unit that runs `watch` on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import click

_PROGRAM: Final = "memcg-tracer"


@click.command(
    epilog="""\b
Examples:
  memcg-tracer unit | sudo tee /etc/systemd/system/memcg-tracer.service
  memcg-tracer unit -- --keep 10m --on soon
  sudo systemctl daemon-reload && sudo systemctl enable --now memcg-tracer"""
)
@click.argument("arguments", metavar="[-- ARGUMENT...]", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Print the systemd unit of a service that runs `memcg-tracer watch`, with these arguments of `watch`.

    The service starts the memcg-tracer that printed the unit, keeps traces in /var/lib/memcg-tracer, or in
    the directory of --out, which must exist, and can write nowhere else. It has no access to the network
    unless the arguments have --exec, --serve, or a URL for --out.
    """
    from tracer.cli.verbs import watch
    from tracer.watch.service import STATE_FOLDER, unit_text

    options = watch.command.make_context("memcg-tracer watch", list(arguments)).params
    has_url = isinstance(options["directory"], str)
    folder = STATE_FOLDER if has_url else os.path.normpath(options["directory"])
    if not folder.startswith("/"):
        raise click.UsageError(f"--out {folder} is relative, and a service has no current directory")
    text = unit_text(
        _own_program(),
        arguments,
        folder=None if folder == STATE_FOLDER else folder,
        needs_network=has_url or any(options[name] is not None for name in ("command_line", "host_and_port")),
    )
    click.echo(text, nl=False)


def _own_program() -> str:
    """Return the absolute path of the running memcg-tracer; its interpreter's if it runs as a module."""
    if Path(sys.argv[0]).name == _PROGRAM and (own := shutil.which(sys.argv[0])):
        return str(Path(own).absolute())
    beside = Path(sys.executable).with_name(_PROGRAM)
    if not os.access(beside, os.X_OK):
        raise click.ClickException(f"a service needs an installed program, and {beside} does not exist")
    return str(beside)
