"""Files that users install in Prometheus and Grafana."""

from __future__ import annotations

from importlib import resources


def text_of(name: str) -> str:
    """Return the text of a file of this folder."""
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
