"""nginx serves files at random that do not fit below its limit."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from applications.rerun import MIB, assert_reads_nothing_again_at_the_upper_end

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx"),
]

FILES = 71
CONFIGURATION = """
user root;
daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    sendfile on;
    server {{
        listen unix:{folder}/socket;
        root {folder}/files;
    }}
}}
"""
SERVE = f"""
import random, signal, socket, subprocess, sys, time
server = subprocess.Popen(["nginx", "-p", sys.argv[1], "-c", "nginx.conf"], cwd=sys.argv[1])
choose = random.Random(5)
for number in range(613):
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect("socket")
            break
        except OSError:
            time.sleep(0.05)
    client.sendall(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % choose.randrange({FILES}))
    received = 0
    while part := client.recv(1 << 20):
        received += len(part)
    assert received > 1 << 20
server.send_signal(signal.SIGQUIT)
sys.exit(server.wait())
"""


def test_nginx_at_the_suggested_limit_reads_nothing_again(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(FILES):
        (files / str(number)).write_bytes(os.urandom(MIB))
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(folder=tmp_path), encoding="utf-8")
    serve = [sys.executable, "-c", SERVE, str(tmp_path)]
    assert_reads_nothing_again_at_the_upper_end(serve, tmp_path / "trace", 52 * MIB, tmp_path, files)
