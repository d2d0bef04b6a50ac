"""The server: content negotiation, TLS, and clients that are slow, many or silent."""

from __future__ import annotations

import gzip
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily
from support.slowdown import SLOWDOWN

from tracer.errors import TracerError, UsageError
from tracer.render.export.openmetrics_text import OneMetric
from tracer.serve import http_server
from tracer.serve.http_server import MOST_CONNECTIONS, READY, MetricsServer, Texts, Tls

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
WITHIN_S = 60 * SLOWDOWN


class Counting:
    """Texts of a metric of `size` series, in two parts; counts how often they were asked for."""

    def __init__(self, size: int = 1) -> None:
        self.asked = 0
        self._size = size

    def __call__(self, encoder: Callable[[Any], bytes], _content_type: str) -> Iterator[str]:
        self.asked += 1
        metric = GaugeMetricFamily("memcg_tracer_usage_bytes", "Help.", labels=["id"], unit="bytes")
        for number in range(self._size):
            metric.add_metric([f"/{number}"], number)
        text = encoder(OneMetric(metric)).decode()
        yield text[:20]
        yield text[20:]


def started(texts: Texts, stack: ExitStack, tls: Tls | None = None) -> MetricsServer:
    server = MetricsServer("127.0.0.1", 0, texts, tls)
    stack.callback(server.close)
    server.start()
    return server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def scrape(server: MetricsServer, accept: str = OPEN_METRICS, path: str = "/metrics") -> tuple[str, str]:
    """Return the content type and the text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    assert answer.status == 200
    return answer.headers["Content-Type"], answer.read().decode()


def threads_of_connections() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_format_is_the_one_that_the_client_asks_for(stack: ExitStack) -> None:
    server = started(Counting(), stack)
    kind, text = scrape(server)
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    kind, text = scrape(server, "text/plain")
    assert kind.startswith("text/plain")
    assert "# EOF" not in text
    assert 'memcg_tracer_usage_bytes{id="/0"} 0.0' in text


def test_packed_answer_is_the_same_text(stack: ExitStack) -> None:
    server = started(Counting(1000), stack)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)
    connection.request("GET", "/metrics", headers={"Accept": OPEN_METRICS, "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    packed = answer.read()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(packed)
    assert gzip.decompress(packed).decode() == scrape(server)[1]


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
def test_other_method_than_get_is_refused(stack: ExitStack, method: str) -> None:
    texts = Counting()
    server = started(texts, stack)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)
    connection.request(method, "/metrics")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"], texts.asked) == (405, "GET", 0)


def test_probe_of_readiness_collects_nothing(stack: ExitStack) -> None:
    texts = Counting()
    server = started(texts, stack)
    assert scrape(server, path=READY) == ("text/plain", "ready\n")
    assert texts.asked == 0


def test_requests_wait_until_the_server_starts(stack: ExitStack) -> None:
    server = MetricsServer("127.0.0.1", 0, Counting())
    stack.callback(server.close)
    early = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WITHIN_S))
    early.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    server.start()
    assert early.recv(8) == b"HTTP/1.0"


def test_hundred_silent_connections_do_not_keep_a_scrape_from_its_answer(stack: ExitStack) -> None:
    server = started(Counting(), stack)
    for _ in range(100):
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WITHIN_S))
    began_s = time.monotonic()
    _, text = scrape(server)
    assert "memcg_tracer_usage_bytes" in text
    assert time.monotonic() - began_s < http_server.WITHIN_S * SLOWDOWN
    deadline_s = time.monotonic() + WITHIN_S
    while threads_of_connections() > MOST_CONNECTIONS:  # that of a closed connection ends a moment later
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_client_that_does_not_read_holds_up_nobody_and_is_dropped(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server._Handler, "timeout", 0.5)
    texts = Counting(200_000)
    server = started(texts, stack)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(f"GET /metrics HTTP/1.0\r\nAccept: {OPEN_METRICS}\r\n\r\n".encode())
        deadline_s = time.monotonic() + WITHIN_S
        while not texts.asked:
            assert time.monotonic() < deadline_s, "its request was not read"
            time.sleep(0.01)
        monkeypatch.setattr(http_server._Handler, "timeout", WITHIN_S)  # of the other client, which reads
        assert len(scrape(server)[1]) > 1 << 20
        while threads_of_connections():
            assert time.monotonic() < deadline_s, "its thread has not ended"
            time.sleep(0.01)


def test_many_scrapes_at_once_share_an_answer(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "SHARED_S", WITHIN_S)
    texts = Counting()
    server = started(texts, stack)
    scrapers = [threading.Thread(target=scrape, args=(server,)) for _ in range(20)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    assert texts.asked == 1


def test_port_that_is_taken_is_an_error(stack: ExitStack) -> None:
    server = started(Counting(), stack)
    with pytest.raises(TracerError, match=f"cannot listen on 127.0.0.1 port {server.port}: Address already"):
        MetricsServer("127.0.0.1", server.port, Counting())


@pytest.mark.parametrize(("number", "status"), [(socket.EAI_NONAME, 2), (socket.EAI_AGAIN, 1)])
def test_host_that_does_not_exist_is_a_usage_error_unless_it_may_come(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TracerError, match=r"metrics\.local is no address of this machine: unknown") as raised:
        MetricsServer("metrics.local", 0, Counting())
    assert raised.value.exit_code == status


def test_close_frees_the_port() -> None:
    server = MetricsServer("127.0.0.1", 0, Counting())
    server.start()
    scrape(server)
    server.close()
    MetricsServer("127.0.0.1", server.port, Counting()).close()


@pytest.mark.parametrize("asks_clients", [False, True])
def test_tls_serves_only_those_who_may(
    stack: ExitStack, certificate: tuple[str, str], asks_clients: bool
) -> None:
    path, key = certificate
    server = started(Counting(), stack, Tls(path, key, path if asks_clients else None))
    assert server.url == f"https://127.0.0.1:{server.port}/metrics"
    silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WITHIN_S))
    assert silent.fileno() >= 0, "a client without a handshake holds up nobody"
    context = ssl.create_default_context(cafile=path)
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=WITHIN_S, context=context)
    if asks_clients:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connection.request("GET", "/metrics")
            connection.getresponse()
        context.load_cert_chain(path, key)
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=WITHIN_S, context=context)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200


def test_tls_without_a_readable_key_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"TLS cannot be offered with .*: No such file"):
        MetricsServer("127.0.0.1", 0, Counting(), Tls(str(tmp_path / "none"), str(tmp_path / "key")))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("which", range(3))
def test_pipe_as_a_certificate_is_refused(certificate: tuple[str, str], tmp_path: Path, which: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = [*certificate, certificate[0]]
    files[which] = str(tmp_path / "pipe")
    with pytest.raises(UsageError, match="it is no regular file"):
        Tls(*files).context()
