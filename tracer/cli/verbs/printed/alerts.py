"""`alerts`: alert rules for the metrics of `serve`."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  memcg-tracer alerts | sudo tee /etc/prometheus/memcg-tracer.yml   # add it to rule_files
  memcg-tracer alerts | promtool check rules"""
)
def command() -> None:
    """Print alert rules of Prometheus for the metrics of `memcg-tracer serve`, as YAML."""
    from tracer.serve.packaging import text_of

    click.echo(text_of("alerts.yml"), nl=False)
