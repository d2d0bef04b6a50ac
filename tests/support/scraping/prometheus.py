"""A Prometheus server of its own for a test: it scrapes an endpoint of this machine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from support.slowdown import SLOWDOWN

from tracer.serve.packaging import grafana, text_of

DASHBOARD: dict[str, Any] = json.loads(grafana.text())
WITHIN_S = 60 * SLOWDOWN
_CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: memcg-tracer
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
_CHOSEN = ("$instance", "$namespace", "$pod", "$name", "$id")
_VARIABLES = dict.fromkeys(_CHOSEN, ".*") | {"$most": "5", "$__rate_interval": "10s", "$__range": "1m"}


class Prometheus:
    """A server that scrapes a port of this machine."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        (folder / "prometheus.yml").write_text(_CONFIGURATION.format(port=port))
        (folder / "alerts.yml").write_text(text_of("alerts.yml"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        options = {
            "config.file": folder / "prometheus.yml",
            "storage.tsdb.path": folder / "data",
            "web.listen-address": self.address,
            "enable-feature": "exemplar-storage",
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, *(f"--{name}={value}" for name, value in options.items())], stderr=log
            )

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer; None if the server does not answer yet."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
                return json.load(answer)["data"]
        except ConnectionError:
            return None
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                return None
            raise AssertionError(f"{url}: {error.read().decode()}") from error
        except urllib.error.URLError:
            return None

    def values(self, query: str) -> list[Any]:
        """Return the series of an instant query, without those of the past."""
        found = self.get("query", query=query)
        return [] if found is None else list(found["result"])

    def kill_alerts(self) -> list[Any]:
        """Return the alerts about OOM kills."""
        alerts = (self.get("alerts") or {"alerts": []})["alerts"]
        return [one for one in alerts if one["labels"]["alertname"] == "MemcgOomKill"]


@contextmanager
def prometheus(folder: Path, port: int) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes a port each second and evaluates the rules of `memcg-tracer alerts`. Skip
    the test if it is not installed."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no Prometheus here")
    running = Prometheus(program, folder, port)
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.wait()


def dashboard_queries() -> list[str]:
    """Return the queries of all panels, for all hosts and cgroups."""
    return [_expression(target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def _expression(query: str) -> str:
    for variable, value in _VARIABLES.items():
        query = query.replace(variable, value)
    return query
