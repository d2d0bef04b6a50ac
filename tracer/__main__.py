"""`python -m tracer`: the same as the `memcg-tracer` command."""

from __future__ import annotations

from tracer.cli import main

if __name__ == "__main__":
    main()
