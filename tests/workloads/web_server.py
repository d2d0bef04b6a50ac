"""nginx, and a client that asks it for files at random."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_FILES: Final = 71
_CONFIGURATION: Final = """
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
_SERVE: Final = f"""
import random, signal, socket, subprocess, sys, time
server = subprocess.Popen(["nginx", "-p", sys.argv[1], "-c", "nginx.conf"], cwd=sys.argv[1])
choose = random.Random(5)
for number in range(613):
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(sys.argv[1] + "/socket")
            break
        except OSError:
            time.sleep(0.05)
    client.sendall(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % choose.randrange({_FILES}))
    received = 0
    while part := client.recv(1 << 20):
        received += len(part)
    assert received > 1 << 20
server.send_signal(signal.SIGQUIT)
sys.exit(server.wait())
"""


def make_site(folder: Path) -> None:
    """Make the configuration of nginx in a folder, and files of 1 MiB each in its folder `files`."""
    (folder / "files").mkdir()
    for number in range(_FILES):
        (folder / "files" / str(number)).write_bytes(os.urandom(1 << 20))
    (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder), encoding="utf-8")


def serving(folder: Path) -> list[str]:
    """Return the command that serves the files of a folder to a client."""
    return [sys.executable, "-c", _SERVE, str(folder)]
