"""`serve`: metrics for Prometheus, from a recording that is not kept."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.cli import value_completion
from tracer.cli.endpoint_options import DEFAULT_ADDRESS, address, endpoint_options, open_endpoint
from tracer.cli.kill_lines import KillLines
from tracer.cli.tuning import hooks, ring_pages

if TYPE_CHECKING:
    from tracer.capture.observer import Progress
    from tracer.watch.finishing import Finished

_KEPT_S: Final = 60.0
"""Long enough to explain a kill. A history as long as that of `watch` would take more memory."""

_MOST_MEMORY_BYTES: Final = 110 << 20


@click.command(
    epilog="""\b
Examples:
  sudo memcg-tracer serve                                  # http://127.0.0.1:9755/metrics
  sudo memcg-tracer serve -c /kubepods --listen 10.0.0.7:9755 --tls-cert c.pem --tls-key k.pem
  sudo memcg-tracer watch --serve 127.0.0.1:9755           # the same, and a trace of each kill
  memcg-tracer alerts > memcg-tracer.yml                   # rules for it""",
)
@click.option(
    "--listen", "host_and_port", metavar="ADDRESS", type=address, default=DEFAULT_ADDRESS, show_default=True,
    help="Where to listen: HOST:PORT.",
)  # fmt: skip
@value_completion.cgroups_to(
    "Serve",
    ". May be repeated.  [default: every cgroup]",
)
@endpoint_options
@click.option(
    "--ready-file", metavar="PATH", type=click.Path(path_type=Path),
    help="Create this file when all probes are attached.",
)  # fmt: skip
def command(
    *, host_and_port: tuple[str, int], cgroups: tuple[str, ...], ready_file: Path | None, **of_endpoint: Any
) -> None:
    """Serve metrics to Prometheus: the memory of each cgroup by kind, and OOM kills by cause.

    Metrics are at /metrics, in the format that the client asks for: OpenMetrics, or the text format of
    Prometheus. The last minute is in memory. At an OOM kill, it is written to a private temporary directory,
    which is removed when the kill is explained. Ctrl-C or SIGTERM ends it.
    """
    from tracer.capture.session import save_memory
    from tracer.kernel.privileges import require_linux
    from tracer.kernel.process.children import keep_pages_small

    require_linux("recording")
    save_memory()
    keep_pages_small()
    from tracer.watch.watching import WatchOptions, watch

    with (
        closing(open_endpoint(*host_and_port, keeps_traces=False, **of_endpoint)) as endpoint,
        tempfile.TemporaryDirectory(prefix="memcg-tracer-serve-") as folder,
    ):
        options = WatchOptions(
            directory=Path(folder),
            cgroups=cgroups,
            keep_s=_KEPT_S,
            most_memory_bytes=_MOST_MEMORY_BYTES,
            is_memory_asked=False,
            ready_file=ready_file,
            ring_pages=ring_pages(),
            hooks=hooks(),
        )
        watch(options, endpoint.reporter(_Lines()), endpoint.guest())


class _Lines(KillLines):
    """Prints everything on stderr."""

    def ready(self, progress: Progress) -> None:
        self.notice(f"serving (ready in {progress.startup_s:.2f} s)")

    def alarmed(self, sentence: str, cgroup: str | None) -> None:
        """Do nothing: no alarm was asked for."""

    def finished(self, story: Finished) -> None:
        whose = story.container or story.cgroup
        told = story.sentence or story.error or story.reason
        self.notice(f"{whose}: {told}" if whose else told)
