"""`python -m tracer.wire FOLDER` writes the generated C headers into FOLDER (`make headers`: bpf/)."""

from __future__ import annotations

import sys
from pathlib import Path

from tracer.wire import c_headers

_HEADERS = {"events.h": c_headers.event_header, "categories.h": c_headers.category_header}

if __name__ == "__main__":
    for name, header_text in _HEADERS.items():
        (Path(sys.argv[1]) / name).write_text(header_text(), encoding="ascii")
