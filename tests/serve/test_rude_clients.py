"""Whatever its clients do, the endpoint on this kernel goes on."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

import pytest
from support.recorder import WITHIN_S
from support.scraping.rude_clients import be_rude

pytestmark = [pytest.mark.kernel, pytest.mark.beside]

CLIENTS: Final = 1_000
"""A tenth of them ended the process when SIGPIPE did."""

COMMON: Final = ("-c", "/memcg-tracer-nowhere")


def arguments_of(kind: str, certificate: tuple[str, str], folder: Path) -> list[str]:
    tls = ["--tls-cert", certificate[0], "--tls-key", certificate[1], "--tls-client-ca", certificate[0]]
    return {
        "serve": ["serve", "--listen", "127.0.0.1:0"],
        "serve with TLS": ["serve", "--listen", "127.0.0.1:0", *tls],
        "watch": ["watch", "--serve", "127.0.0.1:0", "--out", str(folder / "traces")],
    }[kind]


@pytest.mark.parametrize("kind", ["serve", "serve with TLS", "watch"])
def test_rude_clients_do_not_end_it(kind: str, certificate: tuple[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tracer", *arguments_of(kind, certificate, tmp_path), *COMMON]
    messages = tmp_path / "stderr"
    with messages.open("wb") as stderr, subprocess.Popen(argv, stderr=stderr, cwd=tmp_path) as process:
        try:
            deadline = time.monotonic() + WITHIN_S
            while not (found := re.findall(r"metrics at (\S+:(\d+)/\S+)", messages.read_text())):
                assert process.poll() is None, messages.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            url, port = found[0]
            be_rude(int(port), CLIENTS)
            context = ssl.create_default_context(cafile=certificate[0])
            context.load_cert_chain(*certificate)
            with urllib.request.urlopen(url, timeout=WITHIN_S, context=context) as answer:
                assert b"memcg_tracer_" in answer.read()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, messages.read_text()
    assert "Traceback" not in messages.read_text()
