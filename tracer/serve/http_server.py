"""The HTTP server: serves metrics by threads that no client can block.

The server of prometheus_client starts a thread for each connection, without a bound. Here, at most
`MOST_CONNECTIONS` are open: the oldest is closed for a new one. A client that sends nothing for `WITHIN_S`,
or does not take the answer within that time, is dropped. Answers are made one at a time and shared for
`SHARED_S`, so that many clients cost as much as one. Probes use the path `READY`, which costs almost nothing.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import stat
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client.exposition import choose_encoder, gzip_accepted

from tracer.errors import TracerError, UsageError
from tracer.kernel.process.priority import Favour, prefer_this_thread

MOST_CONNECTIONS: Final = 32
WITHIN_S: Final = 10.0
"""The default scrape timeout of Prometheus."""
SHARED_S: Final = 0.5
READY: Final = "/ready"
_BACKLOG: Final = 128
_STACK_BYTES: Final = 512 << 10
_GZIP: Final = 16 + zlib.MAX_WBITS
_SWITCH_S: Final = 0.001
"""While a thread answers, the thread that records gets the interpreter within this time."""

Texts = Callable[[Callable[[Any], bytes], str], Iterable[str]]
"""(a writer of prometheus_client: registry -> text, its content type) -> the text of all metrics, in parts.
"""


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files: the certificate chain, its key, and the authorities that must have signed the
    certificate of a client; None: any client is served."""

    certificate: str
    key: str
    client_authorities: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return the settings of a server. Raises UsageError if a file cannot be used."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        for file in filter(None, (self.certificate, self.key, self.client_authorities)):
            _require_file(file)
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_authorities is not None:
                context.load_verify_locations(self.client_authorities)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"TLS cannot be offered with {self.certificate} and {self.key}: {error.strerror or error}"
            ) from error
        return context


def _require_file(path: str) -> None:
    """Raise UsageError unless a path is a regular file: OpenSSL would wait for a writer of a FIFO."""
    try:
        is_file = stat.S_ISREG(Path(path).stat().st_mode)
    except OSError as error:
        raise UsageError(f"TLS cannot be offered with {path}: {error.strerror}") from error
    if not is_file:
        raise UsageError(f"TLS cannot be offered with {path}: it is no regular file")


def family_of(host: str, port: int) -> socket.AddressFamily:
    """Return the family of the address to listen on. Raises UsageError for an invalid host, and TracerError
    if the host's name cannot be looked up now."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except OSError as error:
        # At boot, the service may start before the network, and systemd does not retry after a UsageError.
        kind = TracerError if error.errno == socket.EAI_AGAIN else UsageError
        raise kind(f"{host} is no address of this machine: {error.strerror}") from error


class MetricsServer:
    """A server of `texts` on one address, whose socket listens from the start. `start` begins to answer.

    Raises the errors of `family_of`, and TracerError if the port is taken.
    """

    def __init__(self, host: str, port: int, texts: Texts, tls: Tls | None = None) -> None:
        self._is_tls = tls is not None
        family = family_of(host, port)
        try:
            self._server = _Server(family, (host, port), tls.context() if tls else None)
        except OSError as error:
            raise TracerError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        self._server.set_app(_Shared(texts))
        self.host, self.port = host, int(self._server.server_address[1])
        self._is_open = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """Return the URL of the metrics."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._is_tls else 'http'}://{host}:{self.port}/metrics"

    def start(self) -> None:
        """Begin to answer, by threads that end with this process."""
        sys.setswitchinterval(_SWITCH_S)
        threading.stack_size(_STACK_BYTES)
        self._thread.start()

    def close(self) -> None:
        """Stop answering, and free the address."""
        self._is_open = False
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread.is_alive():
            self._thread.join()
        self._server.server_close()

    def _run(self) -> None:
        """Accept connections. `serve_forever` would wake up twice a second to check whether it should end."""
        self._server.favour = Favour()
        while self._is_open:
            self._server.handle_request()


class _Shared:
    """A WSGI application that makes answers one at a time, and gives each answer to all clients that ask for
    the same format within `SHARED_S`. Each path has the metrics, except `READY`, which costs nothing."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._lock = threading.Lock()
        self._last: tuple[object, float, list[bytes]] = (None, 0.0, [])

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return []
        if environ.get("PATH_INFO") == READY:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"ready\n"]
        encoder, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        is_packed = gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", ""))
        with self._lock:
            question, made_s, body = self._last
            if question != (content_type, is_packed) or time.monotonic() - made_s > SHARED_S:
                parts = (text.encode() for text in self._texts(encoder, content_type))
                body = _packed(parts) if is_packed else [*parts]
                self._last = ((content_type, is_packed), time.monotonic(), body)
        headers = [("Content-Type", content_type), ("Content-Length", str(sum(map(len, body))))]
        start_response("200 OK", headers + [("Content-Encoding", "gzip")] * is_packed)
        return body


def _packed(parts: Iterable[bytes]) -> list[bytes]:
    """Return parts as one gzip file. Level 1 takes a fifth of the time of level 9 and a fifth more bytes."""
    packer = zlib.compressobj(level=1, wbits=_GZIP)
    return [*map(packer.compress, parts), packer.flush()]


class _Handler(WSGIRequestHandler):
    timeout = WITHIN_S

    def log_message(self, *_: object) -> None:
        """Log nothing: any client could fill the log."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(
        self, family: socket.AddressFamily, address: tuple[str, int], tls: ssl.SSLContext | None
    ) -> None:
        self.address_family = family
        self._tls = tls
        self._open: dict[Any, None] = {}
        self._lock = threading.Lock()
        self._ended_cpu_s = 0.0  # of the threads that have answered
        self.favour: Favour  # of the accepting thread
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of the host's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a new thread. With `MOST_CONNECTIONS` open, close the oldest connection first."""
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread ends
            self._open[request] = None
            cpu_s = self._ended_cpu_s + time.thread_time()
        self.favour.adjust(cpu_s)  # the new thread inherits it
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        prefer_this_thread()  # if it is not favoured: it holds the lock for which the recorder may wait
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._ended_cpu_s += time.thread_time()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a request, after the TLS handshake if TLS is on."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(WITHIN_S)
        with self._tls.wrap_socket(request.dup(), server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Ignore errors that a client causes: it went away, or speaks another protocol."""
