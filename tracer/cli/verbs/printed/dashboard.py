"""`dashboard`: a Grafana dashboard for the metrics of `serve`."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  memcg-tracer dashboard > memcg-tracer.json     # Grafana: Dashboards, New, Import
  memcg-tracer dashboard | sudo tee /var/lib/grafana/dashboards/memcg-tracer.json"""
)
def command() -> None:
    """Print a Grafana dashboard for the metrics of `memcg-tracer serve`, as JSON."""
    from tracer.serve.packaging import grafana

    click.echo(grafana.text(), nl=False)
