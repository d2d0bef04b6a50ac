"""The address and the options of the endpoint for Prometheus, which `serve` and `watch --serve` share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tracer.serve.endpoint import Endpoint

DEFAULT_ADDRESS: Final = "127.0.0.1:9755"
_ADDRESS: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/\s]*)):(?P<port>\d{1,5})")


def address(text: str) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT, [IPV6]:PORT, or :PORT (on the loopback address).

    It is the `type` of an option. Raises click.BadParameter.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise click.BadParameter(
            f"{text!r} is not an address: give HOST:PORT, such as {DEFAULT_ADDRESS} or [::1]:9755"
        )
    return match["six"] or match["host"] or "127.0.0.1", int(match["port"])


def endpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `open_endpoint` takes."""
    options = [
        click.option(
            "--max-series", "most_series", metavar="N", type=click.IntRange(min=1), default=20_000,
            show_default=True, help="Most series of cgroups. Containers come first, then cgroups with a "
            "limit, then the largest; the others have usage alone, and memcg_tracer_cgroups_left_out counts "
            "them.",
        ),
        click.option(
            "--tls-cert", "certificate", metavar="FILE", type=click.Path(),
            help="Serve HTTPS with this certificate (PEM); needs --tls-key.",
        ),
        click.option(
            "--tls-key", "key", metavar="FILE", type=click.Path(), help="The key of the certificate (PEM).",
        ),
        click.option(
            "--tls-client-ca", "client_authorities", metavar="FILE", type=click.Path(),
            help="Serve only clients whose certificate one of these authorities signed (PEM).",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def check_tls(certificate: str | None, key: str | None, client_authorities: str | None) -> None:
    """Raise UsageError if a TLS option is given without an option that it needs. The files are not read."""
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both, or none")
    if client_authorities is not None and certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")


def open_endpoint(
    host: str,
    port: int,
    *,
    keeps_traces: bool,
    most_series: int,
    certificate: str | None,
    key: str | None,
    client_authorities: str | None,
) -> Endpoint:
    """Return a listening endpoint. Raises the errors of `Endpoint`: UsageError and TracerError."""
    check_tls(certificate, key, client_authorities)
    from tracer.serve.endpoint import Endpoint
    from tracer.serve.http_server import Tls

    tls = None if certificate is None or key is None else Tls(certificate, key, client_authorities)
    return Endpoint(host, port, most_series=most_series, keeps_traces=keeps_traces, tls=tls)
