"""Compilation for a guest on this machine: `compile_here.py REQUEST OBJECT`, as root.

REQUEST is what a guest's compiler.sh was given, and OBJECT becomes its answer.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tracer.capture.bpf.compiled.compiler import compiled


def main() -> None:
    request, answer = map(Path, sys.argv[1:])
    asked = json.loads(request.read_bytes())
    if asked["arch"] is not None:
        os.environ["ARCH"] = asked["arch"]
    unfinished = answer.with_suffix(".part")
    unfinished.write_bytes(compiled(asked["text"], asked["flags"]).encode())
    unfinished.rename(answer)


if __name__ == "__main__":
    main()
