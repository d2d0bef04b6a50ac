"""The address and the options of the endpoint, as `serve` and `watch --serve` take them."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.endpoint_options import DEFAULT_ADDRESS, address
from tracer.cli.verbs import serve, watch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEFAULT_ADDRESS, ("127.0.0.1", 9755)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9755", ("::1", 9755)),
        (":9755", ("127.0.0.1", 9755)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["", "9755", "::1:9755", "host:", "host:65536", "a b:1", "[]:1", "host:1\n"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not an address"):
        address(text)


@given(text=st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        host, port = address(text)
    except click.BadParameter:
        return
    assert host and 0 <= port <= 65535


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tls-cert", "c.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-key", "c.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-client-ca", "c.pem"], "--tls-client-ca needs --tls-cert"),
        (["--listen", "9755"], "is not an address"),
    ],
)
def test_serve_with_options_that_do_not_fit_says_which(options: list[str], message: str) -> None:
    result = CliRunner().invoke(serve.command, options)
    assert result.exit_code == 2
    assert message in result.output


def test_watch_without_an_endpoint_refuses_its_options() -> None:
    result = CliRunner().invoke(watch.command, ["--tls-cert", "c.pem", "--tls-key", "k.pem"])
    assert result.exit_code == 2
    assert "are for --serve" in result.output
