"""`unit [-- ARGUMENT...]`: the systemd unit that runs `watch` on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from tracer.errors import TracerError, UsageError
from tracer.render.words.escape import visible
from tracer.urls import is_url

_PROGRAM: Final = "memcg-tracer"


class _AfterDashes(click.Command):
    """A command whose usage errors say where options of `watch` belong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(
                f"{error.option_name} is no option of unit: give arguments of watch after --", ctx
            ) from error


@click.command(
    cls=_AfterDashes,
    epilog="""\b
Examples:
  memcg-tracer unit | sudo tee /etc/systemd/system/memcg-tracer.service
  memcg-tracer unit -- --keep 10m --on soon     # arguments of watch come after --
  sudo systemctl daemon-reload && sudo systemctl enable --now memcg-tracer""",
)
@click.argument("arguments", metavar="[-- ARGUMENT...]", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Print the systemd unit of a service that runs `memcg-tracer watch` with these arguments.

    The service starts the memcg-tracer that printed the unit, keeps traces in /var/lib/memcg-tracer, or in
    the directory of -o, which must exist, and can write nowhere else. It has no access to the network
    unless the arguments have --exec, --serve, or the URL of a server for -o. Arguments that `watch` would
    refuse on this machine are refused here.
    """
    from tracer.cli.verbs import watch
    from tracer.watch.service import STATE_FOLDER, unit_text

    options = watch.command.make_context("memcg-tracer watch", list(arguments)).params
    _require_absolute_paths(watch.command.params, options)
    try:
        _check(options)
    except TracerError as error:
        if isinstance(error, UsageError):
            raise
        click.echo(f"memcg-tracer: warning: the service would not start now: {visible(str(error))}", err=True)
    folder, has_url = _place(options["directory"])
    text = unit_text(
        _own_program(),
        arguments,
        folder=None if folder == STATE_FOLDER else folder,
        needs_network=has_url or any(options[name] is not None for name in ("command_line", "host_and_port")),
    )
    click.echo(text, nl=False)


def _check(options: Mapping[str, Any]) -> None:
    """Raise the errors with which `watch` would refuse these arguments on this machine."""
    from tracer.cli.verbs import watch
    from tracer.kernel.cgroups.cgroupfs import memory_hierarchy
    from tracer.kernel.cgroups.selectors import parse_selectors
    from tracer.kernel.naming.host_names import HostNames

    if options["events"]:
        raise click.UsageError("--events is for a pod of Kubernetes: a service has no account of the cluster")
    words = watch.check(**options)
    if words and "/" in words[0]:
        _require_absolute("--exec", words[0])
    if options["cgroups"]:
        parse_selectors(memory_hierarchy(), options["cgroups"], HostNames().find)
    if options["host_and_port"] is not None:
        from tracer.serve.http_server import family_of

        family_of(*options["host_and_port"])


def _require_absolute_paths(params: Sequence[click.Parameter], options: Mapping[str, Any]) -> None:
    """Raise UsageError for a path that a service cannot have."""
    if options["ready_file"] is not None:
        raise click.UsageError("--ready-file is for scripts: systemd is notified when the service is ready")
    for option in params:
        value = options[str(option.name)]
        if isinstance(option.type, click.Path) and value is not None and not is_url(str(value)):
            _require_absolute(option.opts[-1], os.path.normpath(value))


def _require_absolute(option: str, path: str) -> None:
    if not path.startswith("/"):
        raise click.UsageError(f"{option} {path} is relative, and a service has no current directory")


def _place(directory: Path | str) -> tuple[str, bool]:
    """Return the directory that the service writes to for --out, and whether copies go to a server."""
    from tracer.fleet.pushing.target import Target
    from tracer.watch.service import STATE_FOLDER

    if isinstance(directory, Path):
        return os.path.normpath(directory), False
    with suppress(TracerError):  # the check has reported a directory that the service cannot use
        target = Target(directory)
        if target.is_local:
            return target.root, False
    return STATE_FOLDER, True


def _own_program() -> str:
    """Return the absolute path of the running memcg-tracer, or of its interpreter if it runs as a module."""
    if Path(sys.argv[0]).name == _PROGRAM and (own := shutil.which(sys.argv[0])):
        return str(Path(own).absolute())
    beside = Path(sys.executable).with_name(_PROGRAM)
    if not os.access(beside, os.X_OK):
        raise click.ClickException(f"a service needs an installed program, and {beside} does not exist")
    return str(beside)
